//! Repairs of directories: what moves, what stays, and what every interruption leaves. As root they need no disk either;
//! as another user the owner of what is nested is that user.

mod deep;
mod disk;
mod support;

use super::*;
use crate::init::told::Told;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use support::{Entry, Tree, dir, file, link, mend, mend_until, pipe, snapshot};

/// Content with everything that a name can be: nested twice, partly there already, and in each other's way.
fn hostile() -> Vec<Entry> {
    let long = [&[b'L'; 254][..], b"\xff"].concat();
    let at = |prefix: &[u8], name: &[u8]| [prefix, name].concat();
    let mut all = vec![
        file(b"root/.bashrc", b"# rc\n"),
        file(b"root/root/.profile", b"# profile\n"),
        // There already: the same, something else, half of it.
        file(b".bashrc", b"# rc\n"),
        file(b".profile", b"# another\n"),
        file(b"src/a.rs", b"fn main"),
        file(b"root/src/a.rs", b"fn main() {}\n"),
        file(b"root/src/b.rs", b"mod b;\n"),
        file(b"root/root/src/a.rs", b"fn third() {}\n"),
        link(b"root/link", b"/etc"),
        link(b"link", b"/etc"),
        // In each other's way.
        dir(b"way"),
        file(b"root/way", b"a file\n"),
        file(b"root/root/way/below", b"a directory\n"),
        link(b"to", b"/does/not/exist"),
        file(b"root/to/x", b"x"),
        pipe(b"root/pipe"),
        // Reserved names.
        file(b"root/.banger-nested", b"mine\n"),
        file(b"root/.banger-conflicts/a", b"mine too\n"),
        file(b"root/root/.banger-conflicts", b"and this\n"),
    ];
    for (prefix, name) in [
        (&b"root/"[..], &b"-rf"[..]),
        (b"root/root/", b"a\nb"),
        (b"root/", &long),
        (b"root/root/", &long),
        (b"", &long),
        (b"root/root/d\xfe/", b" "),
        (b"root/d\xfe/", b"\x1b[31m"),
    ] {
        all.push(file(&at(prefix, name), &at(prefix, b"content")));
    }
    all
}

#[test]
fn what_is_nested_goes_up_however_deep_and_however_it_is_named() {
    let tree = Tree::new(&hostile());
    let told = mend(tree.home());
    let long = [&[b'L'; 254][..], b"\xff"].concat();
    let cut = |n: &str| [&[b'L'; 253][..], n.as_bytes()].concat();
    let expected = Tree::new(&[
        file(b".bashrc", b"# rc\n"),
        file(b".profile", b"# another\n"),
        file(b"src/a.rs", b"fn main"),
        file(b"src/b.rs", b"mod b;\n"),
        link(b"link", b"/etc"),
        dir(b"way"),
        file(b"way/below", b"a directory\n"),
        link(b"to", b"/does/not/exist"),
        pipe(b"pipe"),
        file(b"-rf", b"root/content"),
        file(b"a\nb", b"root/root/content"),
        file(&long, b"content"),
        file(b"d\xfe/ ", b"root/root/d\xfe/content"),
        file(b"d\xfe/\x1b[31m", b"root/d\xfe/content"),
        file(b".banger-conflicts/.profile", b"# profile\n"),
        file(b".banger-conflicts/src/a.rs", b"fn main() {}\n"),
        file(b".banger-conflicts/src/a.rs.1", b"fn third() {}\n"),
        file(b".banger-conflicts/way", b"a file\n"),
        file(b".banger-conflicts/to/x", b"x"),
        file(&[b".banger-conflicts/", &long[..]].concat(), b"root/content"),
        file(&[b".banger-conflicts/", &cut(".1")[..]].concat(), b"root/root/content"),
        file(b".banger-conflicts/.banger-nested", b"mine\n"),
        file(b".banger-conflicts/.banger-conflicts/a", b"mine too\n"),
        file(b".banger-conflicts/.banger-conflicts.1", b"and this\n"),
    ]);
    assert_eq!(snapshot(tree.home()), snapshot(expected.home()));
    assert_eq!(told.problems, [""; 0]);
    assert!(told.notes.len() == 1 && told.notes[0].contains("2 deep") && told.notes[0].contains("copies removed 2"));
    assert_eq!(told.warnings[0].matches("keeps 10 entries").count(), 1, "{:?}", told.warnings);
    assert!(told.warnings.len() == 9 && told.warnings.iter().all(|l| l.bytes().all(|b| (b' '..0x7f).contains(&b))));
    // The next boot has nothing to do, and tells of the conflicts still; once they are removed, of nothing.
    let (again, changes) = mend_until(tree.home(), usize::MAX);
    assert_eq!((changes, again.unwrap()), (0, Told { notes: vec![], ..told }));
    fs_err::remove_dir_all(tree.home().join(".banger-conflicts")).unwrap();
    assert_eq!(mend(tree.home()), Told::default());
}

