//! Trees that are deeper than what is merged, made and read by descriptors.

use super::support::{Tree, dir, mend};
use crate::init::nested::dirs::{open_dir, open_top, status};
use nix::sys::stat::{Mode, mkdirat};
use std::fs::File;
use std::path::Path;

/// As deep as can be removed again with 1024 descriptors.
const DEPTH: usize = 600;

/// A chain of directories `d` below `start`, with a directory of that name at its end.
fn chain(start: &Path, depth: usize, last: &str) {
    let mut at = open_top(start).unwrap();
    for _ in 0..depth {
        mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
        at = open_dir(&at, "d").unwrap();
    }
    mkdirat(&at, last, Mode::S_IRWXU).unwrap();
}

/// How many directories `d` there are below one another, and the last of them.
fn follow(mut at: File) -> (usize, File) {
    let mut depth = 0;
    while let Ok(next) = open_dir(&at, "d") {
        depth += 1;
        at = next;
    }
    (depth, at)
}

fn has(at: &File, name: &str) -> bool {
    status(at, name).unwrap().is_some()
}

#[test]
fn a_deep_directory_goes_up_at_once() {
    let tree = Tree::new(&[dir(b"root/.ssh")]);
    chain(&tree.home().join("root"), DEPTH, "end");
    assert_eq!(mend(tree.home()).problems, [""; 0]);
    let (depth, last) = follow(open_top(tree.home()).unwrap());
    assert_eq!((depth, has(&last, "end")), (DEPTH, true));
}

#[test]
fn two_deep_directories_are_merged_so_far_and_what_is_deeper_is_kept() {
    let tree = Tree::new(&[dir(b"root/.ssh")]);
    chain(&tree.home().join("root"), DEPTH, "nested");
    chain(tree.home(), DEPTH, "above");
    let told = mend(tree.home());
    assert_eq!(told.problems, [""; 0]);
    assert!(told.warnings[0].contains("keeps 1 entry"), "{told:?}");
    let top = open_top(tree.home()).unwrap();
    let (depth, last) = follow(open_top(tree.home()).unwrap());
    assert_eq!((depth, has(&last, "above"), has(&last, "nested")), (DEPTH, true, false));
    let (depth, last) = follow(open_dir(&top, ".banger-conflicts").unwrap());
    assert_eq!((depth, has(&last, "nested")), (DEPTH, true));
}

#[test]
fn hundreds_of_levels_come_to_an_end() {
    let tree = Tree::new(&[]);
    let mut at = tree.home().to_owned();
    for _ in 0..300 {
        at.push("root");
        fs_err::create_dir(&at).unwrap();
        fs_err::write(at.join(".profile"), "").unwrap();
    }
    let told = mend(tree.home());
    assert!(told.notes[0].contains("(300 deep)") && told.notes[0].contains("copies removed 299"), "{told:?}");
    assert_eq!(fs_err::read_dir(tree.home()).unwrap().count(), 1);
}
