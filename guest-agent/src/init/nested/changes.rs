//! Every change that a repair makes: one method a system call, and none of them overwrites anything.

use nix::fcntl::{RenameFlags, renameat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use nix::{NixPath, Result};
use std::ffi::CStr;
use std::fs::File;

/// A name in a directory.
pub type Place<'a> = (&'a File, &'a CStr);

/// What makes the changes.
#[derive(Clone, Copy)]
pub struct Changes<'a> {
    /// Called before each: there a test ends a repair.
    before: &'a dyn Fn(),
}

impl<'a> Changes<'a> {
    /// With what is called before each change.
    pub fn new(before: &'a dyn Fn()) -> Self {
        Changes { before }
    }

    /// Moves an entry; EEXIST where something is at `to`.
    pub fn rename(&self, from: Place<'_>, to: Place<'_>) -> Result<()> {
        (self.before)();
        renameat2(from.0, from.1, to.0, to.1, RenameFlags::RENAME_NOREPLACE)
    }

    /// Makes a directory that is its owner's alone.
    pub fn make_dir<P: ?Sized + NixPath>(&self, dir: &File, name: &P) -> Result<()> {
        (self.before)();
        mkdirat(dir, name, Mode::S_IRWXU)
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, (dir, name): Place<'_>) -> Result<()> {
        (self.before)();
        unlinkat(dir, name, UnlinkatFlags::RemoveDir)
    }

    /// Removes anything else.
    pub fn remove_file(&self, (dir, name): Place<'_>) -> Result<()> {
        (self.before)();
        unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)
    }
}
