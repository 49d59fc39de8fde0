//! What is in other namespaces of this host: the same path there is another directory, and whoever cannot see a process does
//! not know that it has ended.

#![allow(clippy::disallowed_types)]

use crate::support::Sandbox;
use crate::support::launched::until;
use crate::support::netns::Namespace;
use crate::support::{finish, program};
use serde_json::Value;
use std::process::{Child, Command, Stdio};

const NONE: Vec<Value> = vec![];

/// A process that has the name of a VMM and that argument, begun by these words. It ends with its standard input.
fn vmm(sandbox: &Sandbox, words: &[&str], argument: &str) -> Child {
    let program = sandbox.path("home/firecracker");
    std::fs::copy("/bin/sh", &program).unwrap();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(&program).args(["-c", "read line", "sh", argument]).stdin(Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = child.id().try_into().unwrap();
    until("it runs", || lib_common::sys::process::executable(pid).is_some_and(|exe| exe.ends_with("firecracker")));
    child
}

/// Whether `bg-verify --now | bg-gc --now` ends that process.
fn is_ended(sandbox: &Sandbox, mut child: Child) -> bool {
    let found = sandbox.findings(&["--now"]);
    let is_found = found.iter().any(|f| f["kind"] == "process");
    super::collect(sandbox, &found);
    let ended = child.try_wait().unwrap().is_some();
    assert_eq!(is_found, ended, "{found:?}");
    let _ = finish(child, b"");
    ended
}

#[test]
fn a_process_of_another_mount_namespace_or_with_a_longer_path_is_nobodys_leak() {
    let test = "a_process_of_another_mount_namespace_or_with_a_longer_path_is_nobodys_leak";
    let sandbox = Sandbox::new();
    let run = sandbox.path("run/0123456789ab/vm.vsock").display().to_string();
    assert!(is_ended(&sandbox, vmm(&sandbox, &["env"], &format!("path={run}"))), "else this test sees nothing");
    assert!(!is_ended(&sandbox, vmm(&sandbox, &["env"], &format!("path=/somewhere/else{run}"))));
    let elsewhere = ["unshare", "--user", "--map-root-user", "--mount", "--"];
    if !Command::new(elsewhere[0]).args(&elsewhere[1..]).arg("true").status().unwrap().success() {
        crate::support::not_run(&format!("{test}, for namespaces"), "unshare --user --mount is refused");
        return;
    }
    assert!(!is_ended(&sandbox, vmm(&sandbox, &elsewhere, &run)));
}

#[test]
fn a_network_namespace_that_is_seen_from_another_process_namespace_has_not_ended() {
    let Some(netns) = Namespace::new("a_network_namespace_that_is_seen_from_another_process_namespace_has_not_ended")
    else {
        return;
    };
    let sandbox = Sandbox::new();
    netns.run(&sandbox, "bg-tap", &["up"], "").ok();
    let [dir] = &crate::support::children(&sandbox.path("net"))[..] else { panic!("not one network") };
    let networks = |command: &mut Command| {
        command.env_clear().envs(sandbox.env()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut found = finish(command.spawn().unwrap(), b"").documents();
        found.retain(|f| f["kind"] == "net_dir");
        found
    };
    let inside = || {
        let mut command = Command::new("unshare");
        command.args(["--net", "--pid", "--fork", "--mount-proc", "--", program("bg-verify"), "--now"]);
        networks(&mut command)
    };
    let outside = || networks(Command::new(program("bg-verify")).arg("--now"));
    assert_eq!([inside(), outside()], [NONE, NONE], "it lives");
    drop(netns);
    assert_eq!(inside(), NONE, "nobody in there knows");
    let found = outside();
    let is_first = std::fs::read_link("/proc/self/ns/pid").unwrap().ends_with("pid:[4026531836]");
    assert_eq!(found.len(), usize::from(is_first), "{found:?}");
    assert!(found.iter().all(|f| f["is_leak"] == true && f["id"] == dir.display().to_string().as_str()), "{found:?}");
    super::collect(&sandbox, &found);
    assert_eq!(dir.exists(), !is_first);
}
