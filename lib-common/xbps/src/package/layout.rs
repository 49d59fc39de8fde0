//! Which paths a package may have, and how they may follow each other.

use super::super::bad;
use super::{EntryKind, bad_entry};
use lib_common::error::Result;
use std::collections::{HashMap, HashSet};

/// The longest path and the longest target of a link, in bytes: Linux's, with the NUL.
const MAX_PATH: usize = 4095;
/// The longest part of a path, in bytes.
const MAX_COMPONENT: usize = 255;
/// The most that a package may install.
const MAX_ENTRIES: usize = 500_000;

/// What metadata is called; nothing that is installed may be.
pub(super) const METADATA: [&str; 4] = ["INSTALL", "REMOVE", "props.plist", "files.plist"];

/// The path of an entry without its `./`, checked; text and rules of a name that leads nowhere else.
pub(super) fn path_of(name: &[u8]) -> Result<&str> {
    let lossy = String::from_utf8_lossy(name);
    let wrong = |what: &str| Err(bad_entry(&lossy, what));
    let Ok(text) = std::str::from_utf8(name) else { return wrong("has a name that is not UTF-8") };
    if text.len() > MAX_PATH {
        return wrong("has a name that is too long");
    }
    if text.contains('\0') {
        return wrong("has a NUL in its name");
    }
    let Some(path) = text.strip_prefix("./") else { return wrong("does not begin with `./`") };
    for component in path.split('/') {
        match component {
            "" => return wrong("has an empty component in its name"),
            "." | ".." => return wrong("has a component in its name that leads elsewhere"),
            _ if component.len() > MAX_COMPONENT => return wrong("has a component in its name that is too long"),
            _ => {}
        }
    }
    Ok(path)
}

/// The target of a symbolic link: any text that can be one.
pub(super) fn target_of(path: &str, target: Option<&[u8]>) -> Result<String> {
    let text = target.and_then(|t| std::str::from_utf8(t).ok()).unwrap_or_default();
    if text.is_empty() || text.len() > MAX_PATH || text.contains('\0') {
        return Err(bad_entry(path, "is a symbolic link to nothing that can be a path"));
    }
    Ok(text.to_owned())
}

/// What was seen so far.
#[derive(Default)]
pub(super) struct Layout {
    /// Path, and whether it is a regular file or another name of one.
    seen: HashMap<String, bool>,
    /// All that are above something seen.
    directories: HashSet<String>,
}

impl Layout {
    /// One more entry: its path is new, and is neither above nor below another; a hard link's target is a file.
    pub fn add(&mut self, path: &str, kind: &EntryKind) -> Result<()> {
        if METADATA.contains(&path) {
            return Err(bad_entry(path, "is metadata behind what is installed"));
        }
        if self.directories.contains(path) {
            return Err(bad_entry(path, "is where other entries have a directory"));
        }
        for (at, _) in path.match_indices('/') {
            let above = &path[..at];
            if self.seen.contains_key(above) {
                return Err(bad_entry(path, "is below a link or file of the package"));
            }
            if !self.directories.contains(above) {
                self.directories.insert(above.to_owned());
            }
        }
        if let EntryKind::Hardlink(target) = kind
            && self.seen.get(target) != Some(&true)
        {
            return Err(bad_entry(path, "is a hard link to what is no earlier file of the package"));
        }
        if self.seen.len() >= MAX_ENTRIES {
            return Err(bad(format!("it has more than {MAX_ENTRIES} entries")));
        }
        match self.seen.insert(path.to_owned(), !matches!(kind, EntryKind::Symlink(_))) {
            None => Ok(()),
            Some(_) => Err(bad_entry(path, "is there twice")),
        }
    }

    /// A directory with an entry of its own, which may come after what is in it.
    pub fn add_directory(&mut self, path: &str) -> Result<()> {
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        if let Some(other) = above.chain([path]).find(|above| self.seen.contains_key(*above)) {
            return Err(bad_entry(path, &format!("is a directory where `{other}` is a link or file")));
        }
        if self.directories.len() >= MAX_ENTRIES {
            return Err(bad(format!("it has more than {MAX_ENTRIES} entries")));
        }
        self.directories.insert(path.to_owned());
        Ok(())
    }

    /// Whether it was seen.
    pub fn has(&self, path: &str) -> bool {
        self.seen.contains_key(path)
    }
}
