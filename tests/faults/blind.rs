//! A file that cannot be opened, or a directory that cannot be listed to its end, since there are no descriptors left or the disk
//! is broken, is none that is gone: of a VM that runs nobody says that it does not, starts it again, takes it for a leak or
//! removes it.

use super::World;
use super::trace::{self, Point};
use crate::support::{Done, has_strace};
use lib_common::sys::process::{all_pids, cmdline};
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashSet};
use std::fs::{File, create_dir, create_dir_all, remove_file, write};
use std::path::{Path, PathBuf};
use std::process::Command;

const FAULTS: [&str; 3] = ["error=EMFILE", "error=EIO", "error=ENOMEM"];

/// The calls that open something, to read it or to change it, or list it, and what; without `BG_TEST_FULL` the first of those
/// that differ, with the one before, in digits alone: who reads the same file for something else has read another one before.
fn looks(world: &World, command: &Command, stdin: &str) -> (usize, Vec<Point>) {
    let traced = format!("{},getdents64", trace::CALLS);
    let (_, mut calls) = trace::calls(&world.sandbox, command, stdin, (&traced, false));
    calls.retain(|call| call.name.starts_with("open") || call.name == "getdents64");
    let (all, mut seen) = (calls.len(), HashSet::new());
    if std::env::var_os("BG_TEST_FULL").is_none() {
        let mut before = String::new();
        calls.retain(|call| {
            let what = call.text.replace(|c: char| c.is_ascii_hexdigit(), "");
            seen.insert((std::mem::replace(&mut before, what.clone()), what))
        });
    }
    (all, calls.into_iter().map(Point::from).collect())
}

/// What the VM says of its processes, and who runs for it: one that somebody has ended or started again has others.
fn processes(world: &World, runtime_dir: &Path) -> (Value, Vec<i32>) {
    let doc = world.vm(&["show", "kept"], "").json();
    assert_eq!(doc["status"]["state"], "running", "{doc}");
    let dir = runtime_dir.to_str().unwrap();
    let runs_there = |pid: &i32| cmdline(*pid).unwrap().iter().any(|arg| arg.contains(dir));
    (doc["vmm"].clone(), all_pids().unwrap().into_iter().filter(runs_there).collect())
}

/// What says that a VM's processes and its runtime directory are leaks.
fn lies(vmm: &Value, runtime_dir: &Path) -> String {
    let shim = format!("{}:{}", vmm["shim_pid"], vmm["shim_start_time"]);
    let finding = |kind: &str, id: &str| {
        let finding = json!({
            "api_version": "banger/v1", "kind": kind, "id": id, "owner": "", "age_ms": 1_000_000, "evidence": "a lie",
            "is_leak": true, "fix": "",
        });
        format!("{finding}\n")
    };
    finding("process", &shim) + &finding("runtime_dir", runtime_dir.to_str().unwrap())
}

/// A VM that runs, `kept`, among those, and its runtime directory.
fn running(vms: &[&str]) -> (World, PathBuf) {
    let world = World::new(vms);
    let vmm = world.vm(&["start", "kept"], "").json()["vmm"].clone();
    let dir = Path::new(vmm["vsock"].as_str().unwrap()).parent().unwrap().to_owned();
    (world, dir)
}

