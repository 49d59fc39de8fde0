//! Many tools at once on one store: what must be unique is, one wins, everybody else is told why not, and nothing is left.

use super::{NONE, Place, World, is_full};
use crate::faults::trace;
use crate::support::fixture::{Files, WORK};
use crate::support::has_strace;
use crate::support::launched::until;
use crate::support::{Done, children, finish};
use lib_common::error::Code;
use lib_common::sys::process::{all_pids, cmdline};
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// So many at once.
const CROWD: usize = 64;

/// Starts them all, and then waits for all of them.
fn at_once(world: &World, commands: &[Vec<String>]) -> Vec<Done> {
    let start = |args: &Vec<String>| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        // A small machine takes its time for so many; but nobody waits for another's lock for longer than that.
        world.command("bg-vm", &args).env("BG_BOOT_TIMEOUT", "600").env("BG_LOCK_WAIT", "5").spawn().unwrap()
    };
    let started: Vec<_> = commands.iter().map(start).collect();
    started.into_iter().map(|child| finish(child, b"")).collect()
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn distinct(docs: &[Value], pointer: &str) -> usize {
    let values = docs.iter().map(|doc| doc.pointer(pointer).unwrap_or_else(|| panic!("{pointer}: {doc}")).to_string());
    values.collect::<BTreeSet<_>>().len()
}

/// How long that stage took the VM that had to wait longest, in milliseconds.
fn longest(docs: &[Value], stage: &str) -> f64 {
    let timings = docs.iter().flat_map(|doc| doc["timings"].as_array().unwrap());
    timings.filter(|timing| timing["stage"] == stage).map(|timing| timing["ms"].as_f64().unwrap()).fold(0.0, f64::max)
}

/// The bridge and idle TAPs are all of the network that may be there.
fn assert_network_is_idle(world: &World) {
    assert_eq!(world.run("bg-tap", &["ls"], "").documents(), NONE);
    let Place::Net(netns) = &world.place else { return };
    let idle = world.run("bg-tap", &["pool", "ls"], "").documents().len();
    assert_eq!(netns.links().iter().filter(|name| name.starts_with("tap-")).count(), idle);
}

#[test]
fn of_64_vms_made_at_once_no_two_share_anything() {
    let Some(world) = World::with_network("of_64_vms_made_at_once_no_two_share_anything") else { return };
    let creates: Vec<_> = (0..CROWD).map(|n| words(&format!("create vm{n}"))).collect();
    let docs: Vec<Value> = at_once(&world, &creates).iter().map(Done::json).collect();
    // A CID counts within one vsock socket alone, as each Firecracker has one: that is what has to be unique.
    for unique in ["/id", "/net/address", "/net/mac", "/net/tap", "/vmm/vsock", "/vmm/pid", "/guest/host_key"] {
        assert_eq!(distinct(&docs, unique), CROWD, "{unique}");
    }
    for stage in ["lock", "network", "lease", "tap", "create_tap"] {
        println!("the longest `{stage}` of {CROWD}: {:.0} ms", longest(&docs, stage));
    }
    assert_eq!(world.vm(&["ls"]).documents().iter().filter(|d| d["status"]["state"] == "running").count(), CROWD);
    assert_eq!(world.leaks(), NONE);
    let removes: Vec<_> = (0..CROWD).map(|n| words(&format!("rm --force vm{n}"))).collect();
    at_once(&world, &removes).iter().for_each(|done| drop(done.ok()));
    assert_eq!((children(&world.sandbox.state("machines")), world.leaks()), (vec![], NONE));
    assert_network_is_idle(&world);
}

