//! Looks into a work disk without mounting or changing it: is its content nested?

use super::nested::{self, Found};
use crate::error::{Code, Error, Result};
use ext4_view::{Ext4, Ext4Error};
use std::path::Path;

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

fn found(fs: &Ext4, at: &str) -> std::result::Result<Option<Found>, Ext4Error> {
    match fs.symlink_metadata(format!("/{at}").as_str()) {
        Ok(meta) => Ok(Some(Found { directory: meta.is_dir(), of_root: (meta.uid(), meta.gid()) == (0, 0) })),
        Err(Ext4Error::NotFound) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests;