#[test]
fn whatever_interrupts_it_the_next_boot_comes_to_the_same_end() {
    let whole = Tree::new(&hostile());
    let (told, changes) = mend_until(whole.home(), usize::MAX);
    let (told, expected) = (told.unwrap(), snapshot(whole.home()));
    assert!(changes > 40, "{changes}");
    for n in 0..changes {
        let tree = Tree::new(&hostile());
        let (interrupted, made) = mend_until(tree.home(), n);
        assert!(interrupted.is_none() && made == n, "{n}");
        // A second interruption, soon after, must not matter either.
        mend_until(tree.home(), 1);
        let end = mend(tree.home());
        assert_eq!(
            (snapshot(tree.home()), &end.warnings[0]),
            (expected.clone(), &told.warnings[0]),
            "after {n} changes"
        );
    }
}

#[test]
fn a_disk_that_is_not_stale_is_left_alone() {
    let cases: &[&[Entry]] = &[
        &[],
        &[file(b".bashrc", b""), dir(b".ssh")],
        &[file(b"root/notes", b"a directory of the user's")],
        &[file(b"root", b"a file")],
        &[dir(b"other/.ssh"), link(b"root", b"other")],
        &[file(b"root/.bashrc", b""), dir(b"etc"), dir(b"usr")],
        &[file(b"root/.banger-nested/.bashrc", b"")],
        &[file(b".banger-nested", b"a file of that name")],
        &[link(b".banger-nested", b"root"), file(b"root/a", b"")],
    ];
    for case in cases {
        let tree = Tree::new(case);
        let before = snapshot(tree.home());
        let (told, changes) = mend_until(tree.home(), usize::MAX);
        assert_eq!((told.unwrap(), changes, snapshot(tree.home())), (Told::default(), 0, before), "{case:?}");
    }
}

#[test]
fn only_roots_own_directory_is_taken_for_a_home() {
    if !geteuid().is_root() {
        not_run("only root can give a directory away");
        return;
    }
    for (uid, gid) in [(1000, 0), (0, 1000)] {
        let tree = Tree::new(&[file(b"root/.bashrc", b"")]);
        std::os::unix::fs::chown(tree.home().join("root"), Some(uid), Some(gid)).unwrap();
        assert_eq!(mend_until(tree.home(), usize::MAX), (Some(Told::default()), 0), "{uid}:{gid}");
    }
}

#[test]
fn a_repair_that_has_begun_is_finished_whatever_lies_there() {
    // Another tool's flattening had copied some, and this one's was interrupted; a boot in between made new files.
    let tree = Tree::new(&[
        file(b".banger-nested/.bashrc", b"# rc\n"),
        file(b".banger-nested/root/mine", b"a directory of the user's"),
        file(b".banger-nested/.ssh/id", b"secret"),
        file(b".ssh/authorized_keys", b"key"),
        dir(b"etc"),
        dir(b"usr"),
    ]);
    let told = mend(tree.home());
    let expected = Tree::new(&[
        file(b".bashrc", b"# rc\n"),
        file(b"root/mine", b"a directory of the user's"),
        file(b".ssh/id", b"secret"),
        file(b".ssh/authorized_keys", b"key"),
        dir(b"etc"),
        dir(b"usr"),
    ]);
    assert_eq!(snapshot(tree.home()), snapshot(expected.home()));
    assert_eq!((told.warnings.len(), told.problems.len(), told.notes.len()), (0, 0, 1));
}

#[test]
fn two_of_different_kinds_are_both_kept_and_no_link_is_followed() {
    let outside = tempfile::tempdir().unwrap();
    let to_outside = outside.path().as_os_str().as_bytes();
    let kinds = |name: &[u8]| -> [Entry; 6] {
        [dir(name), file(name, b"one"), file(name, b"two"), link(name, to_outside), link(name, b"nowhere"), pipe(name)]
    };
    for above in kinds(b"x") {
        for nested in kinds(b"root/x") {
            let same = above.what == nested.what;
            let mut entries = vec![file(b"root/.bashrc", b""), above.clone(), nested.clone()];
            // What a directory above has shows whether the nested one was merged with it.
            if nested.is_dir() {
                entries.push(file(b"root/x/inner", b"inner"));
            }
            let tree = Tree::new(&entries);
            mend(tree.home());
            let mut expected = vec![file(b".bashrc", b""), above.clone()];
            if !same || above == pipe(b"x") {
                expected.push(nested.clone().at(b".banger-conflicts/x"));
            }
            if nested.is_dir() {
                expected.push(file(if same { b"x/inner" } else { b".banger-conflicts/x/inner" }, b"inner"));
            }
            assert_eq!(snapshot(tree.home()), snapshot(Tree::new(&expected).home()), "{above:?} {nested:?}");
            assert_eq!(fs_err::read_dir(outside.path()).unwrap().count(), 0, "{above:?} {nested:?}");
        }
    }
}

