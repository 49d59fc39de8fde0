//! One level: what is in the nested directory goes up by renames, one system call at a time, so that whatever interrupts
//! it leaves a state from which the same call goes on to the same end.

use super::changes::{Changes, Place};
use super::conflicts::{self, CONFLICTS};
use super::copies::is_copy;
use super::dirs::{each_name, is, open_dir, shown, status};
use lib_common::nested::IN_PROGRESS;
use nix::Result;
use nix::errno::Errno;
use nix::sys::stat::SFlag;
use std::ffi::{CStr, CString};
use std::fs::File;

/// How deep two directories are merged, which costs three descriptors and some stack a level. What is deeper is kept apart.
pub const MAX_DEPTH: usize = 128;

/// How many failures are told.
const MAX_FAILURES: usize = 4;

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Levels that are gone.
    pub levels: usize,
    /// Entries that went up, each with all that is below it.
    pub moved: usize,
    /// Copies that were removed, since the same is above.
    pub copies: usize,
    /// Entries that went to the conflicts.
    pub kept: usize,
    /// Entries that could not be moved at all, and stay where they are.
    pub failed: usize,
    /// The first of those, with the reason.
    pub failures: Vec<String>,
}

/// A level in the making.
pub struct Merge<'a> {
    changes: Changes<'a>,
    top: &'a File,
    /// From the top to the directory that is merged.
    path: Vec<CString>,
    outcome: &'a mut Outcome,
}

impl<'a> Merge<'a> {
    /// Into the directory `top`.
    pub fn new(changes: Changes<'a>, top: &'a File, outcome: &'a mut Outcome) -> Self {
        Merge { changes, top, path: vec![], outcome }
    }

    /// Empties the directory `nested` of the top and removes it. Whatever fails is in the outcome, and stays.
    pub fn level(mut self, nested: &CStr) {
        let top = self.top;
        let failed = self.outcome.failed;
        if let Err(errno) = self.directory((top, nested), top) {
            self.fail(nested, errno);
        }
        self.outcome.levels += usize::from(self.outcome.failed == failed);
    }

    /// Empties the directory `from` into `to` and removes it. Names are not held: the directory is read again until there
    /// is no progress, since entries were taken out of it while it was read.
    fn directory(&mut self, from: Place<'_>, to: &File) -> Result<()> {
        let dir = open_dir(from.0, from.1)?;
        let failed = self.outcome.failed;
        loop {
            let mut found = false;
            each_name(&dir, |name| {
                found = true;
                if let Err(errno) = self.entry((&dir, name), to) {
                    self.fail(name, errno);
                }
            })?;
            if self.outcome.failed > failed {
                // It is not empty, which was told.
                return Ok(());
            }
            if !found {
                return self.changes.remove_dir(from);
            }
        }
    }

    fn entry(&mut self, from: Place<'_>, to: &File) -> Result<()> {
        let name = from.1;
        let reserved = name == CONFLICTS || name.to_bytes() == IN_PROGRESS.as_bytes();
        if self.path.is_empty() && reserved {
            return self.keep(from);
        }
        match self.changes.rename(from, (to, name)) {
            Ok(()) => {
                self.outcome.moved += 1;
                return Ok(());
            }
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        let (Some(mine), Some(theirs)) = (status(from.0, name)?, status(to, name)?) else { return Err(Errno::ENOENT) };
        if is(&mine, SFlag::S_IFDIR) && is(&theirs, SFlag::S_IFDIR) && self.path.len() < MAX_DEPTH {
            let to = open_dir(to, name)?;
            self.path.push(name.to_owned());
            let merged = self.directory(from, &to);
            self.path.pop();
            return merged;
        }
        if is_copy((from, &mine), ((to, name), &theirs)) {
            self.changes.remove_file(from)?;
            self.outcome.copies += 1;
            return Ok(());
        }
        self.keep(from)
    }

    fn keep(&mut self, from: Place<'_>) -> Result<()> {
        conflicts::keep(self.changes, self.top, &self.path, from)?;
        self.outcome.kept += 1;
        Ok(())
    }

    fn fail(&mut self, name: &CStr, errno: Errno) {
        self.outcome.failed += 1;
        if self.outcome.failures.len() < MAX_FAILURES {
            let path = shown(self.path.iter().map(CString::as_c_str).chain([name]));
            self.outcome.failures.push(format!("{path}: {}", errno.desc()));
        }
    }
}
