//! Creations that fail beside others who want the same name, and what an audit does beside whoever writes.

use super::World;
use crate::faults::trace;
use crate::support::has_strace;
use crate::support::{children, finish, through};
use lib_common::error::Code;
use std::fs::{File, write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

#[test]
fn a_creation_is_undone_before_its_lock_is_free() {
    let test = "a_creation_is_undone_before_its_lock_is_free";
    if !has_strace(test) {
        return;
    }
    let world = World::new(&[]);
    world.set_mode("refuses");
    let (command, log) = (world.command("bg-vm", &["create", "dev"]), world.sandbox.path("undone"));
    let options = ["-y", "-s", "0", "-e", "trace=flock,?rename,?renameat,renameat2,?unlink,unlinkat"];
    finish(trace::under_strace(&command, &log, &options).spawn().unwrap(), b"").failed();
    let log = std::fs::read_to_string(log).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let last = |what: &dyn Fn(&str) -> bool| lines.iter().rposition(|line| what(line));
    let freed = last(&|line| line.starts_with("flock") && line.contains("/dev/lock") && line.contains("LOCK_UN"));
    let freed = freed.or_else(|| last(&|line| line.starts_with("flock") && line.contains("LOCK_UN"))).unwrap();
    let removed = last(&|line| line.starts_with("rename") && line.contains("/machines/dev\"")).unwrap();
    assert!(removed < freed, "the name went at {removed}, the lock at {freed}:\n{log}");
}

#[test]
fn a_creation_that_fails_beside_those_who_wait_for_it_leaves_nothing() {
    let world = World::new(&[]);
    world.set_mode("refuses");
    for round in 0..if std::env::var_os("BG_TEST_FULL").is_some() { 200 } else { 30 } {
        let creating = world.command("bg-vm", &["create", "dev"]).spawn().unwrap();
        let waiting = [world.command("bg-vm", &["start", "dev"]), world.command("bg-vm", &["stop", "dev"])];
        let waiting: Vec<_> = waiting.into_iter().map(|mut command| command.spawn().unwrap()).collect();
        finish(creating, b"").failed_with(Code::VmmFailed);
        waiting.into_iter().for_each(|child| drop(finish(child, b"")));
        assert_eq!(children(&world.sandbox.state("machines")), Vec::<PathBuf>::new(), "round {round}");
    }
    world.assert_nothing_is_left();
}

#[test]
fn a_new_vm_that_ends_before_it_is_kept_leaves_nothing() {
    let world = World::new(&[]);
    world.set_mode("crashes");
    write(world.sandbox.path("fake/go"), "").unwrap();
    let created = world.vm(&["create", "dev"], "");
    // Whichever came first: it ended as it was being started, or was kept just in time.
    if created.exit == 0 {
        world.vm(&["rm", "--force", "dev"], "").ok();
    } else {
        created.failed_with(Code::VmmFailed);
    }
    world.assert_nothing_is_left();
}

#[test]
fn what_somebody_writes_is_no_leak() {
    let world = World::new(&["dev"]);
    let places =
        [world.sandbox.state("machines/dev"), world.sandbox.state("images/debian"), world.sandbox.path("state")];
    for place in places {
        let path = place.join(".tmp-written");
        let file = File::create(&path).unwrap();
        lib_common::sys::lock::hold(&file);
        assert!(file.as_raw_fd() > 0 && world.sandbox.findings(&["--now"]).is_empty(), "{}", path.display());
        drop(file);
        let found = world.sandbox.findings(&["--now"]);
        assert_eq!((found.len(), found[0]["id"].as_str()), (1, path.to_str()), "{found:?}");
        world.sandbox.collect();
        assert!(!path.exists());
    }
}

#[test]
fn files_from_the_future_are_not_waited_for() {
    let world = World::new(&["dev"]);
    let (file, dir) = (world.sandbox.state(".tmp-future"), world.sandbox.state("staging/future"));
    write(&file, "").unwrap();
    std::fs::create_dir(&dir).unwrap();
    let future = std::time::SystemTime::now() + std::time::Duration::from_secs(86_400);
    for path in [&file, &dir] {
        File::open(path).unwrap().set_modified(future).unwrap();
    }
    // Without a bound it would wait for a day.
    let verify = through(&world.command("bg-verify", &["--now"]), "timeout", &["60"]).spawn().unwrap();
    assert_eq!(finish(verify, b"").exit, 1);
    world.sandbox.collect();
    assert!(!file.exists() && !dir.exists());
}

#[test]
fn leftovers_of_downloads_are_found() {
    let world = World::new(&[]);
    for place in ["downloads", "xbps"] {
        let dir = world.sandbox.path("cache").join(place);
        std::fs::create_dir_all(&dir).unwrap();
        write(dir.join(".tmp-left"), "").unwrap();
        let found = world.sandbox.findings(&["--now"]);
        assert_eq!((found.len(), &found[0]["is_leak"]), (1, &true.into()), "{place}: {found:?}");
        world.sandbox.collect();
    }
}

#[test]
fn a_vm_is_removed_by_a_user_who_is_over_quota() {
    let test = "a_vm_is_removed_by_a_user_who_is_over_quota";
    if !has_strace(test) {
        return;
    }
    let world = World::new(&["dev"]);
    let (command, log) = (world.command("bg-vm", &["rm", "dev"]), world.sandbox.path("quota"));
    // Whatever is written to its lock.
    let lock = world.sandbox.state("machines/dev/lock").display().to_string();
    let options = ["-P", &lock, "-e", "trace=write", "-e", "inject=write:error=EDQUOT"];
    finish(trace::under_strace(&command, &log, &options).spawn().unwrap(), b"").ok();
    assert!(std::fs::read_to_string(log).unwrap().contains("INJECTED"));
    world.assert_nothing_is_left();
}
