//! A repository's index: `ARCH-repodata`.

use super::key::Key;
use super::pkgver::is_name;
use super::props::{Props, Source};
use super::stream::{self, Stream};
use super::{bad, plists, shown};
use lib_common::doc::Digest;
use lib_common::error::{Context, Result};
use plist::Value;
use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;

/// The most that an index may unpack to, in bytes; Void's has about 30 MB.
const MAX_INDEX: u64 = 256 << 20;
/// The most that what is said of the repository may have, in bytes.
const MAX_META: u64 = 64 << 10;
/// So many malformed entries are told of one by one.
pub const MAX_SKIPPED: usize = 20;
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
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// By name.
    pub packages: BTreeMap<String, IndexEntry>,
    /// What was passed by, a line for each malformed entry; no more than [`MAX_SKIPPED`].
    pub skipped: Vec<String>,
    /// The key that its packages are signed with. Nothing vouches for it here.
    pub key: Option<Key>,
}

impl Index {
    /// Reads an index, package by package. `staged`: true if the packages that the repository holds back, because others
    /// have to follow them, take the place of those that they update. One malformed entry is passed by.
    ///
    /// Errors: `missing_file`; `bad_input` that names the file for what is damaged, too large or no index.
    pub fn read(file: &Path, staged: bool) -> Result<Self> {
        let name = file.display().to_string();
        let opened = stream::open(file)?;
        read(opened, &name, staged).context(format!("cannot read the index {name}"))
    }
}

fn read(file: std::fs::File, name: &str, staged: bool) -> Result<Index> {
    let damaged = |e: std::io::Error| bad(format!("{name} is not a whole tar, compressed or not")).because(&e);
    let mut input = Stream::new(file).map_err(damaged)?.take(MAX_INDEX);
    let mut archive = tar::Archive::new(&mut input);
    let mut index = Index::default();
    let mut stage = Index::default();
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
            _ if path == "index.plist" => packages(entry, &path, &mut index)?,
            size if path == "index-meta.plist" => index.key = key(entry, size)?,
            _ if staged => packages(entry, &path, &mut stage)?,
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
    index.packages.extend(stage.packages);
    index.skipped.extend(stage.skipped);
    index.skipped.truncate(MAX_SKIPPED);
    Ok(index)
}

fn packages(input: impl Read, part: &str, index: &mut Index) -> Result<()> {
    plists::each(BufReader::new(input), part, |name, value| {
        let entry = match entry(&name, &value) {
            Ok(entry) => entry,
            Err(e) => {
                if index.skipped.len() < MAX_SKIPPED {
                    index.skipped.push(e.with_causes());
                }
                return Ok(());
            }
        };
        if index.packages.len() >= MAX_PACKAGES {
            return Err(bad(format!("it has more than {MAX_PACKAGES} packages")));
        }
        match index.packages.insert(name, entry) {
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
