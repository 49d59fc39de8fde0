//! Clones share blocks where the file system can: on a btrfs of the test's own, in a mount namespace of its own, so that
//! mount and loop device are gone with it.

#![allow(clippy::disallowed_types)]

use crate::support::fixture::{Files, WORK};
use crate::support::{Done, Sandbox, TOOLS};
use std::path::Path;
use std::process::Command;

/// Run in a new mount namespace with an image's document as its argument. bash only puts the tools together.
const SCRIPT: &str = r#"
truncate -s 256M "$HOME/disk"
mkfs.btrfs -q "$HOME/disk" >&2
mkdir "$HOME/m"
mount -o loop "$HOME/disk" "$HOME/m"
export BG_STATE_DIR="$HOME/m/state"
bg-seed build --file "$1" --size "$2" | bg-register --name debian >&2
sync
bg-vm create a --no-start --work-size "$2"
"#;

#[test]
fn disks_are_reflinks_where_the_file_system_can() {
    if !nix::unistd::geteuid().is_root() {
        crate::support::not_run("disks_are_reflinks_where_the_file_system_can", "a loop mount needs root");
        return;
    }
    let sandbox = Sandbox::new();
    let document = sandbox.path("image.json");
    std::fs::write(&document, Files::new(&sandbox, "x").document().to_string()).unwrap();
    let bin_dir = Path::new(TOOLS[0].1).parent().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "bash", "-euc", SCRIPT, "reflink"]).arg(&document).arg(WORK);
    command.env_clear().envs(sandbox.env());
    command.env("PATH", format!("{}:{}", bin_dir.display(), std::env::var("PATH").unwrap()));
    let done: Done = command.output().unwrap().into();
    let disks = &done.json()["disks"];
    assert_eq!((&disks["root"]["method"], &disks["work"]["method"]), (&"reflink".into(), &"reflink".into()), "{disks}");
    let loops = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!loops.contains(sandbox.path("home").to_str().unwrap()), "the mount is gone: {loops}");
}
