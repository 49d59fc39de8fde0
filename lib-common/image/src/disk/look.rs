//! Looks into a work disk without mounting or changing it: is its content nested?

use super::untrusted::{Patience, Unread, apart, open};
use ext4_view::{Ext4, Ext4Error};
use lib_common::error::Result;
use lib_common::nested::{self, Found};
use std::path::Path;
use std::time::Duration;

/// How long a look may take for which somebody waits.
const WITHIN: Duration = Duration::from_secs(10);

/// The most that is read of a disk, in bytes: the largest journal, and as much again.
const MAX_READ: u64 = 2 << 30;

/// Whether the content of the file system in the file `path`, which nobody may have mounted, is nested; by the rule of
/// [`nested::is_nested`]. A journal that was not replayed yet is taken into account.
///
/// Errors: [`lib_common::Code::BadInput`] where it cannot be read: damaged, of a format that is not known, or not there;
/// [`lib_common::Code::TimedOut`] where that would take too long, or the signal that came.
pub fn is_nested(path: &Path) -> Result<bool> {
    look(path, WITHIN).map_err(|e| e.error(format!("cannot read the file system in {}", path.display())))
}

/// The same for a start, which neither waits for the answer nor fails for it: a guest can write to its disk what it likes,
/// and so make a file system that takes minutes to read. An answer that does not come within that time is no.
pub fn is_nested_within(path: &Path, within: Duration) -> bool {
    matches!(look(path, within), Ok(true))
}

/// The same for who tells a disk that is refused from one that cannot be read.
pub(super) fn is_nested_or_unread(path: &Path) -> Result<bool, Unread> {
    look(path, WITHIN)
}

fn look(path: &Path, within: Duration) -> Result<bool, Unread> {
    let patience = Patience::new(within);
    let path = path.to_owned();
    apart(patience, move || look_here(&path, patience))
}

pub(super) fn look_here(path: &Path, patience: Patience) -> Result<bool, Unread> {
    let fs = open(path, patience, MAX_READ)?;
    Ok(nested::is_nested(|at| found(&fs, at))?)
}

fn found(fs: &Ext4, at: &str) -> std::result::Result<Option<Found>, Ext4Error> {
    match fs.symlink_metadata(format!("/{at}").as_str()) {
        Ok(meta) => Ok(Some(Found { directory: meta.is_dir(), of_root: (meta.uid(), meta.gid()) == (0, 0) })),
        Err(Ext4Error::NotFound) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests;
