//! A repository's index: `ARCH-repodata`.

use super::key::Key;
use super::pkgver::is_name;
use super::props::{Props, Source};
use super::stream::{self, Stream};
use super::{bad, plists, shown};
use crate::doc::Digest;
use crate::error::{Context, Result};
use plist::Value;
use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;

/// The most that an index may unpack to, in bytes; Void's has about 30 MB.
const MAX_INDEX: u64 = 256 << 20;
/// The most that what is said of the repository may have, in bytes.
const MAX_META: u64 = 64 << 10;
/// The most packages.
const MAX_PACKAGES: usize = 200_000;

/// A package of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// What the index says of it.
    pub props: Props,
    /// Of its file.
    pub sha256: Digest,
    /// Of its file, in bytes.
    pub size: u64,
}

/// What a repository has.
#[derive(Clone, Debug)]
pub struct Index {
    /// By name.
    pub packages: BTreeMap<String, IndexEntry>,
    /// The key that its packages are signed with. Nothing vouches for it here.
    pub key: Option<Key>,
}

impl Index {
    /// Reads an index, package by package; what is staged is left out.
    ///
    /// Errors: `missing_file`; `bad_input` that names the file for what is damaged, too large or no index.
    pub fn read(file: &Path) -> Result<Self> {
        let name = file.display().to_string();
        let opened = stream::open(file)?;
        read(opened, &name).context(format!("cannot read the index {name}"))
    }
}

fn read(file: std::fs::File, name: &str) -> Result<Index> {
    let damaged = |e: std::io::Error| bad(format!("{name} is not a whole tar, compressed or not")).because(&e);
    let mut input = Stream::new(file).map_err(damaged)?.take(MAX_INDEX);
    let mut archive = tar::Archive::new(&mut input);
    let mut index = Index { packages: BTreeMap::new(), key: None };
    let mut expected = ["index.plist", "index-meta.plist", "stage.plist"].iter();
    let mut found = 0;
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        let entry = entry.map_err(damaged)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if expected.next().is_none_or(|e| *e != path) || !entry.header().entry_type().is_file() {
            return Err(bad(format!("it has `{}`, which is no part of an index there", shown(&path))));
        }
        found += 1;
        match entry.size() {
            0 => {}
            _ if path == "index.plist" => packages(entry, &mut index.packages)?,
            size if path == "index-meta.plist" => index.key = key(entry, size)?,
            _ => {}
        }
    }
    if found == 0 {
        return Err(bad("it has no index.plist"));
    }
    if input.limit() == 0 {
        return Err(bad(format!("it unpacks to more than {MAX_INDEX} bytes")));
    }
    input.into_inner().finish(1 << 20).map_err(damaged)?;
    Ok(index)
}

fn packages(input: impl Read, all: &mut BTreeMap<String, IndexEntry>) -> Result<()> {
    plists::each(BufReader::new(input), "index.plist", |name, value| {
        let entry = entry(&name, &value)?;
        if all.len() >= MAX_PACKAGES {
            return Err(bad(format!("it has more than {MAX_PACKAGES} packages")));
        }
        match all.insert(name, entry) {
            None => Ok(()),
            Some(e) => Err(bad(format!("it has {} twice", e.props.pkgver))),
        }
    })
}

fn entry(name: &str, value: &Value) -> Result<IndexEntry> {
    let wrong = |what: &str| bad(format!("its package {} {what}", shown(name)));
    let dictionary = value.as_dictionary().ok_or_else(|| wrong("is no dictionary"))?;
    let from = Source { dictionary, package: name };
    let props = Props::of(dictionary, name)?;
    if !is_name(name) || props.pkgver.name() != name {
        return Err(wrong("has another name in its pkgver"));
    }
    let sha256 = Digest::parse(&format!("sha256:{}", from.text("filename-sha256")?));
    let sha256 = sha256.map_err(|e| wrong("has a wrong `filename-sha256`").because(&e))?;
    let size = from.size("filename-size")?.ok_or_else(|| wrong("has no `filename-size`"))?;
    Ok(IndexEntry { props, sha256, size })
}

/// The key in `index-meta.plist`; unsigned repositories have none, and old ones a word instead of the plist.
fn key(mut input: impl Read, size: u64) -> Result<Option<Key>> {
    let mut bytes = vec![];
    if size > MAX_META {
        return Err(bad("its index-meta.plist is too large"));
    }
    input.read_to_end(&mut bytes).map_err(|e| bad("its index-meta.plist is damaged or cut off").because(&e))?;
    if bytes.starts_with(b"DEADBEEF") { Ok(None) } else { Ok(Some(Key::of_plist(&bytes)?)) }
}

#[cfg(test)]
mod tests;
