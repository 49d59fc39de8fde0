//! Taking one found thing away. Whoever began to work on it since it was found keeps it: each remedy takes the lock that
//! the thing has, and looks once more.

use super::files::shim_lives;
use super::{Found, Remedy};
use crate::build::slot::lock_of;
use crate::config::Config;
use crate::doc::Name;
use crate::error::Result;
use crate::store::{Journal, Store, end_shim, remove_by_rename};
use crate::sys::fs::{remove_dir, remove_file};
use crate::sys::lock::{Lock, is_held};
use std::path::Path;

/// Takes it away; false where somebody works on it by now. What is gone already is fine.
pub fn mend(store: &Store, config: &Config, found: &Found) -> Result<bool> {
    match &found.remedy {
        Remedy::Report => Ok(false),
        Remedy::Machine(dir) => locked(dir, || machine(store, dir)),
        Remedy::Image(dir) => {
            let _lock = store.lock_images()?;
            if dir.join("image.json").exists() { Ok(false) } else { remove_by_rename(store, dir).map(|()| true) }
        }
        // One that is being removed may have lost its lock; another one in it would be in the way.
        Remedy::Seed(file) => {
            let _lock = store.lock_images()?;
            if super::files::is_named(file) { Ok(false) } else { remove_file(file).map(|()| true) }
        }
        Remedy::Staged(dir) if !dir.join("lock").exists() => remove_dir(dir).map(|()| true),
        Remedy::Staged(dir) => locked(dir, || remove_dir(dir).map(|()| true)),
        Remedy::Temporary(path) => temporary(path),
        Remedy::Runtime(dir, owner) => runtime(store, dir, owner.as_ref()),
        Remedy::Network(remedy) => super::net::mend(store, config, remedy),
        Remedy::Process(process) => process.end().map(|()| true),
    }
}

/// Does it with the lock of a directory; false where somebody else has that.
fn locked(dir: &Path, work: impl FnOnce() -> Result<bool>) -> Result<bool> {
    match Lock::try_take(&dir.join("lock")) {
        Ok(None) => Ok(false),
        Err(_) if !dir.exists() => Ok(true),
        lock => {
            let _lock = lock?;
            work()
        }
    }
}

fn machine(store: &Store, dir: &Path) -> Result<bool> {
    Journal::in_dir(dir).undo_open()?;
    if !dir.join("machine.json").exists() {
        remove_by_rename(store, dir)?;
    }
    Ok(true)
}

fn temporary(path: &Path) -> Result<bool> {
    if is_held(&lock_of(path)) || path.parent().is_some_and(|place| is_held(&place.join("lock"))) {
        return Ok(false);
    }
    if path.is_dir() {
        remove_dir(path)?
    } else {
        remove_file(path)?
    }
    Ok(true)
}

fn runtime(store: &Store, dir: &Path, owner: Option<&Name>) -> Result<bool> {
    let end = || end_shim(dir).and_then(|()| remove_dir(dir)).map(|()| true);
    match owner.map(|name| store.machine_dir(name)) {
        // It may have been started by now; with its lock nobody does.
        Some(vm) if vm.path().exists() => locked(vm.path(), || if shim_lives(dir) { Ok(false) } else { end() }),
        _ => end(),
    }
}
