//! Limits that a caller or the host sets, and ends that nothing can catch: they are errors like any other, and leave nothing.

use crate::running::World;
use crate::support::fixture::{Files, WORK};
use crate::support::launched::until;
use crate::support::{finish, has_strace, through};
use lib_common::error::Code;
use lib_common::sys::process::{all_pids, cmdline, stat};
use serde_json::Value;
use std::fs::{create_dir, read_to_string, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// A command behind a limit of sh(1).
fn limited(command: &Command, limit: &str) -> Command {
    through(command, "sh", &["-c", &format!("ulimit {limit}; exec \"$@\""), "sh"])
}

#[test]
fn a_limit_on_files_sizes_is_an_error_that_leaves_nothing() {
    let world = World::new(&[]);
    let command = world.command("bg-vm", &["create", "dev", "--no-start", "--work-size", WORK]);
    let said = finish(limited(&command, "-f 64").spawn().unwrap(), b"").failed_with(Code::Io);
    assert!(said.hint.as_deref().is_some_and(|hint| hint.contains("ulimit -f")), "{said:?}");
    world.assert_nothing_is_left();
}

#[test]
fn no_tool_and_no_program_of_a_vm_writes_a_core_dump() {
    let world = World::new(&["dev"]);
    finish(limited(&world.command("bg-vm", &["start", "dev"]), "-c 1000").spawn().unwrap(), b"").ok();
    let vmm = world.vm(&["show", "dev"], "").json()["vmm"].clone();
    let pids: Vec<i64> = ["vmm", "shim"].iter().filter_map(|of| vmm[of]["pid"].as_i64()).collect();
    let pids = if pids.is_empty() { vmm["pid"].as_i64().into_iter().collect() } else { pids };
    assert!(!pids.is_empty(), "{vmm}");
    let shim = pids.iter().map(|pid| i64::from(stat(i32::try_from(*pid).unwrap()).unwrap().unwrap().ppid));
    for pid in pids.iter().copied().chain(shim) {
        let limits = read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let words: Vec<&str> = core.split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{core}");
    }
}

#[test]
fn a_tool_without_descriptors_for_signals_says_so() {
    if !has_strace("a_tool_without_descriptors_for_signals_says_so") {
        return;
    }
    let world = World::new(&[]);
    let log = world.sandbox.path("strace");
    let command = world.command("bg-vm", &["ls"]);
    let options = ["-e", "trace=eventfd2", "-e", "inject=eventfd2:error=EMFILE"];
    let done = finish(crate::faults::trace::under_strace(&command, &log, &options).spawn().unwrap(), b"");
    done.failed_with(Code::Os);
}

#[test]
fn a_connector_ends_with_its_ssh() {
    let world = World::new(&["dev"]);
    world.vm(&["start", "dev"], "").ok();
    let mut ssh = world.command("bg-ssh", &["--connect-timeout", "600", "dev", "--", "true"]).spawn().unwrap();
    let starter = i32::try_from(ssh.id()).unwrap();
    let parent = |pid: i32| stat(pid).unwrap().map(|stat| stat.ppid);
    let connector = || {
        let is_it = |pid: &i32| {
            cmdline(*pid).unwrap().iter().any(|a| a == "--fdpass") && parent(*pid).and_then(parent) == Some(starter)
        };
        all_pids().unwrap().into_iter().find(is_it)
    };
    until("ssh has started its connector", || connector().is_some());
    let pid = connector().unwrap();
    ssh.kill().unwrap();
    ssh.wait().unwrap();
    until("the connector has ended", || stat(pid).unwrap().is_none_or(|stat| stat.state == 'Z'));
}

#[test]
fn a_seed_that_a_document_names_again_and_again_is_checked_once() {
    let world = World::new(&[]);
    let document = Files::new(&world.sandbox, "other").document().to_string();
    let mut document = world.sandbox.run("bg-seed", &["build", "--size", WORK], &document).json();
    let sizes = document["seed"]["sizes"].as_array().unwrap().clone();
    document["seed"]["sizes"] = std::iter::repeat_n(sizes[0].clone(), 400).collect::<Value>();
    // It counts, and lets the real one work.
    let (bin, count) = (world.sandbox.path("counting"), world.sandbox.path("count"));
    create_dir(&bin).unwrap();
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let script = format!("#!/bin/sh\necho x >>{}\nPATH={path} exec e2fsck \"$@\"\n", count.display());
    write(bin.join("e2fsck"), script).unwrap();
    set_permissions(bin.join("e2fsck"), PermissionsExt::from_mode(0o755)).unwrap();
    let mut check = world.command("bg-seed", &["check"]);
    check.env("PATH", format!("{}:{path}", bin.display()));
    let report = finish(check.spawn().unwrap(), document.to_string().as_bytes()).json();
    assert_eq!(report["checks"].as_array().unwrap().len(), 801, "each has its checks");
    assert_eq!(read_to_string(&count).unwrap().lines().count(), 1);
}
