use super::*;
use lib_common::doc::{JournalLine, Undo, to_json};
use lib_common::sys::lock::is_held;

fn store(dir: &Path) -> Store {
    let (state, runtime) = (dir.join("state"), dir.join("run"));
    Store {
        state,
        runtime,
        lock_wait: Duration::from_millis(50),
        bundled_key: None,
        way: super::Way::default(),
        give_back_tap: crate::net::give_back_all,
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

#[test]
fn a_name_is_claimed_once_with_journal_and_lock() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let first = store.stage("create").unwrap();
    let second = store.stage("create").unwrap();
    let to = store.machine_dir(&name("dev"));
    let (lock, op) = first.publish(to.path()).unwrap();
    assert!(is_held(&to.file("lock")).unwrap() && lock.path() == to.file("lock"));
    assert_eq!(second.publish(to.path()).unwrap_err().code(), Code::Exists);
    assert!(to.path().is_dir(), "the loser does not remove what the winner has");
    assert_eq!(std::fs::read_dir(store.staging_dir()).unwrap().count(), 0, "the loser's staging is gone");
    op.commit().unwrap();
    assert_eq!(to.journal().open_operation().unwrap(), None);
}

#[test]
fn an_operation_that_is_dropped_removes_what_it_made() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let to = store.machine_dir(&name("dev"));
    let (_lock, mut op) = store.stage("create").unwrap().publish(to.path()).unwrap();
    let beside = dir.path().join("beside");
    std::fs::write(&beside, "").unwrap();
    op.intend(Undo::RemoveFile { path: lib_common::doc::AbsPath::new(&beside).unwrap() }).unwrap();
    std::fs::write(to.record_file(), "{}").unwrap();
    drop(op);
    assert!(!to.path().exists() && !beside.exists());
}

#[test]
fn what_a_killed_process_left_open_is_undone_and_a_torn_line_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let begin = JournalLine::Begin { operation: "start".into(), pid: 1, start_time: 1, boot_id: "x".into() };
    let made = dir.path().join("made");
    std::fs::write(&made, "").unwrap();
    let undo = Undo::RemoveFile { path: lib_common::doc::AbsPath::new(&made).unwrap() };
    let text =
        format!("{}\n{}\n{{\"record\":\"do", to_json(&begin), to_json(&JournalLine::Intent { undo: undo.clone() }));
    std::fs::write(dir.path().join("journal"), text).unwrap();
    let journal = Journal::in_dir(dir.path(), crate::net::give_back_all);
    let open = journal.open_operation().unwrap().unwrap();
    assert_eq!((open.operation.as_str(), open.undo), ("start", vec![undo]));
    journal.undo_open().unwrap();
    assert!(!made.exists());
    assert_eq!(journal.open_operation().unwrap(), None, "the torn line is no part of the one that came after it");
    journal.begin("stop").unwrap().commit().unwrap();
}

#[test]
fn an_object_that_was_never_finished_is_gone_when_the_next_operation_begins() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let to = store.machine_dir(&name("dev"));
    let (lock, op) = store.stage("create").unwrap().publish(to.path()).unwrap();
    op.hand_on();
    drop(lock);
    std::fs::write(to.record_file(), "{}").unwrap();
    let _lock = to.lock().unwrap();
    let e = to.journal().begin("start").unwrap_err();
    assert_eq!((e.code(), to.path().exists()), (Code::NotFound, false), "{e:?}");
    assert!(e.message().contains("`create`"), "{e}");
}

#[test]
fn a_damaged_journal_is_an_error_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("journal"), "junk\n").unwrap();
    let e = Journal::in_dir(dir.path(), crate::net::give_back_all).begin("start").unwrap_err();
    assert!(e.code() == Code::BadDocument && e.get_hint().is_some(), "{e:?}");
}

#[test]
fn a_missing_name_says_which_is_near() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    store.prepare().unwrap();
    std::fs::create_dir(store.machines_dir().join("develop")).unwrap();
    let e = store.machine(&name("develp")).unwrap_err();
    assert!(e.get_hint().unwrap().contains("`develop`"), "{e:?}");
    assert_eq!(e.code(), Code::NotFound);
}

#[test]
fn directories_are_private_and_those_of_others_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    store.prepare().unwrap();
    assert_eq!(store.machines_dir().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    std::fs::remove_dir(store.staging_dir()).unwrap();
    std::os::unix::fs::symlink(dir.path(), store.staging_dir()).unwrap();
    assert_eq!(store.prepare().unwrap_err().code(), Code::Permission);
}

#[test]
fn a_runtime_directory_is_short_whatever_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path());
    store.runtime = "/run/user/1000/banger".into();
    let long = store.machine_dir(&name(&"x".repeat(63)));
    let id = lib_common::sys::random::random_id().unwrap();
    assert_eq!(long.runtime_dir(&id).unwrap().as_str(), format!("/run/user/1000/banger/{}", &id[..12]));
    store.runtime = Path::new("/").join("y".repeat(80));
    assert_eq!(store.machine_dir(&name("a")).runtime_dir(&id).unwrap_err().code(), Code::BadConfig);
}

#[test]
fn a_directory_is_removed_where_staging_is_missing_and_one_that_is_gone_is_fine() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let machine = store.machine_dir(&name("dev"));
    std::fs::create_dir_all(machine.path()).unwrap();
    assert!(!store.staging_dir().exists());
    remove_by_rename(&store, machine.path()).unwrap();
    assert!(!machine.path().exists());
    assert_eq!(std::fs::read_dir(store.staging_dir()).unwrap().count(), 0);
    remove_by_rename(&store, machine.path()).unwrap();
}

#[test]
fn intents_that_are_announced_are_on_disk_before_the_name_is_seen_and_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let beside = |name: &str| Undo::RemoveFile { path: lib_common::doc::AbsPath::new(dir.path().join(name)).unwrap() };
    let (announced, later) = ([beside("one"), beside("two")], beside("three"));
    let staged = store.stage_with("create", &announced).unwrap();
    let expected = [&[Undo::RemoveObject], &announced[..]].concat();
    let open = Journal::in_dir(staged.path(), crate::net::give_back_all).open_operation().unwrap().unwrap();
    assert_eq!((open.operation.as_str(), &open.undo), ("create", &expected));

    let to = store.machine_dir(&name("dev"));
    let (_lock, mut op) = staged.publish(to.path()).unwrap();
    let journal = || std::fs::read(to.file("journal")).unwrap();
    let before = journal();
    announced.iter().for_each(|undo| op.intend(undo.clone()).unwrap());
    assert_eq!(journal(), before, "what was said already is not said again");
    op.intend(later.clone()).unwrap();
    assert_ne!(journal(), before);
    assert_eq!(to.journal().open_operation().unwrap().unwrap().undo, [&expected[..], &[later]].concat());
}
