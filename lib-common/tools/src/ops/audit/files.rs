//! Directories and files that belong to no record: staging, runtime directories, sockets, temporary files.

use super::machines::{is_confined, unfinished};
use super::{Found, Remedy, age_ms, finding, fix, outlast_the_making};
use lib_common::doc::{Finding, Name, ShimState};
use lib_common::error::{Error, Result, looked_at, sound};
use lib_common::sys::dirs::list;
use lib_common::sys::fs::TEMP_PREFIX;
use lib_common::sys::lock::{Glance, glance, is_held};
use lib_common::sys::owned;
use lib_image::build::slot::lock_of;
use lib_machine::config::Config;
use lib_machine::net::give_back_all;
use lib_machine::store::vm_lock::{self, Held};
use lib_machine::store::{Journal, Store, id_of, started_by};
use lib_machine::vmm::files;
use std::path::{Path, PathBuf};

/// Names in the runtime directory that are no VM's: the networks of namespaces, which are looked at by themselves.
const NET: &str = "net";

/// What was being made or removed by a process that is gone.
pub fn staging(store: &Store, config: &Config) -> Result<Vec<Found>> {
    let mut found = vec![];
    for path in children(&store.staging_dir())? {
        // Nothing is looked up behind a link, and no lock taken there.
        match owned::is_dir(&store.staging_dir(), path.file_name().unwrap_or_default()) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(e) => {
                found.push(refused("staging", &path, e)?);
                continue;
            }
        }
        outlast_the_making(&path, || Ok(!list(&path)?.is_empty()))?;
        if is_held(&path.join("lock"))? || !path.exists() {
            continue;
        }
        let evidence = match Journal::in_dir(&path, give_back_all).open_operation() {
            Ok(Some(open)) if is_confined(store, config, &open) => unfinished(&open),
            Ok(Some(open)) => format!("{}; it names what is not in our directories, and stays", unfinished(&open)),
            _ => "its removal was not finished".into(),
        };
        let mut f = finding("staging", path.display().to_string(), evidence);
        f.age_ms = age_ms(&path);
        found.push(Found { finding: f, remedy: Remedy::Staged(path) });
    }
    Ok(found)
}

/// What is in the runtime directory. Listed before anybody asks to whom it belongs: a VM is in the store before it has any.
pub fn runtime_dirs(store: &Store) -> Result<Vec<PathBuf>> {
    children(store.runtime_dir())
}

/// Runtime directories without a living shim, or whose VM the store does not know; sockets that a living one lacks.
pub fn runtime(store: &Store, dirs: Vec<PathBuf>, known: &[(PathBuf, Name)]) -> Result<Vec<Found>> {
    let mut found = vec![];
    for path in dirs {
        let name = path.file_name().unwrap_or_default();
        match owned::is_dir(store.runtime_dir(), name) {
            Ok(true) if name != NET => {}
            Ok(_) => continue,
            Err(e) => {
                found.push(refused("runtime_dir", &path, e)?);
                continue;
            }
        }
        let owner = known.iter().find(|(dir, _)| *dir == path).map(|(_, name)| name.clone());
        // Its lock is held while it is being started or ended.
        let Some(_look) = look_at(store, owner.as_ref())? else { continue };
        if runs_elsewhere(store, &path, owner.as_ref())? {
            continue;
        }
        let evidence = match (shim_lives(&path)?, &owner) {
            (true, Some(name)) => {
                found.extend(lost_socket(&path, name)?);
                continue;
            }
            (true, None) if is_of_another_store(store, &path)? => {
                found.push(anothers(&path)?);
                continue;
            }
            (true, None) => "a VM runs here that the store does not know",
            // A VM that has just ended takes its directory with it.
            (false, _) if !path.exists() => continue,
            // Its processes tell of it.
            (false, Some(name)) if lost(store, name)?.is_some() => continue,
            (false, _) => "no VM runs here any more",
        };
        let mut f = finding("runtime_dir", path.display().to_string(), evidence);
        let id = shim_state(&path)?.map(|s| s.machine_id);
        f.owner = owner.as_ref().map(Name::to_string).or(id).unwrap_or_default();
        f.age_ms = age_ms(&path);
        found.push(Found { finding: f, remedy: Remedy::Runtime(path, owner) });
    }
    Ok(found)
}

/// Whether the VM of a runtime directory runs in another pid namespace: nothing is wrong with it, and its pids mean nothing here.
pub(super) fn runs_elsewhere(store: &Store, dir: &Path, owner: Option<&Name>) -> Result<bool> {
    let machine = machine_of(store, dir, owner)?;
    Ok(machine.map(|machine| vm_lock::held(&machine)).transpose()? == Some(Held::Elsewhere))
}

/// The directory of the VM whose runtime directory this is: its owner's, else the one that its starter wrote there.
pub(super) fn machine_of(store: &Store, dir: &Path, owner: Option<&Name>) -> Result<Option<PathBuf>> {
    match owner {
        Some(name) => Ok(Some(store.machine_dir(name).path().to_owned())),
        None => started_by(dir),
    }
}

/// The processes of a VM that runs and whose runtime directory does not say so.
pub(super) fn lost(store: &Store, name: &Name) -> Result<Option<ShimState>> {
    let machine = store.machine_dir(name);
    // Whether there is a record, and what it says, is looked at by itself.
    let Ok(id) = looked_at(machine.document().and_then(|doc| id_of(&doc)))? else { return Ok(None) };
    machine.lost(&id)
}

