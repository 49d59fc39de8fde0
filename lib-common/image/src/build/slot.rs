//! A place in the cache, `<cache_dir>/KIND/KEY/`: whole or not there, whoever builds it and however they end. Knows
//! nothing of what is in it.

use fs_err as fs;
use lib_common::doc::Digest;
use lib_common::error::{Code, Error, Result};
use lib_common::sys::dirs::list;
use lib_common::sys::fs::{
    TEMP_PREFIX, private_dir, remove_dir, remove_file, rename_exchange, rename_new, sync_all, sync_dir,
};
use lib_common::sys::lock::{Lock, is_held};
use lib_common::sys::owned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Held while one is made beside the others, and while dead ones are removed: milliseconds.
const SWEEP_WAIT: Duration = Duration::from_secs(10);
/// How long somebody may take to make what others wait for.
const TURN_WAIT: Duration = Duration::from_secs(3600);

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

/// The right to make what has one key; as long as this lives, others wait.
#[derive(Debug)]
#[must_use = "dropped, it is the next one's turn"]
pub struct Turn(#[allow(dead_code, reason = "held, not read")] LockFile);

/// A held lock whose file goes with it.
#[derive(Debug)]
struct LockFile(Lock);

impl Drop for LockFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0.path());
    }
}

impl Slot {
    /// The place for `key` among those of a kind, such as `rootfs`. What is there is taken as it is, so it has to be the caller's.
    ///
    /// # Errors
    /// [`Code::Permission`] where it is a link, or another user's, or others could have put it there.
    pub fn new(cache_dir: &Path, kind: &str, key: &Digest) -> Result<Self> {
        let slot = Slot { dir: cache_dir.join(kind).join(key.hex()) };
        owned::is_safe_from_others(slot.parent())?;
        owned::is_dir(cache_dir, Path::new(kind).join(key.hex()))?;
        Ok(slot)
    }

    /// Where it is, or will be.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the directory of its kind, private to the caller.
    fn prepare(&self) -> Result<()> {
        private_dir(self.cache())?;
        private_dir(self.parent())
    }

    fn cache(&self) -> &Path {
        self.parent().parent().unwrap_or(Path::new("/"))
    }

    /// Waits until nobody makes it any more, so that of many who want it at once one works. Look for it once more then.
    ///
    /// # Errors
    /// [`Code::LockBusy`], with the builder's name, after an hour.
    pub fn turn(&self) -> Result<Turn> {
        let parent = self.parent();
        self.prepare()?;
        // Named as what a killed builder leaves is, so that it is swept with that.
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy();
        let lock = Lock::take(&parent.join(format!("{TEMP_PREFIX}{name}.lock")), TURN_WAIT)?;
        Ok(Turn(LockFile(lock)))
    }

    /// Begins to make it. What killed builders left is removed first.
    pub fn begin(&self) -> Result<Building> {
        let parent = self.parent();
        self.prepare()?;
        let _guard = Lock::take(&parent.join(".lock"), SWEEP_WAIT)?;
        sweep(parent)?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        let temp = tempfile::Builder::new().prefix(TEMP_PREFIX).permissions(private).tempdir_in(parent);
        let temp = temp.map_err(|e| Error::io("build in", parent, &e))?;
        let lock = LockFile(Lock::take(&lock_of(temp.path()), SWEEP_WAIT)?);
        Ok(Building { temp, _lock: lock })
    }

    /// Gives the directory its name, at once and durably, for a cache hit believes what it finds. Gives `made`, which is
    /// in it; or, where somebody else was faster and `there` says that theirs may stay, theirs.
    pub fn publish<T>(&self, building: Building, made: T, there: impl FnOnce(&Path) -> Option<T>) -> Result<T> {
        let temp = building.path();
        sync_all(temp)?;
        match rename_new(temp, &self.dir) {
            Ok(()) => {
                // The name is gone, and with it what dropping the guard would remove.
                let _ = building.temp.keep();
            }
            Err(e) if e.code() != Code::Exists => return Err(e),
            Err(_) => match there(&self.dir) {
                Some(theirs) => return Ok(theirs),
                // Exchanged, so that there is one at any time; the guard now removes the old one.
                None => rename_exchange(temp, &self.dir)?,
            },
        }
        sync_dir(self.parent())?;
        Ok(made)
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
pub fn lock_of(temp: &Path) -> PathBuf {
    temp.with_extension("lock")
}

/// Removes directories in the making whose builder is dead: the kernel has freed its lock.
fn sweep(parent: &Path) -> Result<()> {
    for entry in list(parent)? {
        let path = entry.path();
        let temporary = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(TEMP_PREFIX));
        if !temporary || is_held(&lock_of(&path))? {
            continue;
        }
        if path.is_dir() { remove_dir(&path)? } else { remove_file(&path)? }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lib_common::digest;

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
        let slot = Slot::new(cache.path(), "kind", &digest::of_bytes(b"key")).unwrap();
        let make = |content: &str| {
            let building = slot.begin().unwrap();
            fs::write(building.path().join("f"), content).unwrap();
            building
        };
        let (one, two, three) = (make("one"), make("two"), make("three"));
        assert_eq!(slot.publish(one, "one", |_| Some("theirs")).unwrap(), "one");
        assert_eq!(slot.publish(two, "two", |_| Some("theirs")).unwrap(), "theirs");
        assert_eq!(fs::read_to_string(slot.dir().join("f")).unwrap(), "one");
        assert_eq!(slot.publish(three, "three", |_| None).unwrap(), "three");
        assert_eq!(fs::read_to_string(slot.dir().join("f")).unwrap(), "three");
        drop(slot.begin().unwrap());
        assert_eq!(names(slot.parent()).len(), 1, "{:?}", names(slot.parent()));
        assert_eq!(names(slot.dir()), ["f"]);
    }

    #[test]
    fn what_a_dead_builder_left_is_swept_and_what_a_live_one_makes_is_not() {
        let cache = tempfile::tempdir().unwrap();
        let slot = Slot::new(cache.path(), "kind", &digest::of_bytes(b"key")).unwrap();
        let live = slot.begin().unwrap();
        let dead = slot.parent().join(".tmp-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(slot.parent().join(".tmp-dead.lock"), "").unwrap();
        drop(slot.begin().unwrap());
        assert!(live.path().is_dir() && !dead.exists());
    }
}
