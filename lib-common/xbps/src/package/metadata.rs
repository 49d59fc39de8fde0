//! The start of a package: its archive, with a bound on what each step may read, and its metadata.

use super::super::pkgver::PkgVer;
use super::super::props::Props;
use super::super::stream::{self, Stream};
use super::super::{bad, plists};
use super::layout::METADATA;
use super::{Package, bad_entry};
use lib_common::error::{Error, Result};
use plist::Dictionary;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;

/// The most that a script or `props.plist` may have, in bytes.
const MAX_SMALL: u64 = 4 << 20;
/// The most that `files.plist` may have, in bytes.
const MAX_FILES: u64 = 128 << 20;
/// The most that the headers of one entry may have, in bytes: long names, pax records, padding.
const MAX_HEADERS: u64 = 64 << 10;
/// The most zeros behind the last entry, in bytes.
const MAX_PADDING: u64 = 1 << 20;

/// A stream that gives no more than it is allowed to: tar headers can promise anything.
pub(super) struct Metered {
    inner: Stream,
    allowed: Allowed,
}

/// How many bytes may still be read.
#[derive(Clone, Default)]
struct Allowed(Rc<Cell<u64>>);

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.allowed.0.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("more headers than an entry can have"));
        }
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut buffer[..most])?;
        self.allowed.0.set(left - count as u64);
        Ok(count)
    }
}

/// Calls `each` for the archive's entries, with their names as they are there, until it says false. A whole archive
/// has to be at its end then.
pub(super) fn for_each(file: File, mut each: impl FnMut(&mut tar::Entry<'_, Metered>) -> Result<bool>) -> Result<()> {
    let allowed = Allowed::default();
    let inner = Stream::new(file).map_err(|e| damaged(&e))?;
    let mut archive = tar::Archive::new(Metered { inner, allowed: allowed.clone() });
    let mut entries = archive.entries().map_err(|e| damaged(&e))?;
    loop {
        lib_common::sys::signal::check()?;
        allowed.0.set(MAX_HEADERS);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(|e| damaged(&e))?;
        allowed.0.set(entry.size());
        if !each(&mut entry)? {
            return Ok(());
        }
        io::copy(&mut entry, &mut io::sink()).map_err(|e| damaged(&e))?;
    }
    archive.into_inner().inner.finish(MAX_PADDING).map_err(|e| damaged(&e))
}

/// Which metadata an entry of that name is: they come before everything else, in any order.
pub(super) fn metadata(name: &[u8]) -> Option<usize> {
    let name = name.strip_prefix(b"./")?;
    METADATA.iter().position(|one| one.as_bytes() == name)
}

/// What reading the archive says.
pub(super) fn damaged(e: &io::Error) -> Error {
    bad("it is damaged, cut off, or no package at all").because(e)
}

/// Reads the metadata, and checks whose it is.
pub(super) fn open(path: &Path, expected: &PkgVer, arch: &str) -> Result<Package> {
    let file = stream::open(path)?;
    let again = file.try_clone().map_err(|e| Error::io("read", path, &e))?;
    let mut parts: [Option<Vec<u8>>; 4] = [None, None, None, None];
    for_each(again, |entry| {
        let name = entry.path_bytes().into_owned();
        let Some(at) = metadata(&name) else { return Ok(false) };
        let name = METADATA[at];
        if !entry.header().entry_type().is_file() {
            return Err(bad_entry(name, "is metadata and not a file"));
        }
        let limit = if name == "files.plist" { MAX_FILES } else { MAX_SMALL };
        if entry.size() > limit {
            return Err(bad_entry(name, &format!("is larger than {limit} bytes")));
        }
        let mut bytes = vec![];
        entry.read_to_end(&mut bytes).map_err(|e| damaged(&e))?;
        match parts[at].replace(bytes) {
            None => Ok(true),
            Some(_) => Err(bad_entry(name, "is there twice")),
        }
    })?;
    let [install, remove, props, files] = parts;
    let dictionary = parse(props, "props.plist")?;
    let files = parse(files, "files.plist")?;
    let props = Props::of(&dictionary, "its props.plist")?;
    if props.pkgver != *expected {
        return Err(bad(format!("it is the package {} and not {expected}", props.pkgver)));
    }
    if props.architecture != arch && props.architecture != "noarch" {
        return Err(bad(format!("it is for {} and not for {arch}", super::shown(&props.architecture))));
    }
    Ok(Package { props, dictionary, install, remove, files, file })
}

fn parse(bytes: Option<Vec<u8>>, name: &str) -> Result<Dictionary> {
    let bytes = bytes.ok_or_else(|| bad(format!("it has no {name} before what it installs")))?;
    plists::read(&bytes[..], name)
}
