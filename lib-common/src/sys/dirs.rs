//! Directories, listed and walked: whole, and again where a signal has interrupted it.

use crate::error::{Code, Error, Result};
use std::fs::DirEntry;
use std::io::{self, ErrorKind};
use std::path::Path;
use walkdir::WalkDir;

/// What a directory holds, in any order; nothing where it is missing.
///
/// # Errors
/// What keeps it from being listed: then nobody knows.
pub fn list(dir: &Path) -> Result<Vec<DirEntry>> {
    match again(|| std::fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(vec![]),
        other => other.map_err(|e| Error::io("list", dir, &e)),
    }
}

/// All that is at `root` and below it: itself first, the names of each directory in order, and of each directory what is in it
/// before the next name. Links are not followed, but for `root` where `follow_root` says so.
///
/// # Errors
/// What keeps one of the directories from being read: [`Code::MissingFile`] where `root` is not there.
pub fn walk(root: &Path, follow_root: bool) -> Result<Vec<walkdir::DirEntry>> {
    let walked = again(|| {
        let entries = WalkDir::new(root).follow_root_links(follow_root).sort_by_file_name().into_iter();
        // Who wants the end of it has it at the next check, whatever this says.
        let entries = entries.take_while(|_| super::signal::check().is_ok());
        entries.collect::<Result<Vec<_>, _>>().map_err(io::Error::from)
    });
    super::signal::check()?;
    walked.map_err(|e| {
        let error = Error::io("read", root, &e);
        if e.kind() == ErrorKind::NotFound { error.with_code(Code::MissingFile) } else { error }
    })
}

/// Makes a call again that a signal has interrupted.
pub fn again<T>(call: impl Fn() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn all_of_a_tree_is_walked_in_order_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |below: &str| dir.path().join(below);
        std::fs::create_dir_all(at("tree/b/c")).unwrap();
        for file in ["tree/a", "tree/b/z", "tree/b/c/d"] {
            std::fs::write(at(file), "").unwrap();
        }
        std::os::unix::fs::symlink("b", at("tree/link")).unwrap();
        std::os::unix::fs::symlink("tree", at("root")).unwrap();
        let names = |root: &str, follow| {
            let found = walk(&at(root), follow).unwrap();
            let below = |e: &walkdir::DirEntry| e.path().strip_prefix(at(root)).unwrap().display().to_string();
            found.iter().map(below).collect::<Vec<_>>()
        };
        let all = ["", "a", "b", "b/c", "b/c/d", "b/z", "link"];
        assert_eq!(
            (names("tree", false), names("root", true)),
            (all.map(str::to_owned).to_vec(), all.map(str::to_owned).to_vec())
        );
        assert_eq!(names("root", false), [""]);
        assert_eq!(list(&at("tree")).unwrap().len(), 3);
    }

    #[test]
    fn what_is_missing_is_empty_or_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        assert!(list(&gone).unwrap().is_empty());
        let e = walk(&gone, true).unwrap_err();
        assert_eq!((e.code(), e.message().contains(gone.to_str().unwrap())), (Code::MissingFile, true));
        std::fs::write(&gone, "").unwrap();
        assert_eq!(list(&gone).unwrap_err().code(), Code::Io);
    }

    #[test]
    fn what_is_interrupted_is_done_again() {
        let calls = Cell::new(0);
        let done = again(|| {
            calls.set(calls.get() + 1);
            if calls.get() < 3 { Err(ErrorKind::Interrupted.into()) } else { Ok(calls.get()) }
        });
        assert_eq!(done.unwrap(), 3);
    }
}
