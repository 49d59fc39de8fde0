//! What `files.plist` says of a package's files.

use super::super::bad;
use super::super::props::Source;
use super::bad_entry;
use super::layout::Layout;
use lib_common::doc::Digest;
use lib_common::error::Result;
use plist::{Dictionary, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Digest and, where it is said, size in bytes of each file; the links.
#[derive(Debug)]
pub(super) struct Listed {
    files: BTreeMap<String, (Digest, Option<u64>)>,
    links: BTreeSet<String>,
}

impl Listed {
    /// Takes them out of `files.plist`.
    pub fn of(dictionary: &Dictionary) -> Result<Self> {
        let mut listed = Listed { files: BTreeMap::new(), links: BTreeSet::new() };
        for key in ["files", "conf_files"] {
            for item in items(dictionary, key)? {
                let path = path_in(item)?;
                let from = Source { dictionary: item, package: "files.plist" };
                let digest = Digest::parse(&format!("sha256:{}", from.text("sha256")?));
                let digest = digest.map_err(|e| bad_entry(&path, "has a wrong `sha256` in files.plist").because(&e))?;
                if listed.files.insert(path.clone(), (digest, from.size("size")?)).is_some() {
                    return Err(bad_entry(&path, "is twice in files.plist"));
                }
            }
        }
        for item in items(dictionary, "links")? {
            listed.links.insert(path_in(item)?);
        }
        Ok(listed)
    }

    /// The digest of a file, whose size has to be the one that is listed.
    pub fn file(&self, path: &str, size: Option<u64>) -> Result<&Digest> {
        let found = self.files.get(path).ok_or_else(|| bad_entry(path, "is not in files.plist"))?;
        match (size, found.1) {
            (Some(size), Some(listed)) if size != listed => {
                Err(bad_entry(path, &format!("has {size} bytes and not the {listed} that files.plist says")))
            }
            _ => Ok(&found.0),
        }
    }

    /// A symbolic link has to be listed.
    pub fn link(&self, path: &str) -> Result<()> {
        if self.links.contains(path) { Ok(()) } else { Err(bad_entry(path, "is not in files.plist")) }
    }

    /// All that is listed has to be there.
    pub fn check_all(&self, layout: &Layout) -> Result<()> {
        match self.files.keys().chain(&self.links).find(|path| !layout.has(path)) {
            None => Ok(()),
            Some(path) => Err(bad_entry(path, "is in files.plist and not in the archive")),
        }
    }
}

/// The dictionaries of a list.
fn items<'a>(dictionary: &'a Dictionary, key: &str) -> Result<Vec<&'a Dictionary>> {
    let Some(value) = dictionary.get(key) else { return Ok(vec![]) };
    let all = value.as_array().and_then(|list| list.iter().map(Value::as_dictionary).collect());
    all.ok_or_else(|| bad(format!("its files.plist has a `{key}` that is no list of dictionaries")))
}

/// `/usr/bin/x` as `usr/bin/x`.
fn path_in(item: &Dictionary) -> Result<String> {
    let path = Source { dictionary: item, package: "files.plist" }.text("file")?;
    let path = path.strip_prefix('/').ok_or_else(|| bad_entry(path, "is not absolute in files.plist"))?;
    Ok(path.to_owned())
}
