//! A place in the cache, `<cache_dir>/KIND/KEY/`: whole or not there, whoever builds it and however they end. Knows
//! nothing of what is in it.

use crate::doc::Digest;
use crate::error::{Code, Error, Result};
use crate::sys::fs::{rename_new, sync_dir};
use crate::sys::lock::{Lock, is_held};
use fs_err as fs;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// What directories in the making begin with.
const TEMP_PREFIX: &str = ".tmp-";
/// Held while one is made beside the others, and while dead ones are removed: milliseconds.
const SWEEP_WAIT: Duration = Duration::from_secs(10);

/// The place for what has one key.
#[derive(Clone, Debug)]
pub struct Slot {
    dir: PathBuf,
}

/// A directory in the making beside its place; dropped, it is removed.
#[derive(Debug)]
pub struct Building {
    temp: TempDir,
    // Goes after the directory (fields drop in order), so that nobody sweeps it meanwhile.
    _lock: LockFile,
}

/// A held lock whose file goes with it.
#[derive(Debug)]
struct LockFile(Lock);

impl Drop for LockFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0.path());
    }
}

/// Whose result is in the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// What was just made.
    Ours,
    /// Somebody else was faster; what was just made is gone.
    Theirs,
}

impl Slot {
    /// The place for `key` among those of a kind, such as `rootfs`.
    pub fn new(cache_dir: &Path, kind: &str, key: &Digest) -> Self {
        Slot { dir: cache_dir.join(kind).join(key.hex()) }
    }

    /// Where it is, or will be.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Begins to make it. What killed builders left is removed first.
    pub fn begin(&self) -> Result<Building> {
        let parent = self.parent();
        fs::create_dir_all(parent)?;
        let _guard = Lock::take(&parent.join(".lock"), SWEEP_WAIT)?;
        sweep(parent)?;
        let temp = tempfile::Builder::new().prefix(TEMP_PREFIX).tempdir_in(parent);
        let temp = temp.map_err(|e| Error::io("build in", parent, &e))?;
        let lock = LockFile(Lock::take(&lock_of(temp.path()), SWEEP_WAIT)?);
        Ok(Building { temp, _lock: lock })
    }

    /// Gives what was made its name, at once; its files are the caller's to sync before. `replace`: whether it takes the
    /// place of what is there.
    pub fn publish(&self, building: Building, replace: bool) -> Result<Published> {
        let made = building.path();
        sync_dir(made)?;
        match rename_new(made, &self.dir) {
            Ok(()) => {
                // The name is gone, and with it what dropping the guard would remove.
                let _ = building.temp.keep();
            }
            Err(e) if e.code() != Code::Exists => return Err(e),
            Err(_) if !replace => return Ok(Published::Theirs),
            // Exchanged, so that there is one at any time; the guard now removes the old one.
            Err(_) => renameat2(AT_FDCWD, made, AT_FDCWD, &self.dir, RenameFlags::RENAME_EXCHANGE)
                .map_err(|e| Error::io("replace", &self.dir, &e.into()))?,
        }
        sync_dir(self.parent())?;
        Ok(Published::Ours)
    }

    fn parent(&self) -> &Path {
        self.dir.parent().unwrap_or(Path::new("/"))
    }
}

impl Building {
    /// The directory.
    pub fn path(&self) -> &Path {
        self.temp.path()
    }
}

/// The lock beside a directory in the making: in it, it would become part of the result.
fn lock_of(temp: &Path) -> PathBuf {
    temp.with_extension("lock")
}

/// Removes directories in the making whose builder is dead: the kernel has freed its lock.
fn sweep(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        let temporary = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(TEMP_PREFIX));
        if !temporary || is_held(&lock_of(&path)) {
            continue;
        }
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|n| n != ".lock");
        names.sort();
        names
    }

    #[test]
    fn the_first_of_two_builders_wins_unless_the_second_replaces() {
        let cache = tempfile::tempdir().unwrap();
        let slot = Slot::new(cache.path(), "kind", &digest::of_bytes(b"key"));
        let make = |content: &str| {
            let building = slot.begin().unwrap();
            fs::write(building.path().join("f"), content).unwrap();
            building
        };
        let (one, two, three) = (make("one"), make("two"), make("three"));
        assert_eq!(slot.publish(one, false).unwrap(), Published::Ours);
        assert_eq!(slot.publish(two, false).unwrap(), Published::Theirs);
        assert_eq!(fs::read_to_string(slot.dir().join("f")).unwrap(), "one");
        assert_eq!(slot.publish(three, true).unwrap(), Published::Ours);
        assert_eq!(fs::read_to_string(slot.dir().join("f")).unwrap(), "three");
        drop(slot.begin().unwrap());
        assert_eq!(names(slot.parent()).len(), 1, "{:?}", names(slot.parent()));
        assert_eq!(names(slot.dir()), ["f"]);
    }

    #[test]
    fn what_a_dead_builder_left_is_swept_and_what_a_live_one_makes_is_not() {
        let cache = tempfile::tempdir().unwrap();
        let slot = Slot::new(cache.path(), "kind", &digest::of_bytes(b"key"));
        let live = slot.begin().unwrap();
        let dead = slot.parent().join(".tmp-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(slot.parent().join(".tmp-dead.lock"), "").unwrap();
        drop(slot.begin().unwrap());
        assert!(live.path().is_dir() && !dead.exists());
    }
}
