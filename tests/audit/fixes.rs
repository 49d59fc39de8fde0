//! What findings say to type: it can be pasted as it is, whatever a directory is called, and nothing is lost by doing so.

#![allow(clippy::disallowed_types)]

use super::{assert_can_be_pasted, make_old, store};
use crate::support::fixture::{Files, WORK};
use crate::support::{Done, Sandbox, finish};
use serde_json::Value;
use std::fs::{create_dir, read, remove_file, write};
use std::path::PathBuf;
use std::process::Command;

/// A store with the image `debian` whose state directory has a name that is no word of a shell.
struct Awkward(Sandbox);

impl Awkward {
    fn new(vms: &[&str]) -> Self {
        let store = Awkward(Sandbox::new());
        let document = Files::new(&store.0, "of-debian").document().to_string();
        store.run("bg-register", &["--name", "debian"], &document).ok();
        for vm in vms {
            store.run("bg-vm", &["create", vm, "--no-start", "--work-size", WORK], "").ok();
        }
        store
    }

    fn state(&self, below: &str) -> PathBuf {
        self.0.path("o'brien's $(state) & (old)").join(below)
    }

    fn run(&self, tool: &str, args: &[&str], stdin: &str) -> Done {
        let mut command = self.0.command(tool, args);
        command.env("BG_STATE_DIR", self.state(""));
        finish(command.spawn().unwrap(), stdin.as_bytes())
    }

    fn findings(&self, args: &[&str]) -> Vec<Value> {
        let mut found = self.run("bg-verify", args, "").documents();
        found.retain(|f| !crate::support::is_of_network(f));
        found
    }
}

/// What a finding says to type is typed.
fn paste(finding: &Value) {
    let fix = finding["fix"].as_str().unwrap();
    let done = Command::new("sh").args(["-c", fix]).output().unwrap();
    assert!(done.status.success(), "{finding}: {done:?}");
}

#[test]
fn what_is_printed_can_be_pasted() {
    let store = Awkward::new(&["dev", "web", "bad", "torn", "open", "lost"]);
    for file in ["machines/dev/vmlinux", "machines/web/root.ext4", "machines/lost/machine.json"] {
        remove_file(store.state(file)).unwrap();
    }
    for dir in ["machines/My Backups", "images/lost"] {
        create_dir(store.state(dir)).unwrap();
        write(store.state(dir).join("x"), "").unwrap();
    }
    let begin = r#"{"record":"begin","operation":"start","pid":1,"start_time":1,"boot_id":"b"}"#;
    let intent = r#"{"record":"intent","undo":{"do":"remove_file","path":"/nowhere"}}"#;
    for (file, content) in [
        ("machines/bad/machine.json", "junk"),
        ("machines/torn/journal", "junk\n"),
        ("machines/dev/old 'disk'.ext4", ""),
        ("machines/dev/known_hosts", "dev ssh-ed25519 AAAA\n"),
        ("machines/dev/.tmp-x", ""),
        ("machines/open/journal", &format!("{begin}\n{intent}\n")),
        ("images/debian/old disk.ext4", ""),
        ("images/debian/initrd", "other"),
        ("default-image", "gone\n"),
    ] {
        write(store.state(file), content).unwrap();
    }
    std::os::unix::fs::symlink("/", store.state("machines/link (1)")).unwrap();
    let mut found = store.findings(&[]);
    found.extend(store.findings(&["--now"]));
    assert!(found.len() >= 2 * 14, "{found:#?}");
    assert_can_be_pasted(&found);
    found.retain(|f| !f["fix"].as_str().unwrap().starts_with("bg-"));
    found.sort_by_key(|f| f["fix"].to_string());
    found.dedup_by_key(|f| f["fix"].to_string());
    assert!(found.len() >= 9, "{found:#?}");
    found.iter().for_each(paste);
}

#[test]
fn a_kernel_that_is_missing_is_copied_from_the_image_and_the_disks_stay() {
    let store = Awkward::new(&["dev"]);
    let own = |name: &str| store.state("machines/dev").join(name);
    let was = ["vmlinux", "initrd"].map(|name| read(own(name)).unwrap());
    ["vmlinux", "initrd"].iter().for_each(|name| remove_file(own(name)).unwrap());
    let found = store.findings(&["--now"]);
    assert!(found.len() == 2 && found.iter().all(|f| !f["fix"].as_str().unwrap().contains("bg-vm rm")), "{found:?}");
    found.iter().for_each(paste);
    assert_eq!(["vmlinux", "initrd"].map(|name| read(own(name)).unwrap()), was);
    assert!(own("root.ext4").exists() && own("work.ext4").exists());
    assert_eq!(store.findings(&["--now"]), Vec::<Value>::new());
}

#[test]
fn the_kernel_of_another_image_of_that_name_is_none_of_the_vms() {
    let sandbox = store();
    let document = Files::new(&sandbox, "another").document().to_string();
    sandbox.run("bg-register", &["--name", "debian", "--replace"], document).ok();
    remove_file(sandbox.state("machines/dev/vmlinux")).unwrap();
    let found = sandbox.findings(&["--now"]);
    let fix = found[0]["fix"].as_str().unwrap();
    assert!(found.len() == 1 && fix.starts_with("ls ") && fix.contains("debian has another one"), "{found:?}");
}

#[test]
fn as_long_as_a_disk_is_there_nothing_says_to_remove_the_vm() {
    for (gone, left) in [("root.ext4", "work.ext4"), ("work.ext4", "root.ext4")] {
        let sandbox = store();
        let disk = |name: &str| sandbox.state("machines/dev").join(name);
        remove_file(disk(gone)).unwrap();
        let found = sandbox.findings(&["--now"]);
        let fix = found[0]["fix"].as_str().unwrap();
        assert!(found.len() == 1 && fix.starts_with("ls ") && !fix.contains("bg-vm rm"), "{found:?}");
        assert!(found[0]["evidence"].as_str().unwrap().ends_with(&format!("still there: {left}")), "{found:?}");
        paste(&found[0]);
        remove_file(disk(left)).unwrap();
        let found = sandbox.findings(&["--now"]);
        assert!(found.iter().any(|f| f["fix"].as_str().unwrap().contains("bg-vm rm dev")), "{found:?}");
    }
}

#[test]
fn a_young_leak_is_removed_by_what_is_printed_with_it() {
    let sandbox = store();
    let dir = sandbox.state("staging/0123");
    create_dir(&dir).unwrap();
    write(dir.join("lock"), "").unwrap();
    let fix = |args: &[&str]| sandbox.findings(args)[0]["fix"].clone();
    assert_eq!(fix(&["--now"]), "bg-verify --now | bg-gc --now");
    make_old(&dir);
    assert_eq!([fix(&["--now"]), fix(&[])], ["bg-verify | bg-gc", "bg-verify | bg-gc"]);
}
