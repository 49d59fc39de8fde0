//! Small programs: on disk, and in memory whatever the size of what passes through them. Release builds only, since a
//! debug build says nothing of either.

#![cfg(not(debug_assertions))]
#![allow(clippy::disallowed_types)]

use crate::support::fixture::Files;
use crate::support::{Sandbox, TOOLS, finish, program};
use std::fs::File;
use std::process::{Command, Stdio};

/// The most that a program may take on disk, in bytes.
const PROGRAM: u64 = 6 << 20;
/// The most that a filter may take of memory, in bytes.
const MEMORY: u64 = 64 << 20;

#[test]
fn programs_are_small() {
    for (tool, path) in TOOLS {
        let bytes = std::fs::metadata(path).unwrap().len();
        assert!(bytes < PROGRAM, "{tool} has {bytes} bytes, {PROGRAM} are the most");
    }
}

#[test]
fn memory_does_not_grow_with_what_passes_through() {
    let sandbox = Sandbox::new();
    let files = Files::new(&sandbox, "a");
    File::options().write(true).open(files.path("rootfs.ext4")).unwrap().set_len(256 << 20).unwrap();
    // Data that is no hole, at the end of a file four times as large as what the tool may take.
    let data = vec![1; 8 << 20];
    std::os::unix::fs::FileExt::write_all_at(
        &File::options().write(true).open(files.path("rootfs.ext4")).unwrap(),
        &data,
        240 << 20,
    )
    .unwrap();
    let document = files.document().to_string();
    // The limit holds from the first instruction on; a tool that needs more is ended by it.
    let mut command = Command::new("prlimit");
    command.arg(format!("--data={MEMORY}")).arg("--").arg(program("bg-register")).args(["--name", "a"]);
    command.env_clear().envs(sandbox.env()).current_dir(sandbox.path("home"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().unwrap(), document.as_bytes()).ok();
}
