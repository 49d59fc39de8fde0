//! What nobody of banger has put there: symbolic links, and what belongs to another user. None of it is followed, and none of it
//! is removed: whoever has done it, or its victim, may want to look.

use super::files::{children, owned};
use super::{Found, Remedy};
use crate::error::Result;
use crate::store::Store;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Links and other users' things in the store and the runtime directory.
pub fn strangers(store: &Store) -> Result<Vec<Found>> {
    let mut found = vec![];
    let mut look = |path: &Path| {
        let Some(evidence) = strange(path) else { return false };
        let mut f = owned("stranger", path, evidence);
        f.fix = format!("look at it, and then: rm -r {}", path.display());
        found.push(Found { finding: f, remedy: Remedy::Report });
        true
    };
    for dir in [store.machines_dir(), store.images_dir(), store.staging_dir(), store.runtime_dir().to_owned()] {
        if !dir.exists() || look(&dir) {
            continue;
        }
        for thing in children(&dir)? {
            if !look(&thing) && thing.is_dir() {
                children(&thing)?.iter().filter(|file| file.is_symlink()).for_each(|file| {
                    look(file);
                });
            }
        }
    }
    Ok(found)
}

fn strange(path: &Path) -> Option<String> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    if meta.is_symlink() {
        let target = std::fs::read_link(path).unwrap_or_default();
        return Some(format!("it is a symbolic link to {}, and nothing in a store is one", target.display()));
    }
    (meta.uid() != nix::unistd::geteuid().as_raw()).then(|| format!("it belongs to the user {}", meta.uid()))
}
