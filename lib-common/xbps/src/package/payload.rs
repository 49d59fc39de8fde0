//! What a package installs: each entry checked, and its content against `files.plist`.

use super::layout::{Layout, path_of, target_of};
use super::listed::Listed;
use super::metadata::{self, Metered};
use super::{Entry, EntryKind, Package, bad_entry};
use lib_common::digest::Hashing;
use lib_common::doc::Digest;
use lib_common::error::{Code, Error, Result};
use std::collections::HashMap;
use std::io::{self, Read, Write};

/// The most that a package may unpack to, in bytes.
const MAX_TOTAL: u64 = 16 << 30;
/// How much more than twice its `installed_size` it may, in bytes: old tools counted differently.
const SLACK: u64 = 1 << 20;

/// See [`Package::entries`].
pub(super) fn walk(package: Package, each: &mut dyn FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
    let listed = Listed::of(&package.files)?;
    let most = match package.props.installed_size {
        0 => MAX_TOTAL,
        stated => stated.saturating_mul(2).saturating_add(SLACK).min(MAX_TOTAL),
    };
    let mut walk = Walk { listed, layout: Layout::default(), digests: HashMap::new(), left: most };
    let mut is_metadata = true;
    metadata::for_each(package.file, |entry| {
        // Checked when the package was opened.
        is_metadata = is_metadata && metadata::metadata(&entry.path_bytes()).is_some();
        if !is_metadata {
            walk.entry(entry, each)?;
        }
        Ok(true)
    })?;
    walk.listed.check_all(&walk.layout)
}

struct Walk {
    listed: Listed,
    layout: Layout,
    /// Of the files so far, for their other names.
    digests: HashMap<String, Digest>,
    /// How many bytes of content there may still be.
    left: u64,
}

impl Walk {
    fn entry(
        &mut self,
        entry: &mut tar::Entry<'_, Metered>,
        each: &mut dyn FnMut(Entry<'_>) -> Result<()>,
    ) -> Result<()> {
        let name = entry.path_bytes().into_owned();
        if entry.header().entry_type().is_dir() {
            // xbps makes directories as they are needed, and passes by the archive's; their names are checked all the same.
            return match name.strip_suffix(b"/").unwrap_or(&name) {
                _ if entry.size() > 0 => Err(bad_entry(&String::from_utf8_lossy(&name), "is a directory with content")),
                b"." => Ok(()),
                name => path_of(name).map(|_| ()),
            };
        }
        let path = path_of(&name)?;
        let kind = kind_of(path, entry)?;
        self.layout.add(path, &kind)?;
        let size = entry.size();
        match &kind {
            EntryKind::File => {}
            _ if size > 0 => return Err(bad_entry(path, "is a link with content")),
            EntryKind::Symlink(_) => self.listed.link(path)?,
            EntryKind::Hardlink(target) => {
                if self.digests.get(target) != Some(self.listed.file(path, None)?) {
                    return Err(bad_entry(path, "is a hard link to another content than files.plist says"));
                }
            }
        }
        let (mode, uid, gid) = owner(path, entry.header())?;
        let expected = match &kind {
            EntryKind::Symlink(_) => None,
            EntryKind::Hardlink(_) => Some(self.listed.file(path, None)?.clone()),
            EntryKind::File => Some(self.listed.file(path, Some(size))?.clone()),
        };
        self.left = self.left.checked_sub(size).ok_or_else(|| bad_entry(path, "makes it larger than it says it is"))?;
        let is_file = kind == EntryKind::File;
        let mut content = Checked { inner: entry, hashing: Hashing::new(io::sink()), failed: None };
        let done = each(Entry { path, kind, mode, uid, gid, size, capability: None, content: &mut content });
        // What went wrong while reading is the cause of whatever the caller made of it.
        if let Some(e) = content.failed {
            return Err(bad_entry(path, "is damaged or cut off").because(&e));
        }
        done?;
        io::copy(&mut content, &mut io::sink()).map_err(|e| bad_entry(path, "is damaged or cut off").because(&e))?;
        let (_, digest, length) = content.hashing.finish();
        if is_file && (length != size || Some(&digest) != expected.as_ref()) {
            return Err(bad_entry(path, "has another content than files.plist says").with_code(Code::DigestMismatch));
        }
        if let Some(digest) = expected {
            self.digests.insert(path.to_owned(), digest);
        }
        Ok(())
    }
}

/// What an entry is, if a package may have such.
pub(super) fn kind_of(path: &str, entry: &tar::Entry<'_, Metered>) -> Result<EntryKind> {
    let target = entry.link_name_bytes();
    match entry.header().entry_type() {
        tar::EntryType::Regular => Ok(EntryKind::File),
        tar::EntryType::Symlink => Ok(EntryKind::Symlink(target_of(path, target.as_deref())?)),
        tar::EntryType::Link => {
            let outside = |e: Error| bad_entry(path, "is a hard link that leads out").also(e.message());
            let target = path_of(target.as_deref().unwrap_or_default()).map_err(outside)?.to_owned();
            Ok(EntryKind::Hardlink(target))
        }
        _ => Err(bad_entry(path, "is neither a file nor a link")),
    }
}

/// Mode, owner and group.
pub(super) fn owner(path: &str, header: &tar::Header) -> Result<(u32, u64, u64)> {
    let number = |what: io::Result<u64>| what.map_err(|e| bad_entry(path, "has a damaged header").because(&e));
    let (mode, uid, gid) = (number(header.mode().map(u64::from))?, number(header.uid())?, number(header.gid())?);
    let most = u64::from(u32::MAX) - 1;
    if uid > most || gid > most {
        return Err(bad_entry(path, "has an owner that cannot be"));
    }
    Ok(((mode & 0o7777) as u32, uid, gid))
}

/// A content that is digested while it is read, and keeps why it could not be.
struct Checked<'a, R> {
    inner: &'a mut R,
    hashing: Hashing<io::Sink>,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Checked<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(count) => {
                self.hashing.write_all(&buffer[..count])?;
                Ok(count)
            }
            Err(e) => {
                let same = io::Error::new(e.kind(), e.to_string());
                self.failed = Some(e);
                Err(same)
            }
        }
    }
}
