//! Trees of files for the tests, and repairs that end after so many changes.

use super::super::mend_in;
use crate::init::told::Told;
use nix::sys::stat::{Mode, SFlag, mknod};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Dir,
    File(Vec<u8>),
    Link(Vec<u8>),
    Pipe,
}

/// One of a tree; directories on its way are made with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    path: Vec<u8>,
    pub what: What,
    mode: u32,
}

fn entry(path: &[u8], what: What, mode: u32) -> Entry {
    Entry { path: path.to_owned(), what, mode }
}

pub fn dir(path: &[u8]) -> Entry {
    entry(path, What::Dir, 0o755)
}

pub fn file(path: &[u8], content: &[u8]) -> Entry {
    entry(path, What::File(content.to_owned()), 0o644)
}

pub fn link(path: &[u8], target: &[u8]) -> Entry {
    entry(path, What::Link(target.to_owned()), 0o777)
}

pub fn pipe(path: &[u8]) -> Entry {
    entry(path, What::Pipe, 0o600)
}

impl Entry {
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub fn at(mut self, path: &[u8]) -> Self {
        self.path = path.to_owned();
        self
    }

    pub fn is_dir(&self) -> bool {
        self.what == What::Dir
    }

    /// Makes it below `home`.
    pub fn make(&self, home: &Path) {
        let path = home.join(OsStr::from_bytes(&self.path));
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        match &self.what {
            What::Dir => fs_err::create_dir_all(&path).unwrap(),
            What::File(content) => fs_err::write(&path, content).unwrap(),
            What::Link(target) => return symlink(OsStr::from_bytes(target), &path).unwrap(),
            What::Pipe => mknod(&path, SFlag::S_IFIFO, Mode::S_IRUSR, 0).unwrap(),
        }
        fs_err::set_permissions(&path, Permissions::from_mode(self.mode)).unwrap();
    }
}

/// The top of a disk, in a directory of its own.
pub struct Tree(tempfile::TempDir);

impl Tree {
    pub fn new(entries: &[Entry]) -> Self {
        let tree = Tree(tempfile::tempdir().unwrap());
        entries.iter().for_each(|entry| entry.make(tree.home()));
        tree
    }

    pub fn home(&self) -> &Path {
        self.0.path()
    }
}

pub fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

/// Path, mode and content of all that is there, but for the file system's own directory and the conflicts' modes.
pub fn snapshot(home: &Path) -> BTreeMap<PathBuf, (u32, What)> {
    let mut all = BTreeMap::new();
    let mut left = vec![home.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs_err::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let below = path.strip_prefix(home).unwrap().to_owned();
            let kind = path.symlink_metadata().unwrap().file_type();
            let what = match kind {
                kind if kind.is_dir() => What::Dir,
                kind if kind.is_file() => What::File(fs_err::read(&path).unwrap()),
                kind if kind.is_symlink() => {
                    What::Link(fs_err::read_link(&path).unwrap().as_os_str().as_bytes().into())
                }
                kind => {
                    assert!(kind.is_fifo(), "{}", path.display());
                    What::Pipe
                }
            };
            if below == Path::new("lost+found") {
                continue;
            }
            let made_by_repair = below.starts_with(".banger-conflicts") && what == What::Dir;
            all.insert(below, (if made_by_repair { 0 } else { mode(&path) }, what.clone()));
            if what == What::Dir {
                left.push(path);
            }
        }
    }
    all
}

/// A whole repair.
pub fn mend(home: &Path) -> Told {
    mend_in(home, &|| ()).unwrap()
}

/// A repair that ends before its change number `most`, counted from 0, as a crash would end it; and how many it made.
pub fn mend_until(home: &Path, most: usize) -> (Option<Told>, usize) {
    let made = Cell::new(0);
    let before = || {
        if made.get() == most {
            // Unlike a panic, it prints nothing.
            resume_unwind(Box::new("interrupted"));
        }
        made.set(made.get() + 1);
    };
    let told = catch_unwind(AssertUnwindSafe(|| mend_in(home, &before)));
    (told.ok().map(Result::unwrap), made.get())
}
