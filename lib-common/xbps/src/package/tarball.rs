//! The tarball of a whole root file system: each entry is checked as one of a package is. Directories count here.

use super::layout::{Layout, path_of};
use super::metadata::{Metered, for_each};
use super::payload::{kind_of, owner};
use super::{Entry, EntryKind, bad_entry};
use lib_common::error::Result;
use std::fs::File;
use std::path::Path;

/// The most that it may unpack to, in bytes.
const MAX_TOTAL: u64 = 64 << 30;
/// What the kernel and the boot put there; of the archive they may have anything.
const RUNTIME: [&str; 5] = ["dev", "proc", "sys", "run", "tmp"];
/// The extended attribute that is kept, as tars have it: what a program may do without being root's.
const CAPABILITY: &str = "SCHILY.xattr.security.capability";

/// One thing of a tarball.
pub enum Item<'a> {
    /// A directory: its path without slashes around, its permissions, owner and group.
    Directory(&'a str, u32, (u64, u64)),
    /// Anything else.
    Entry(Entry<'a>),
}

/// Calls `each` for all of it, in the archive's order, but not for what is below the directories of [`RUNTIME`].
///
/// # Errors
/// `bad_input` that names tarball and entry for what is hostile or damaged; what `each` says.
pub fn walk(file: File, name: &str, each: &mut dyn FnMut(Item<'_>) -> Result<()>) -> Result<()> {
    let mut walk = Walk { layout: Layout::default(), left: MAX_TOTAL };
    for_each(file, |entry| walk.entry(entry, each).map(|()| true))
        .map_err(|e| e.within(format!("cannot unpack {}", Path::new(name).display())))
}

struct Walk {
    layout: Layout,
    /// How many bytes of content there may still be.
    left: u64,
}

impl Walk {
    fn entry(
        &mut self,
        entry: &mut tar::Entry<'_, Metered>,
        each: &mut dyn FnMut(Item<'_>) -> Result<()>,
    ) -> Result<()> {
        let name = entry.path_bytes().into_owned();
        let is_dir = entry.header().entry_type().is_dir();
        let name = if is_dir { name.strip_suffix(b"/").unwrap_or(&name) } else { &name };
        if is_dir && name == b"." {
            return Ok(());
        }
        let path = path_of(name)?;
        if RUNTIME.iter().any(|dir| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))) {
            return Ok(());
        }
        let size = entry.size();
        self.left = self.left.checked_sub(size).ok_or_else(|| bad_entry(path, "makes it too large"))?;
        let (mode, uid, gid) = owner(path, entry.header())?;
        if is_dir {
            self.layout.add_directory(path)?;
            return each(Item::Directory(path, mode, (uid, gid)));
        }
        let kind = kind_of(path, entry)?;
        if kind != EntryKind::File && size > 0 {
            return Err(bad_entry(path, "is a link with content"));
        }
        self.layout.add(path, &kind)?;
        let capability = capability(entry).map_err(|e| bad_entry(path, "has a damaged header").because(&e))?;
        each(Item::Entry(Entry { path, kind, mode, uid, gid, size, capability, content: entry }))
    }
}

fn capability(entry: &mut tar::Entry<'_, Metered>) -> std::io::Result<Option<Vec<u8>>> {
    for record in entry.pax_extensions()?.into_iter().flatten() {
        let record = record?;
        if record.key_bytes() == CAPABILITY.as_bytes() {
            return Ok(Some(record.value_bytes().to_vec()));
        }
    }
    Ok(None)
}