/// Whether the VM that was started in a runtime directory is in another state directory, and is there: the two share the
/// runtime directory.
pub(super) fn is_of_another_store(store: &Store, dir: &Path) -> Result<bool> {
    Ok(started_by(dir)?.is_some_and(|machine| {
        machine.parent() != Some(&*store.machines_dir()) && machine.join("journal").symlink_metadata().is_ok()
    }))
}

/// Shown, and never a leak of this store.
fn anothers(dir: &Path) -> Result<Found> {
    let machine = started_by(dir)?.unwrap_or_default();
    let evidence = format!("the VM of another state directory runs here: {}", machine.display());
    let mut f = finding("runtime_dir", dir.display().to_string(), evidence);
    f.owner = machine.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    f.age_ms = age_ms(dir);
    let state = fix::word(machine.ancestors().nth(2).unwrap_or(Path::new("/")));
    f.fix = format!("BG_STATE_DIR={state} bg-verify  # nothing is wrong with it: this audits its store");
    Ok(Found { finding: f, remedy: Remedy::Report })
}

/// The socket by which a running VM is reached, where it is gone: it has one name before its guest is up and another after,
/// and none for a moment while its guest reboots.
fn lost_socket(dir: &Path, owner: &Name) -> Result<Option<Found>> {
    let socket = dir.join(files::VSOCK);
    // The first becomes the second.
    let is_there = || [files::VSOCK_EARLY, files::VSOCK].iter().any(|name| dir.join(name).symlink_metadata().is_ok());
    super::wait_until(super::JUST_ENDING, || {
        Ok(is_there() || !shim_lives(dir)? || shim_state(dir)?.is_some_and(|s| s.vmm.is_none()))
    })
    .map(|settled| {
        (!settled).then(|| {
            let evidence = format!("the VM `{owner}` runs, and cannot be reached: {} is gone", socket.display());
            let mut f = finding("socket", socket.display().to_string(), evidence);
            f.owner = owner.to_string();
            f.age_ms = age_ms(dir);
            f.fix = format!("bg-vm restart {owner}");
            Found { finding: f, remedy: Remedy::Report }
        })
    })
}

/// Whether the shim whose runtime directory this is lives.
pub(super) fn shim_lives(dir: &Path) -> Result<bool> {
    Ok(looked_at(lib_machine::store::shim_lives(dir))?.unwrap_or(false))
}

/// What the shim says of its processes; `None` where nothing is, or nothing that a shim wrote.
///
/// # Errors
/// What keeps it from being read: then nobody knows whether a VM runs.
pub(super) fn shim_state(dir: &Path) -> Result<Option<ShimState>> {
    sound(lib_machine::store::shim_state(dir))
}

/// A look at a VM; `None` while its lock is held: then its processes come and go.
pub(super) fn look_at(store: &Store, name: Option<&Name>) -> Result<Option<Option<Glance>>> {
    match name {
        Some(name) => Ok(glance(&store.machine_dir(name).file("lock"))?.map(Some)),
        None => Ok(Some(None)),
    }
}

/// Temporary files of saves, and temporary directories of builds, whose maker is gone.
pub fn temporary(store: &Store, cache: &Path) -> Result<Vec<Found>> {
    let mut places = vec![store.state_dir().to_owned(), store.state_dir().join("ssh")];
    places.extend(children(&store.machines_dir())?);
    places.extend(children(&store.images_dir())?);
    places.extend(["image", "kernel", "rootfs", "seed", "downloads", "xbps"].map(|d| cache.join(d)));
    let mut found = vec![];
    // What is no plain directory of ours is told elsewhere, and nothing is removed behind it.
    for place in places {
        if !matches!(looked_at(owned::is_dir(&place, ""))?, Ok(true)) {
            continue;
        }
        let names = children(&place)?.into_iter();
        for path in names.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(TEMP_PREFIX))) {
            outlast_the_making(&path, || is_being_written(&path))?;
            if is_being_written(&path)? || path.symlink_metadata().is_err() {
                continue;
            }
            let mut f =
                finding("file", path.display().to_string(), "a temporary file, left by a process that was killed");
            f.age_ms = age_ms(&path);
            found.push(Found { finding: f, remedy: Remedy::Temporary(path) });
        }
    }
    Ok(found)
}

/// Whether whoever makes a temporary file or directory is still at it: a file's writer has its lock, and a build has one beside
/// its directory, or that of the place.
pub(super) fn is_being_written(path: &Path) -> Result<bool> {
    let place = path.parent().unwrap_or(path);
    Ok(is_held(path)? || is_held(&lock_of(path))? || is_held(&place.join("lock"))?)
}

/// A finding of a directory whose name is its owner's.
pub(super) fn of_dir(kind: &str, path: &Path, evidence: String) -> Finding {
    let mut f = finding(kind, path.display().to_string(), evidence);
    f.owner = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    f.age_ms = age_ms(path);
    f
}

/// A thing that is not a plain one of the caller's: reported, and left alone.
///
/// # Errors
/// The error itself, if it does not say what the thing is.
pub(super) fn refused(kind: &str, path: &Path, e: Error) -> Result<Found> {
    if e.is_blind() {
        return Err(e);
    }
    let mut f = of_dir(kind, path, e.with_causes());
    f.fix = fix::refused(path);
    Ok(Found { finding: f, remedy: Remedy::Report })
}

/// What a directory holds, but for names that begin with a dot and are no temporary files; empty where it is missing.
pub(super) fn children(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = list(dir)?.into_iter().map(|e| e.path()).filter(|p| is_ours(p)).collect();
    paths.sort();
    Ok(paths)
}

fn is_ours(path: &Path) -> bool {
    path.file_name().is_some_and(|n| {
        let n = n.to_string_lossy();
        !n.starts_with('.') || n.starts_with(TEMP_PREFIX)
    })
}
