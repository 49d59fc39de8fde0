//! Staging: everything is made in `staging/ID/`, under a held lock and with its journal, and renamed to its name when
//! it is ready to be seen; what is removed is renamed back there first. So a name is whole or not there at all.

use super::{Journal, Operation, Store};
use lib_common::doc::Undo;
use lib_common::error::Result;
use lib_common::sys::fs::{remove_dir, rename_new, sync_dir};
use lib_common::sys::lock::Lock;
use lib_common::sys::random::random_id;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A directory in the making; dropped before [`Staging::publish`], it is removed.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    // In this order: the lock is held until all is undone.
    operation: Operation,
    lock: Lock,
}

impl Store {
    /// Begins an operation in a staging directory of its own.
    pub fn stage(&self, operation: &str) -> Result<Staging> {
        self.stage_with(operation, &[])
    }

    /// The same, with intents of what will be done later: undoing what was not done is harmless.
    pub fn stage_with(&self, operation: &str, intents: &[Undo]) -> Result<Staging> {
        self.prepare()?;
        let path = self.staging_dir().join(random_id()?);
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|e| lib_common::Error::io("make", &path, &e))?;
        let begin = || {
            let lock = Lock::take(&path.join("lock"), self.lock_wait())?;
            let intents = [&[Undo::RemoveObject], intents].concat();
            Ok((lock, Journal::in_dir(&path, self.give_back_tap).begin_with(operation, intents)?))
        };
        match begin() {
            Ok((lock, operation)) => Ok(Staging { path, lock, operation }),
            Err(e) => {
                // A signal or a full disk, before there is a journal that would say so.
                let _ = remove_dir(&path);
                Err(e)
            }
        }
    }
}

impl Staging {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The operation, for more intents.
    pub fn operation(&mut self) -> &mut Operation {
        &mut self.operation
    }

    /// Ends the operation: the directory is whole, and may be renamed to where it belongs while the lock is held.
    /// Whatever stays in staging is removed by `bg-gc`, so nothing is left if that does not happen.
    pub fn commit(self) -> Result<(PathBuf, Lock)> {
        let Staging { path, operation, lock } = self;
        operation.commit()?;
        lib_common::sys::fs::sync_dir(&path)?;
        Ok((path, lock))
    }

    /// Claims `to` by a rename that never replaces; [`lib_common::Code::Exists`] where somebody has it. The operation goes
    /// on under the new name, and undoing it removes that. The lock comes first, so that who binds both drops it last: until
    /// all is undone nobody else has the name.
    pub fn publish(self, to: &Path) -> Result<(Lock, Operation)> {
        let published = self.publish_unsynced(to)?;
        if let Some(dir) = to.parent() {
            sync_dir(dir)?;
        }
        Ok(published)
    }

    /// The same; the caller syncs the directory of `to` before the object is whole.
    pub fn publish_unsynced(mut self, to: &Path) -> Result<(Lock, Operation)> {
        rename_new(&self.path, to)?;
        self.operation.moved_to(to);
        self.lock.moved_to(to.join("lock"));
        Ok((self.lock, self.operation))
    }
}

/// Removes a directory so that its name is free at once and what is left after a kill lies in staging.
pub fn remove_by_rename(store: &Store, path: &Path) -> Result<()> {
    free_name(store, path)?.map_or(Ok(()), |staged| remove_dir(&staged))
}

/// Frees the name of a directory: it is in staging then, for the caller to remove. `None` where it is gone already.
pub fn free_name(store: &Store, path: &Path) -> Result<Option<PathBuf>> {
    let staged = store.staging_dir().join(random_id()?);
    let mut renamed = std::fs::rename(path, &staged);
    // It says the same of the directory and of staging.
    if renamed.as_ref().is_err_and(|e| e.kind() == ErrorKind::NotFound) && path.symlink_metadata().is_ok() {
        store.prepare()?;
        renamed = std::fs::rename(path, &staged);
    }
    match renamed {
        Ok(()) => Ok(Some(staged)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(lib_common::Error::io("remove", path, &e)),
    }
}