#[test]
fn only_a_file_alike_in_all_is_a_copy() {
    let big = vec![b'x'; (1 << 20) + 1];
    // Content and mode above, the same of what is nested, and whether that is a copy.
    type Case<'a> = (&'a [u8], u32, &'a [u8], u32, bool);
    let cases: [Case<'_>; 6] = [
        (b"same", 0o600, b"same", 0o600, true),
        (b"", 0o600, b"", 0o600, true),
        (&big[1..], 0o600, &big[1..], 0o600, true),
        (&big, 0o600, &big, 0o600, false),
        (b"same", 0o600, b"same", 0o644, false),
        (b"some", 0o600, b"same", 0o600, false),
    ];
    for (n, (above, mode, nested, nested_mode, copy)) in cases.into_iter().enumerate() {
        let entries =
            [file(b"f", above).mode(mode), file(b"root/f", nested).mode(nested_mode), file(b"root/.bashrc", b"")];
        let tree = Tree::new(&entries);
        mend(tree.home());
        let kept = tree.home().join(".banger-conflicts/f");
        assert_eq!((kept.exists(), tree.home().join("root").exists()), (!copy, false), "{n}");
    }
    // Two names of one file are one file, of any size and kind.
    let tree = Tree::new(&[file(b"f", &big), dir(b"root/.ssh")]);
    fs_err::hard_link(tree.home().join("f"), tree.home().join("root/f")).unwrap();
    mend(tree.home());
    assert!(!tree.home().join(".banger-conflicts").exists());
}

#[test]
fn what_has_the_reserved_names_above_is_no_obstacle() {
    let outside = tempfile::tempdir().unwrap();
    let tree = Tree::new(&[
        link(b".banger-conflicts", outside.path().as_os_str().as_bytes()),
        file(b".banger-conflicts.1", b"mine"),
        link(b".banger-nested", b"root"),
        file(b"root/.bashrc", b"1"),
        file(b".bashrc", b"2"),
    ]);
    let told = mend(tree.home());
    let kept = |name: &str| tree.home().join(".banger-conflicts.2").join(name);
    assert_eq!(fs_err::read_link(kept(".banger-nested")).unwrap(), Path::new("root"));
    assert_eq!(fs_err::read(kept(".bashrc")).unwrap(), b"1");
    assert_eq!(fs_err::read(tree.home().join(".bashrc")).unwrap(), b"2");
    assert!(told.warnings[0].contains("/root/.banger-conflicts.2 keeps 2 entries"), "{told:?}");
    assert_eq!(fs_err::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_merged_directory_keeps_the_mode_of_the_one_above_and_a_moved_one_its_own() {
    let tree = Tree::new(&[
        dir(b".ssh").mode(0o700),
        dir(b"root/.ssh").mode(0o755),
        file(b"root/.ssh/config", b"").mode(0o640),
        dir(b"root/bin").mode(0o711),
    ]);
    mend(tree.home());
    for (path, mode) in [(".ssh", 0o700), (".ssh/config", 0o640), ("bin", 0o711)] {
        assert_eq!(support::mode(&tree.home().join(path)), mode, "{path}");
    }
}

#[test]
fn conflicts_are_counted_to_a_limit_and_few_are_shown() {
    let many: Vec<Entry> = (0..1200)
        .flat_map(|n: u32| [file(format!("d/{n}").as_bytes(), b"1"), file(format!("root/d/{n}").as_bytes(), b"2")])
        .chain([dir(b"root/.ssh")])
        .collect();
    let told = mend(Tree::new(&many).home());
    assert!(told.warnings[0].contains("1000 entries or more"), "{:?}", told.warnings[0]);
    assert!(told.warnings.len() == 9 && told.warnings[1].starts_with("kept: /root/.banger-conflicts/d/"));
    assert!(told.notes[0].contains("kept apart 1200"), "{:?}", told.notes);
}

#[test]
fn a_disk_that_cannot_be_read_is_an_error_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    assert!(mend_in(&dir.path().join("missing"), &|| ()).is_err());
    assert!(mend_in(&dir.path().join(OsStr::from_bytes(b"\xff")), &|| ()).is_err());
}

/// Straight to the file: of a test that passes, and does not run, the harness shows nothing that was printed.
fn not_run(reason: &str) {
    let line = format!("NOT RUN: {} ({reason})\n", std::thread::current().name().unwrap_or_default());
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
}
