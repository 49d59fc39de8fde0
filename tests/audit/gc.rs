//! What `bg-gc` will not touch, whatever the list on its standard input says.

#![allow(clippy::disallowed_types)]

use super::{by_hand, collect, make_old, store};
use crate::support::Sandbox;
use lib_common::sys::process::ProcessId;
use serde_json::{Value, json};
use std::fs::{create_dir, create_dir_all, remove_dir_all, rename, write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

const NONE: Vec<Value> = vec![];

/// A process that has nothing to do with banger.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        Stranger(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    fn id(&self) -> ProcessId {
        let pid = self.0.id().try_into().unwrap();
        // Before its exec it is what started it.
        crate::support::launched::until("it sleeps", || {
            lib_common::sys::process::executable(pid).is_some_and(|exe| exe.ends_with("sleep"))
        });
        ProcessId::of(pid).unwrap()
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A runtime directory whose shim has that identity, which no VM has.
fn runtime_dir_of(sandbox: &Sandbox, shim: &ProcessId) -> PathBuf {
    let dir = sandbox.path("run/0123456789ab");
    create_dir_all(&dir).unwrap();
    let shim = json!({"pid": shim.pid, "start_time": shim.start_time, "boot_id": shim.boot_id, "exe": shim.exe});
    let state = json!({"machine_id": "0123456789abcdef0123456789abcdef", "shim": shim, "reboots": 0});
    write(dir.join("shim.json"), state.to_string()).unwrap();
    dir
}

#[test]
fn a_pid_that_was_reused_is_not_signalled() {
    let sandbox = store();
    let mut stranger = Stranger::new();
    let it = stranger.id();
    for reused in [
        ProcessId { start_time: it.start_time - 1, ..it.clone() },
        ProcessId { exe: "/usr/bin/bg-shim".into(), ..it.clone() },
        ProcessId { boot_id: "another".into(), ..it.clone() },
    ] {
        let dir = runtime_dir_of(&sandbox, &reused);
        let found = sandbox.findings(&["--now"]);
        assert_eq!((found.len(), &found[0]["kind"]), (1, &"runtime_dir".into()), "{found:?}");
        assert_eq!((collect(&sandbox, &found).len(), dir.exists(), stranger.lives()), (1, false, true), "{reused:?}");
    }
    // Nor is one whose number and start time somebody has written into the list.
    let asked = by_hand("process", &format!("{}:{}", it.pid, it.start_time));
    assert_eq!((collect(&sandbox, &[asked]), stranger.lives()), (NONE, true));
    // The very process that the directory names is: else nothing above says anything.
    runtime_dir_of(&sandbox, &it);
    collect(&sandbox, &sandbox.findings(&["--now"]));
    assert!(!stranger.lives());
}

#[test]
fn what_is_no_leak_any_more_stays_and_so_does_what_is_young() {
    let sandbox = store();
    let dir = sandbox.state("staging/0123");
    create_dir(&dir).unwrap();
    write(dir.join("lock"), "").unwrap();
    let found = sandbox.findings(&["--now"]);
    assert_eq!((found.len(), &found[0]["is_leak"]), (1, &true.into()));
    let lock = lib_common::sys::lock::Lock::try_take(&dir.join("lock")).unwrap().unwrap();
    assert_eq!((collect(&sandbox, &found), dir.exists()), (NONE, true), "somebody works on it");
    drop(lock);
    let list = format!("{}\n", found[0]);
    assert_eq!((sandbox.run("bg-gc", &[], &list).ok().as_str(), dir.exists()), ("", true), "it is young");
    assert_eq!((sandbox.run("bg-gc", &["--now", "--dry-run"], &list).documents().len(), dir.exists()), (1, true));
    make_old(&dir);
    assert_eq!((sandbox.run("bg-gc", &[], &list).documents().len(), dir.exists()), (1, false));
    assert_eq!(collect(&sandbox, &found), NONE, "it is gone");
}

#[test]
fn a_path_that_somebody_wrote_into_the_list_is_not_removed() {
    let sandbox = store();
    let outside = sandbox.path("home/precious");
    create_dir(&outside).unwrap();
    write(outside.join("file"), "").unwrap();
    let inside = sandbox.state("machines/dev");
    for kind in ["staging", "machine", "image", "runtime_dir", "file", "net_dir", "loop", "mount", "socket", "lock"] {
        for path in [&outside, &inside, &sandbox.state("staging/../machines/dev"), &outside.join("file")] {
            assert_eq!(collect(&sandbox, &[by_hand(kind, path.to_str().unwrap())]), NONE, "{kind} {}", path.display());
        }
    }
    assert!(outside.join("file").exists() && inside.join("machine.json").exists());
}

#[test]
fn what_a_journal_names_outside_of_our_directories_stays() {
    let sandbox = store();
    let precious = sandbox.path("home/precious");
    write(&precious, "").unwrap();
    create_dir_all(sandbox.path("home/0123456789ab")).unwrap();
    for undo in [
        json!({"do": "remove_file", "path": precious}),
        json!({"do": "stop_vm", "runtime_dir": sandbox.path("home/0123456789ab")}),
        json!({"do": "give_back_tap", "network_dir": sandbox.path("home"), "machine_id": "0", "with_address": true}),
    ] {
        let begin = json!({"record": "begin", "operation": "start", "pid": 1, "start_time": 1, "boot_id": "b"});
        let intent = json!({"record": "intent", "undo": undo});
        write(sandbox.state("machines/dev/journal"), format!("{begin}\n{intent}\n")).unwrap();
        let found = sandbox.findings(&["--now"]);
        assert_eq!((found.len(), &found[0]["is_leak"]), (1, &false.into()), "{found:?}");
        assert_eq!(collect(&sandbox, &found), NONE);
        assert_eq!(collect(&sandbox, &[by_hand("machine", sandbox.state("machines/dev").to_str().unwrap())]), NONE);
        assert!(precious.exists() && sandbox.path("home/0123456789ab").exists(), "{undo}");
    }
    // What it names within them goes.
    let ours = sandbox.state("machines/dev/.tmp-x");
    write(&ours, "").unwrap();
    let begin = json!({"record": "begin", "operation": "start", "pid": 1, "start_time": 1, "boot_id": "b"});
    let intent = json!({"record": "intent", "undo": {"do": "remove_file", "path": ours}});
    write(sandbox.state("machines/dev/journal"), format!("{begin}\n{intent}\n")).unwrap();
    collect(&sandbox, &sandbox.findings(&["--now"]));
    assert!(!ours.exists());
}

/// A directory with a file, and a lock that somebody has signed.
fn fill(dir: &Path) {
    create_dir_all(dir).unwrap();
    for file in ["lock", "file"] {
        write(dir.join(file), "1 somebody\n").unwrap();
    }
}

/// Writes what the journal of a thing has while that is being made: a killed creation leaves it.
fn begin_making(dir: &Path) {
    let begin = json!({"record": "begin", "operation": "create", "pid": 1, "start_time": 1, "boot_id": "b"});
    let intent = json!({"record": "intent", "undo": {"do": "remove_object"}});
    write(dir.join("journal"), format!("{begin}\n{intent}\n")).unwrap();
}

#[test]
fn a_link_that_was_put_in_the_place_of_a_leak_is_not_followed() {
    for place in
        ["state/staging/0123", "state/machines/half", "state/images/half", "run/0123456789ab", "cache/seed/.tmp-x"]
    {
        let sandbox = store();
        let (leak, precious) = (sandbox.path(place), sandbox.path("home/precious"));
        fill(&leak);
        fill(&precious);
        if place.ends_with("half") {
            begin_making(&leak);
        }
        let found = sandbox.findings(&["--now"]);
        assert_eq!((found.len(), &found[0]["is_leak"]), (1, &true.into()), "{place}: {found:?}");
        rename(&leak, sandbox.path("home/away")).unwrap();
        symlink(&precious, &leak).unwrap();
        collect(&sandbox, &found);
        for file in ["lock", "file"] {
            let text = std::fs::read_to_string(precious.join(file)).unwrap();
            assert_eq!(text, "1 somebody\n", "{place}/{file}");
        }
        // The directory itself goes, so the link alone is what kept it.
        let _ = std::fs::remove_file(&leak);
        rename(sandbox.path("home/away"), &leak).unwrap();
        assert_eq!((collect(&sandbox, &found).len(), leak.exists()), (1, false), "{place}");
    }
}

#[test]
fn a_link_above_a_leak_is_not_followed() {
    let sandbox = store();
    let leak = sandbox.state("staging/0123");
    fill(&leak);
    let found = sandbox.findings(&["--now"]);
    let list = format!("{}\n", found[0]);
    let precious = sandbox.path("home/precious");
    fill(&precious.join("0123"));
    remove_dir_all(sandbox.state("staging")).unwrap();
    symlink(&precious, sandbox.state("staging")).unwrap();
    sandbox.run("bg-gc", &["--now"], list).failed_with(lib_common::Code::Permission);
    assert!(precious.join("0123/file").exists());
}

#[test]
fn a_leak_that_is_not_in_the_list_stays() {
    let sandbox = store();
    let dirs = ["staging/0123", "staging/4567"].map(|dir| sandbox.state(dir));
    dirs.iter().for_each(|dir| fill(dir));
    let found = sandbox.findings(&["--now"]);
    assert_eq!(found.iter().filter(|f| f["is_leak"] == true).count(), 2, "{found:?}");
    assert_eq!(collect(&sandbox, &found[..1]).len(), 1);
    assert_eq!(dirs.map(|dir| dir.exists()), [false, true]);
}