/// Runs these verbs, each with every fault, beside the VM, which is then what it was.
fn beside(test: &str, (world, dir): &(World, PathBuf), verbs: &[(&str, &[&str])], collect: bool) {
    let before = processes(world, dir);
    assert!(before.1.len() > 1, "shim and VMM: {before:?}");
    for (tool, args) in verbs {
        let stdin = if *tool == "bg-gc" { lies(&before.0, dir) } else { String::new() };
        let command = world.command(tool, args);
        let (all, tried) = looks(world, &command, &stdin);
        let faults = if all == tried.len() { &FAULTS[..] } else { &FAULTS[..1] };
        let mut met = 0;
        for point in &tried {
            for fault in faults {
                let _ = world.vm(&["rm", "other"], "");
                let what = format!("{tool} {args:?}: {fault} at {point:?}");
                let (done, has_met) = trace::with_fault(&world.sandbox, &command, &stdin, point, fault);
                met += usize::from(has_met);
                assert!(!done.text().contains(r#""state":"stopped""#) || args[0] == "create", "{what}: {done:?}");
                if *tool == "bg-verify" {
                    let leaks = done.documents().into_iter().filter(|finding| finding["is_leak"] == true);
                    let leaks: String = leaks.map(|finding| format!("{finding}\n")).collect();
                    assert_eq!(leaks, "", "{what}");
                }
                assert_eq!(processes(world, dir), before, "{what}: {done:?}");
                if collect {
                    world.sandbox.collect();
                    assert_eq!(processes(world, dir), before, "{what}: {done:?}");
                }
            }
        }
        let runs = tried.len() * faults.len();
        println!("{test}: {tool} {args:?}: {} of {all} points, {faults:?}: {met} of {runs} met", tried.len());
        assert!(tried.len() > 10 && met * 10 >= runs * 9, "{} points, {met} of {runs} met", tried.len());
    }
}

#[test]
fn what_cannot_be_looked_at_is_not_taken_for_gone() {
    let test = "what_cannot_be_looked_at_is_not_taken_for_gone";
    if !has_strace(test) {
        return;
    }
    let verbs: [(&str, &[&str]); 6] = [
        ("bg-verify", &["--now"]),
        ("bg-gc", &["--now"]),
        ("bg-vm", &["ls"]),
        ("bg-vm", &["start", "kept"]),
        ("bg-vm", &["rm", "kept"]),
        ("bg-vm", &["create", "other", "--no-start"]),
    ];
    beside(test, &running(&["kept"]), &verbs, true);
}

/// Then /proc alone says who runs.
#[test]
fn nor_is_what_runs_for_a_vm_whose_runtime_directory_is_gone() {
    let test = "nor_is_what_runs_for_a_vm_whose_runtime_directory_is_gone";
    if !has_strace(test) {
        return;
    }
    let (world, dir) = running(&["kept"]);
    std::fs::remove_dir_all(&dir).unwrap();
    let verbs: [(&str, &[&str]); 5] = [
        ("bg-verify", &["--now"]),
        ("bg-gc", &["--now"]),
        ("bg-vm", &["ls"]),
        ("bg-vm", &["start", "kept"]),
        ("bg-vm", &["rm", "kept"]),
    ];
    let it = (world, dir);
    beside(test, &it, &verbs, false);
    it.0.vm(&["rm", "--force", "kept"], "").ok();
    it.0.sandbox.collect();
}

/// Leaks and damage of many kinds. What is held as long as it lives is a lock of a process that is gone.
fn littered(world: &World, runtime_dir: &Path) -> Flock<File> {
    let state = |below: &str| world.sandbox.state(below);
    for dir in ["machines/half", "staging/one", "images/half"] {
        create_dir(state(dir)).unwrap();
    }
    create_dir(runtime_dir.with_file_name("0123456789abcdef0123456789abcdef")).unwrap();
    for file in [
        ".tmp-state",
        "machines/.tmp-machines",
        "machines/broken/.tmp-record",
        "machines/broken/nobodys",
        "images/debian/nobodys",
        "images/debian/seed-999.ext4",
        "images/lost/rootfs.ext4",
    ] {
        let path = state(file);
        create_dir_all(path.parent().unwrap()).unwrap();
        write(path, "").unwrap();
    }
    write(state("machines/broken/known_hosts"), "broken ssh-ed25519 AAAA\n").unwrap();
    remove_file(state("machines/broken/work.ext4")).unwrap();
    write(state("machines/damaged/machine.json"), "{").unwrap();
    let lock = state("machines/held/lock");
    let held = Flock::lock(File::options().write(true).open(&lock).unwrap(), FlockArg::LockExclusive).unwrap();
    // No process ever has that number: PID_MAX_LIMIT is 2^22.
    write(&lock, format!("{} bg-vm\n", i32::MAX)).unwrap();
    held
}

#[test]
fn whoever_cannot_look_does_not_say_that_all_is_well() {
    let test = "whoever_cannot_look_does_not_say_that_all_is_well";
    if !has_strace(test) {
        return;
    }
    let (world, dir) = running(&["kept", "broken", "damaged", "held"]);
    let held = littered(&world, &dir);
    let found = |done: &Done| -> BTreeSet<String> {
        let text = |f: Value| format!("{} {} {} {}", f["kind"], f["id"], f["evidence"], f["is_leak"]);
        done.documents().into_iter().map(text).collect()
    };
    let command = world.command("bg-verify", &["--now"]);
    let all = found(&world.sandbox.run("bg-verify", &["--now"], ""));
    assert!(all.len() >= 15, "{all:#?}");
    let (count, tried) = looks(&world, &command, "");
    let (mut met, mut bad) = (0, vec![]);
    for point in &tried {
        let (done, has_met) = trace::with_fault(&world.sandbox, &command, "", point, FAULTS[0]);
        met += usize::from(has_met);
        let seen = found(&done);
        if done.exit <= 1 && seen != all {
            let differ: Vec<_> = seen.symmetric_difference(&all).collect();
            bad.push(format!("{}: {differ:?}", point.text));
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
    println!("{test}: {} of {count} points: {met} met", tried.len());
    assert!(tried.len() > 50 && met * 10 >= tried.len() * 9, "{} points, {met} met", tried.len());
    drop(held);
}
