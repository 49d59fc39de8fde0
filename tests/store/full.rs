//! A state directory that is full, read-only, or gone.

use super::{NONE, Place, World, is_full};
use crate::support::children;
use crate::support::launched::until;
use crate::support::mounts::Mounts;
use lib_common::sys::process::ProcessId;
use std::path::PathBuf;

/// The file system that the state directory of a world is.
fn roomy(world: &World) -> &Mounts {
    let Place::Mounts(mounts) = &world.place else { unreachable!("it was made so") };
    mounts
}

/// What the store has in these directories, without the filler.
fn content(world: &World) -> Vec<PathBuf> {
    let seen = |dir: &str| children(&roomy(world).seen(dir));
    let all = seen("machines").into_iter().chain(seen("staging")).chain(children(&world.sandbox.path("run")));
    all.collect()
}

#[test]
fn vms_of_a_full_disk_are_looked_at_stopped_started_and_removed() {
    let Some(world) = World::with_room("vms_of_a_full_disk_are_looked_at_stopped_started_and_removed", 64) else {
        return;
    };
    world.vm(&["create", "runs"]).ok();
    world.vm(&["create", "rests", "--no-start"]).ok();
    world.vm(&["create", "goes", "--no-start"]).ok();
    roomy(&world).leave(0);
    for _ in 0..3 {
        assert_eq!(world.vm(&["ls"]).ok().lines().count(), 3);
        assert_eq!([world.state_of("runs"), world.state_of("rests")], ["running", "stopped"]);
        world.vm(&["stop", "runs"]).ok();
        world.vm(&["start", "rests"]).ok();
        assert_eq!([world.state_of("runs"), world.state_of("rests")], ["stopped", "running"]);
        world.vm(&["stop", "rests"]).ok();
        world.vm(&["start", "runs"]).ok();
    }
    assert_eq!(world.leaks(), NONE);
    world.vm(&["rm", "goes"]).ok();
    world.vm(&["rm", "--force", "runs", "rests"]).ok();
    assert_eq!((content(&world), world.leaks()), (vec![], NONE));
}

#[test]
fn a_creation_that_finds_no_room_says_where_and_leaves_nothing() {
    let Some(world) = World::with_room("a_creation_that_finds_no_room_says_where_and_leaves_nothing", 64) else {
        return;
    };
    let state = world.sandbox.state("").display().to_string();
    let mut failures = 0;
    for kib in (0..).map(|n| n * if is_full() { 64 } else { 1024 }) {
        for how in [&["create", "dev", "--no-start"][..], &["create", "dev"]] {
            roomy(&world).leave(kib << 10);
            let done = world.vm(how);
            if done.exit != 0 {
                let e = done.failed();
                assert!(e.message.contains(&state) || e.causes.concat().contains(&state), "{kib} KiB: {e:?}");
                assert!(format!("{} {}", e.message, e.causes.concat()).contains("No space left"), "{kib} KiB: {e:?}");
                assert_eq!((content(&world), world.leaks()), (vec![], NONE), "{kib} KiB, {how:?}");
                failures += 1;
                continue;
            }
            world.vm(&["rm", "--force", "dev"]).ok();
            if how.len() == 2 {
                assert!(failures > 2, "it was full {failures} times");
                return;
            }
        }
    }
}

#[test]
fn vms_of_a_read_only_state_directory_are_looked_at_and_stopped() {
    let Some(world) = World::with_room("vms_of_a_read_only_state_directory_are_looked_at_and_stopped", 64) else {
        return;
    };
    world.vm(&["create", "runs"]).ok();
    world.vm(&["create", "rests", "--no-start"]).ok();
    roomy(&world).make_read_only();
    assert_eq!(world.vm(&["ls"]).ok().lines().count(), 2);
    assert_eq!([world.state_of("runs"), world.state_of("rests")], ["running", "stopped"]);
    for refused in [&["create", "new"][..], &["start", "rests"], &["rm", "rests"]] {
        let e = world.vm(refused).failed();
        assert!(format!("{} {}", e.message, e.causes.concat()).contains("Read-only"), "{refused:?}: {e:?}");
    }
    let stopped = world.vm(&["stop", "rests", "runs"]);
    stopped.ok();
    assert!(stopped.stderr.contains("read-only"), "{stopped:?}");
    assert_ne!(world.state_of("runs"), "running");
    assert_eq!(children(&world.sandbox.path("run")), Vec::<PathBuf>::new());
    roomy(&world).make_writable();
    assert_eq!(world.leaks(), NONE);
    world.vm(&["start", "runs"]).ok();
    world.vm(&["rm", "--force", "runs", "rests"]).ok();
    assert_eq!((content(&world), world.leaks()), (vec![], NONE));
}

#[test]
fn processes_of_a_state_directory_that_is_gone_are_found_and_ended_by_identity() {
    let world = World::new();
    world.vm(&["create", "one"]).ok();
    world.vm(&["create", "two"]).ok();
    let pids = |vm: &str| {
        let doc = world.vm(&["show", vm]).json();
        [&doc["vmm"]["shim_pid"], &doc["vmm"]["pid"]].map(|pid| i32::try_from(pid.as_i64().unwrap()).unwrap())
    };
    let processes: Vec<_> = [pids("one"), pids("two")].concat();
    let identities: Vec<_> = processes.iter().map(|pid| ProcessId::of(*pid).unwrap()).collect();
    std::fs::remove_dir_all(world.sandbox.state("")).unwrap();
    std::fs::remove_dir_all(world.sandbox.path("run")).unwrap();
    let found = world.leaks();
    let mut ids: Vec<&str> = found.iter().map(|f| f["id"].as_str().unwrap()).collect();
    let mut expected: Vec<_> = identities.iter().map(|p| format!("{}:{}", p.pid, p.start_time)).collect();
    ids.sort_unstable();
    expected.sort_unstable();
    assert_eq!(ids, expected, "pid and start time: {found:?}");
    // A finding of a process that had one of these pids before: nobody is ended for it.
    let mut stale = found[0].clone();
    stale["id"] = format!("{}9", found[0]["id"].as_str().unwrap()).into();
    assert_eq!(world.run("bg-gc", &["--now"], &stale.to_string()).ok(), "");
    assert!(identities.iter().all(|p| p.is_alive().unwrap()));
    world.collect();
    until("they are gone", || identities.iter().all(|p| !p.is_alive().unwrap()));
}