#[test]
fn of_64_that_make_one_vm_one_wins() {
    let Some(world) = World::with_network("of_64_that_make_one_vm_one_wins") else { return };
    let ends = at_once(&world, &vec![words("create dev"); CROWD]);
    let (won, lost): (Vec<&Done>, Vec<&Done>) = ends.iter().partition(|done| done.exit == 0);
    assert_eq!(won.len(), 1, "{ends:?}");
    lost.iter().for_each(|done| drop(done.failed_with(Code::Exists)));
    assert_eq!(world.vm(&["show", "dev"]).json()["id"], won[0].json()["id"]);
    assert_eq!((world.state_of("dev").as_str(), world.leaks()), ("running", NONE));
    assert_eq!(world.run("bg-tap", &["ls"], "").documents().len(), 1);
    at_once(&world, &vec![words("rm --force dev"); CROWD]).iter().for_each(|done| drop(done.ok()));
    assert_eq!((children(&world.sandbox.state("machines")), world.leaks()), (vec![], NONE));
    assert_network_is_idle(&world);
}

#[test]
fn rounds_of_everything_at_once_leave_whole_vms() {
    let Some(world) = World::with_network("rounds_of_everything_at_once_leave_whole_vms") else { return };
    let mut dice = 1_u64;
    let mut roll = |sides: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(dice >> 33).unwrap() % sides
    };
    for round in 0..if is_full() { 50 } else { 4 } {
        let verbs = ["create", "create", "start", "stop", "kill", "rm", "rm --force", "ls", "show"];
        let line = |verb: &str, n: usize| if verb == "ls" { words("ls") } else { words(&format!("{verb} vm{n}")) };
        let crowd: Vec<_> = (0..32).map(|_| line(verbs[roll(verbs.len())], roll(6))).collect();
        for (done, line) in at_once(&world, &crowd).iter().zip(&crowd).filter(|(done, _)| done.exit != 0) {
            let code = done.failed().code;
            let fine = ["exists", "not_found", "in_use"].contains(&code.as_str());
            assert!(fine, "round {round}: {line:?}: {done:?}");
        }
        assert_eq!(world.leaks(), NONE, "round {round}: {crowd:?}");
        let (vms, taps) = (world.vm(&["ls"]).documents(), world.run("bg-tap", &["ls"], "").documents());
        let running = vms.iter().filter(|d| d["status"]["state"] == "running").count();
        assert!(
            vms.iter().all(|d| ["running", "stopped"].contains(&d["status"]["state"].as_str().unwrap())),
            "{vms:?}"
        );
        assert_eq!(children(&world.sandbox.path("run")).len(), running, "round {round}");
        assert_eq!(taps.iter().filter(|tap| !tap["tap"].is_null()).count(), running, "round {round}: {taps:?}");
        assert_eq!(taps.len(), vms.iter().filter(|d| d.get("net").is_some()).count(), "round {round}: {taps:?}");
    }
}

#[test]
fn whoever_waits_for_a_lock_is_told_by_whom_it_is_held_and_gets_it_when_that_is_killed() {
    let world = World::new();
    world.vm(&["create", "dev"]).ok();
    // This guest does not end, and so the lock is held for as long as somebody waits for that.
    std::fs::write(world.sandbox.path("fake/mode"), "stays").unwrap();
    world.vm(&["restart", "dev"]).ok();
    let mut holder = world.command("bg-vm", &["stop", "--timeout", "600", "dev"]).spawn().unwrap();
    let lock = world.sandbox.state("machines/dev/lock");
    until("it is held", || lib_common::sys::lock::is_held(&lock).unwrap());
    let waiter = world.command("bg-vm", &["kill", "dev"]).env("BG_LOCK_WAIT", "0.3").spawn().unwrap();
    let begun = Instant::now();
    let e = finish(waiter, b"").failed_with(Code::LockBusy);
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert!(e.causes.concat().contains(&format!("bg-vm (pid {})", holder.id())), "{e:?}");
    let waiter = world.command("bg-vm", &["kill", "dev"]).env("BG_LOCK_WAIT", "600").spawn().unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    let begun = Instant::now();
    assert_eq!(finish(waiter, b"").json()["status"]["state"], "stopped");
    assert!(begun.elapsed() < Duration::from_secs(60), "the kernel frees it with its holder");
    assert_eq!(world.leaks(), NONE);
}

