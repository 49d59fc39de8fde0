//! `pipelines/in-netns`: a namespace for one command, gone afterwards however that ends.

#![allow(clippy::disallowed_types)]

use crate::support::netns::Namespace;
use crate::support::source::root;
use crate::support::{Done, Sandbox, children, program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn command(sandbox: &Sandbox, args: &[&str]) -> Command {
    // Whoever runs the tests in the background of a script has SIGINT ignored, and a shell cannot trap what it was born with.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT").arg(root("pipelines/in-netns"));
    command.args(args).env_clear().envs(sandbox.env()).env("TMPDIR", sandbox.path("tmp")).stdin(Stdio::piped());
    std::fs::create_dir_all(sandbox.path("tmp")).unwrap();
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(sandbox: &Sandbox, args: &[&str]) -> Done {
    let done = command(sandbox, args).output().unwrap().into();
    assert_eq!(children(&sandbox.path("tmp")).len(), 0, "its state is gone");
    done
}

/// Whether some process is in the namespace with that inode.
fn lives(inode: u64) -> bool {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().any(|pid| std::fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|m| m.ino() == inode))
}

/// The kernel ends what is left in it, and needs a moment.
fn assert_ends(inode: u64, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while lives(inode) {
        assert!(Instant::now() < deadline, "{what}: the namespace is still there");
        std::thread::yield_now();
    }
}

/// Whether this host gives namespaces to this user.
fn can(test: &str) -> bool {
    Namespace::new(test).is_some()
}

const INODE: &str = "stat -L -c %i /proc/self/ns/net";

#[test]
fn the_commands_status_passes_through() {
    if !can("the_commands_status_passes_through") {
        return;
    }
    let sandbox = Sandbox::new();
    for (script, status) in [("true", 0), ("exit 1", 1), ("exit 75", 75), ("kill -TERM $$", 143), ("nonesuch", 127)] {
        assert_eq!(run(&sandbox, &["sh", "-c", script]).exit, status, "{script}");
    }
    assert_eq!(run(&sandbox, &[]).exit, 64);
    let words = run(&sandbox, &["printf", "%s|", "a b", "$HOME", ""]);
    assert_eq!(words.ok(), "a b|$HOME||", "words stay words");
}

#[test]
fn it_is_another_namespace_and_gone_afterwards() {
    if !can("it_is_another_namespace_and_gone_afterwards") {
        return;
    }
    let sandbox = Sandbox::new();
    let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
    for (end, status) in [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", 137)] {
        // A process that it leaves running goes, too.
        let script = format!("{INODE}; sleep 1000 >/dev/null 2>&1 & {end}");
        let done = run(&sandbox, &["sh", "-c", &format!("{INODE} && {script}")]);
        assert_eq!(done.exit, status, "{end}: {done:?}");
        let inode: u64 = done.text().lines().next().unwrap().parse().unwrap();
        assert_ne!(inode, own);
        assert_ends(inode, end);
    }
    let doc = run(&sandbox, &["sh", "-c", &format!("{0} up && {0} pool fill 2", program("bg-tap"))]);
    assert!(doc.ok().contains(r#""idle":2"#));
    assert_eq!(children(&sandbox.path("net")).len(), 0, "it has a state of its own");
}

#[test]
fn killing_it_ends_everything() {
    if !can("killing_it_ends_everything") {
        return;
    }
    let sandbox = Sandbox::new();
    for (signal, status) in [(Signal::SIGTERM, Some(143)), (Signal::SIGINT, Some(130)), (Signal::SIGKILL, None)] {
        let mut child = command(&sandbox, &["sh", "-c", &format!("{INODE}; sleep 1000")]).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let inode: u64 = line.trim().parse().unwrap();
        assert!(lives(inode));
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), status, "{signal}");
        assert_ends(inode, signal.as_str());
    }
}

#[test]
fn stdin_is_the_commands() {
    if !can("stdin_is_the_commands") {
        return;
    }
    let sandbox = Sandbox::new();
    let done = crate::support::finish(command(&sandbox, &["cat"]).spawn().unwrap(), b"to the command\n");
    assert_eq!(done.ok(), "to the command\n");
}
