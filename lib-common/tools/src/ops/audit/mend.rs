//! Taking one found thing away. Whoever began to work on it since it was found keeps it: each remedy takes the lock that
//! the thing has, and looks once more.

use super::files::{is_being_written, lost, machine_of, shim_lives};
use super::images::is_left;
use super::leftover::is_bare;
use super::machines::{is_confined, is_right};
use super::{Found, Remedy};
use lib_common::doc::{Finding, Kind, Name};
use lib_common::error::Result;
use lib_common::sys::fs::{remove_dir, remove_file};
use lib_common::sys::lock::Lock;
use lib_common::sys::owned;
use lib_machine::config::Config;
use lib_machine::net::give_back_all;
use lib_machine::store::{Journal, Store, end_shim, read_record, remove_by_rename, started_by, vm_lock};
use std::path::Path;

/// Takes it away; false where somebody works on it by now. What is gone already is fine.
pub fn mend(store: &Store, config: &Config, found: &Found) -> Result<bool> {
    match &found.remedy {
        Remedy::Report => Ok(false),
        Remedy::Machine(dir) => locked(dir, || machine(store, config, dir)),
        Remedy::Image(dir) => {
            let _lock = store.lock_images()?;
            image(store, dir)
        }
        // One that is being removed may have lost its lock; another one in it would be in the way.
        Remedy::Seed(file) => {
            let _lock = store.lock_images()?;
            if super::images::is_named(file)? { Ok(false) } else { remove_file(file).map(|()| true) }
        }
        Remedy::KnownHosts(file) => {
            let dir = file.parent().unwrap_or(file);
            locked(dir, || known_hosts(dir, file))
        }
        // What was put in its place since is no directory of ours: nothing is looked up behind it.
        Remedy::Staged(dir) if !matches!(owned::is_dir(dir, ""), Ok(true)) => Ok(dir.symlink_metadata().is_err()),
        Remedy::Staged(dir) if !dir.join("lock").exists() => remove_dir(dir).map(|()| true),
        Remedy::Staged(dir) => locked(dir, || remove_dir(dir).map(|()| true)),
        Remedy::Temporary(path) => temporary(path),
        Remedy::Runtime(dir, owner) => runtime(store, dir, owner.as_ref()),
        Remedy::Network(remedy) => super::net::mend(store, config, remedy),
        Remedy::Process(process) => process.end().map(|()| true),
    }
}

/// Refuses a finding, as it was given to `bg-gc`, that is the runtime directory of a VM of another pid namespace.
pub fn refuse_elsewhere(store: &Store, finding: &Finding) -> Result<()> {
    let dir = Path::new(&finding.id);
    if finding.kind != "runtime_dir" || dir.parent() != Some(store.runtime_dir()) {
        return Ok(());
    }
    started_by(dir)?.map_or(Ok(()), |machine| vm_lock::refuse_elsewhere(&machine))
}

/// Does it with the lock of a directory; false where somebody else has that.
fn locked(dir: &Path, work: impl FnOnce() -> Result<bool>) -> Result<bool> {
    if !owned::is_dir(dir, "")? {
        return Ok(true);
    }
    match Lock::try_take(&dir.join("lock")) {
        Ok(None) => Ok(false),
        Err(_) if !dir.exists() => Ok(true),
        lock => {
            let _lock = lock?;
            work()
        }
    }
}

fn machine(store: &Store, config: &Config, dir: &Path) -> Result<bool> {
    let journal = Journal::in_dir(dir, give_back_all);
    match journal.open_operation()? {
        Some(open) if !is_confined(store, config, &open) => Ok(false),
        // What was being made goes with it; a VM that was made before stays, even one that has lost its record.
        Some(_) => journal.undo_open().map(|()| true),
        // Somebody has put something there.
        None if !is_bare(dir)? => Ok(false),
        None => remove_by_rename(store, dir).map(|()| true),
    }
}

fn image(store: &Store, dir: &Path) -> Result<bool> {
    if !owned::is_dir(dir, "")? {
        return Ok(true);
    }
    if dir.join("image.json").exists() || !is_left(dir)? {
        return Ok(false);
    }
    remove_by_rename(store, dir).map(|()| true)
}

fn known_hosts(dir: &Path, file: &Path) -> Result<bool> {
    let record = read_record(&dir.join("machine.json"), Kind::Machine)?;
    if record.map_or(Ok(true), |doc| is_right(file, &doc))? { Ok(false) } else { remove_file(file).map(|()| true) }
}

fn temporary(path: &Path) -> Result<bool> {
    if is_being_written(path)? {
        return Ok(false);
    }
    // Of a link it is the link that goes.
    if path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
        remove_dir(path)?
    } else {
        remove_file(path)?
    }
    Ok(true)
}

fn runtime(store: &Store, dir: &Path, owner: Option<&Name>) -> Result<bool> {
    if let Some(machine) = machine_of(store, dir, owner)? {
        vm_lock::refuse_elsewhere(&machine)?;
    }
    let end = || end_shim(dir).and_then(|()| remove_dir(dir)).map(|()| true);
    match owner.map(|name| (name, store.machine_dir(name))) {
        // It may have been started by now; with its lock nobody does.
        Some((name, vm)) if vm.path().exists() => {
            locked(vm.path(), || if shim_lives(dir)? || lost(store, name)?.is_some() { Ok(false) } else { end() })
        }
        _ => end(),
    }
}