#[test]
fn what_sixteen_want_first_is_made_once() {
    let world = World::new();
    let path = counted(&world, "mke2fs");
    let document = Files::new(&world.sandbox, "first").document().to_string();
    let build = |_| {
        let mut command = world.command("bg-seed", &["build", "--size", WORK]);
        (command.env("PATH", &path).spawn().unwrap(), &document)
    };
    let started: Vec<_> = (0..16).map(build).collect();
    let feeders = started.into_iter().map(|(child, document)| {
        let document = document.clone();
        std::thread::spawn(move || finish(child, document.as_bytes()))
    });
    let docs: Vec<Value> = feeders.collect::<Vec<_>>().into_iter().map(|f| f.join().unwrap().json()).collect();
    assert!(docs.iter().all(|doc| doc["seed"] == docs[0]["seed"]), "{docs:?}");
    // One that is killed while it makes it is nobody's obstacle.
    assert_eq!(std::fs::read_to_string(world.sandbox.path("count")).unwrap(), "x");
    let left: Vec<PathBuf> = children(&world.sandbox.path("cache/seed"));
    assert_eq!(left.iter().filter(|path| !path.ends_with(".lock")).count(), 1, "{left:?}");
}

/// A PATH in which each run of that program leaves a mark in the file `count`.
fn counted(world: &World, name: &str) -> String {
    let path = std::env::var("PATH").unwrap();
    let real = std::env::split_paths(&path).chain([Path::new("/usr/sbin").into(), Path::new("/sbin").into()]);
    let real = real.map(|dir| dir.join(name)).find(|file| file.is_file()).unwrap();
    let dir = world.sandbox.path("counted");
    std::fs::create_dir(&dir).unwrap();
    let (count, script) = (world.sandbox.path("count"), dir.join(name));
    let text = format!("#!/bin/sh\nprintf x >>'{}'\nexec '{}' \"$@\"\n", count.display(), real.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    format!("{}:{path}", dir.display())
}

#[test]
fn a_lock_on_a_file_that_was_removed_meanwhile_is_none() {
    let test = "a_lock_on_a_file_that_was_removed_meanwhile_is_none";
    if !has_strace(test) {
        return;
    }
    let world = World::new();
    world.vm(&["create", "dev"]).ok();
    let (mut command, lock) = (world.command("bg-vm", &["kill", "dev"]), world.sandbox.state("machines/dev/lock"));
    command.env("BG_LOCK_WAIT", "0.3");
    let (_, calls) = trace::calls(&world.sandbox, &command, "", (trace::CALLS, false));
    let opens = |call: &&trace::Call| call.text.contains(lock.to_str().unwrap()) && call.text.contains("O_CREAT");
    let nth = calls.iter().find(opens).unwrap().nth;
    // It has opened the file, and stops before it can lock it.
    let stops = format!("inject=openat:signal=STOP:when={nth}");
    let log = world.sandbox.path("stops");
    let strace = trace::under_strace(&command, &log, &["-e", "trace=openat", "-e", &stops]).spawn().unwrap();
    let stopped = || {
        let tracee =
            |pid: &i32| lib_common::sys::process::stat(*pid).unwrap().is_some_and(|s| matches!(s.state, 't' | 'T'));
        let ours = |pid: &i32| cmdline(*pid).unwrap().first().is_some_and(|program| program.ends_with("bg-vm"));
        let named = std::fs::read_to_string(&log).is_ok_and(|text| text.contains(lock.to_str().unwrap()));
        all_pids()
            .unwrap()
            .into_iter()
            .filter(|_| named)
            .find(|pid| tracee(pid) && ours(pid) && is_of(*pid, strace.id()))
    };
    let mut pid = None;
    until("it has stopped", || {
        pid = stopped();
        pid.is_some()
    });
    world.vm(&["rm", "--force", "dev"]).ok();
    world.vm(&["create", "dev", "--no-start"]).ok();
    let held = lib_common::sys::lock::Lock::try_take(&lock).unwrap().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.unwrap()), nix::sys::signal::Signal::SIGCONT).unwrap();
    finish(strace, b"").failed_with(Code::LockBusy);
    drop(held);
}

/// Whether that process was started by this one.
fn is_of(pid: i32, parent: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line == format!("PPid:\t{parent}"))
}
