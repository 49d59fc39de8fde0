//! A package: a compressed tar with its scripts, `props.plist`, `files.plist`, and what it installs.

use super::pkgver::PkgVer;
use super::props::Props;
use super::{bad, shown};
use lib_common::error::Result;
use plist::Dictionary;
use std::fs::File;
use std::io::Read;
use std::path::Path;

mod layout;
mod listed;
mod metadata;
mod payload;
pub mod tarball;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

/// A package whose metadata was read and found to be that of the one that was expected.
#[derive(Debug)]
pub struct Package {
    /// What it says of itself.
    pub props: Props,
    /// All of `props.plist`.
    pub dictionary: Dictionary,
    /// The script `INSTALL`.
    pub install: Option<Vec<u8>>,
    /// The script `REMOVE`.
    pub remove: Option<Vec<u8>>,
    /// All of `files.plist`.
    pub files: Dictionary,
    file: File,
}

/// One thing that a package installs.
pub struct Entry<'a> {
    /// Relative to the root: `usr/bin/x`. No component is empty, `.` or `..`, and none is a link of this package.
    pub path: &'a str,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with set-uid, set-gid and sticky: at most 0o7777.
    pub mode: u32,
    /// The owner.
    pub uid: u64,
    /// The group.
    pub gid: u64,
    /// Of a file's content, in bytes; else 0.
    pub size: u64,
    /// Its extended attribute `security.capability`.
    pub capability: Option<Vec<u8>>,
    /// A file's content. That it is what `files.plist` says shows at its end, after `each` has returned.
    pub content: &'a mut dyn Read,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A symbolic link, and its target as the package has it: it means something in the guest only.
    Symlink(String),
    /// One more name of this path of the same package, which was seen before.
    Hardlink(String),
}

impl Package {
    /// Reads a package up to what it installs, and checks that it is `expected`, for `arch` or for all.
    ///
    /// Errors: `missing_file`; `bad_input` that names the package.
    pub fn open(file: &Path, expected: &PkgVer, arch: &str) -> Result<Self> {
        metadata::open(file, expected, arch).map_err(|e| e.within(format!("cannot read the package {expected}")))
    }

    /// Calls `each` for all that it installs, in the archive's order. Directories are not among it.
    ///
    /// Errors: `bad_input` that names package and entry for what is hostile, damaged, or not as `files.plist` says it;
    /// `digest_mismatch` for a file with other content; what `each` says.
    pub fn entries(self, each: &mut dyn FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
        let name = self.props.pkgver.to_string();
        payload::walk(self, each).map_err(|e| e.within(format!("cannot unpack the package {name}")))
    }
}

/// An error that names an entry.
fn bad_entry(path: &str, what: &str) -> lib_common::error::Error {
    bad(format!("its entry `{}` {what}", shown(path)))
}
