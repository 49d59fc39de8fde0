//! Looks into a work disk without mounting or changing it: is its content nested?

use super::nested::{self, Found};
use crate::error::{Code, Error, Result};
use ext4_view::{Ext4, Ext4Error};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

/// Whether the content of the file system in the file `path`, which nobody may have mounted, is nested; by the rule of
/// [`nested::is_nested`]. A journal that was not replayed yet is taken into account.
///
/// Errors: [`Code::BadInput`] where it cannot be read: damaged, of a format that is not known, or not there.
pub fn is_nested(path: &Path) -> Result<bool> {
    let unreadable = |e: Ext4Error| {
        Error::new(Code::BadInput, format!("cannot read the file system in {}", path.display())).because(&e)
    };
    let fs = Ext4::load_from_path(path).map_err(unreadable)?;
    nested::is_nested(|at| found(&fs, at)).map_err(unreadable)
}

/// The same for a start, which neither waits for the answer nor fails for it: a guest can write to its disk what it likes,
/// and so make a file system that takes minutes to read. An answer that does not come within that time is no.
pub fn is_nested_within(path: &Path, within: Duration) -> bool {
    let (sender, answer) = channel();
    let path = path.to_owned();
    // It reads, and nothing waits for it: it may end with the process.
    let looking = std::thread::Builder::new().name("look".into()).spawn(move || sender.send(is_nested(&path)));
    looking.is_ok() && matches!(answer.recv_timeout(within), Ok(Ok(true)))
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
