//! Directories and files: VMs, images, staging, runtime directories, temporary files.

use super::{Found, Remedy, age_ms, finding, outlast_the_making};
use crate::build::slot::{TEMP_PREFIX, lock_of};
use crate::doc::{Disks, Document, Finding, ImageRef, Kernel, Kind, Name, Rootfs, Seed, ShimState, Undo, strict};
use crate::error::{Error, Result};
use crate::store::{Journal, MachineDir, OpenOperation, Store, id_of, read_record};
use crate::sys::lock::{Glance, glance, is_held};
use crate::sys::process::ProcessId;
use std::path::{Path, PathBuf};

/// VMs that are half made, damaged, or miss files.
pub fn machines(store: &Store) -> Result<Vec<Found>> {
    let mut found = vec![];
    for path in children(&store.machines_dir())?.into_iter().filter(|p| is_dir(p)) {
        // Held while we look, so that nothing begins or ends between the journal and the record.
        let Some(_look) = glance(&path.join("lock")) else { continue };
        let finding = |evidence: String| owned("machine", &path, evidence);
        let damaged = |e: &Error, file: &str| {
            let mut f = finding(e.with_causes());
            f.fix = format!("mend {}, or remove the VM: bg-vm rm {}", path.join(file).display(), f.owner);
            Found { finding: f, remedy: Remedy::Report }
        };
        match Journal::in_dir(&path).open_operation() {
            Ok(None) => {}
            Ok(Some(open)) => {
                found.push(Found { finding: finding(unfinished(&open)), remedy: Remedy::Machine(path.clone()) });
                continue;
            }
            Err(e) => found.push(damaged(&e, "journal")),
        }
        match read_record(&path.join("machine.json"), Kind::Machine) {
            Ok(Some(doc)) => found.extend(missing_files(&path, &doc)),
            Ok(None) => {
                let f = finding("it has no record, and nobody is making it".into());
                found.push(Found { finding: f, remedy: Remedy::Machine(path) });
            }
            // A bad record isolates its own VM, and is kept: somebody may mend it.
            Err(e) => found.push(damaged(&e, "machine.json")),
        }
    }
    Ok(found)
}

/// Images that are damaged or miss files.
pub fn images(store: &Store) -> Result<Vec<Found>> {
    let mut found = vec![];
    for path in children(&store.images_dir())?.into_iter().filter(|p| is_dir(p)) {
        let finding = |evidence: String| owned("image", &path, evidence);
        match read_record(&path.join("image.json"), Kind::Image) {
            Ok(Some(doc)) => {
                for file in image_files(&doc).into_iter().filter(|f| !f.exists()) {
                    // An image that was replaced or removed meanwhile misses nothing.
                    if !same_record(&path, &doc) {
                        break;
                    }
                    let mut f = finding(format!("{} is missing", file.display()));
                    f.fix = "build it again and register it with --replace".into();
                    found.push(Found { finding: f, remedy: Remedy::Report });
                }
            }
            Ok(None) if !path.is_dir() => {}
            Ok(None) => {
                found.push(Found { finding: finding("it has no record".into()), remedy: Remedy::Image(path) });
            }
            Err(e) => {
                let mut f = finding(e.with_causes());
                f.fix = format!("mend it, or remove the image: bg-image rm {}", f.owner);
                found.push(Found { finding: f, remedy: Remedy::Report });
            }
        }
    }
    Ok(found)
}

/// Seeds that no record names: they were being put into an image, or replaced there.
pub fn seeds(store: &Store) -> Result<Vec<Found>> {
    // Whoever does that holds this lock.
    let Some(_look) = glance(&store.images_dir().join(".lock")) else { return Ok(vec![]) };
    let mut found = vec![];
    for image in children(&store.images_dir())?.into_iter().filter(|p| is_dir(p) && p.join("image.json").exists()) {
        for path in children(&image)?.into_iter().filter(|p| is_seed(p)).filter(|p| !is_named(p)) {
            let mut f = finding("file", path.display().to_string(), "a seed that its image does not name");
            f.owner = image.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            f.age_ms = age_ms(&path);
            found.push(Found { finding: f, remedy: Remedy::Seed(path) });
        }
    }
    Ok(found)
}

/// Whether it is a work seed, by its name.
pub(super) fn is_seed(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seed-"))
}

/// Whether the record of the image in whose directory a file lies names it; a record that cannot be read may.
pub(super) fn is_named(file: &Path) -> bool {
    let record = file.with_file_name("image.json");
    read_record(&record, Kind::Image)
        .map_or(true, |doc| doc.is_none_or(|doc| image_files(&doc).iter().any(|f| f == file)))
}

fn same_record(path: &Path, doc: &Document) -> bool {
    let now = read_record(&path.join("image.json"), Kind::Image);
    matches!(now, Ok(Some(now)) if now.to_line() == doc.to_line())
}

/// What was being made or removed by a process that is gone.
pub fn staging(store: &Store) -> Result<Vec<Found>> {
    let mut found = vec![];
    for path in children(&store.staging_dir())?.into_iter().filter(|p| !p.is_symlink()) {
        outlast_the_making(&path, || std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some()))?;
        if is_held(&path.join("lock")) || !path.exists() {
            continue;
        }
        let evidence = match Journal::in_dir(&path).open_operation() {
            Ok(Some(open)) => unfinished(&open),
            _ => "its removal was not finished".into(),
        };
        let mut f = finding("staging", path.display().to_string(), evidence);
        f.age_ms = age_ms(&path);
        found.push(Found { finding: f, remedy: Remedy::Staged(path) });
    }
    Ok(found)
}

/// Runtime directories without a living shim, or whose VM the store does not know.
pub fn runtime(store: &Store) -> Result<Vec<Found>> {
    // First the directories, then who they belong to: a VM is in the store before it has one.
    let dirs = children(store.runtime_dir())?;
    let known = known_runtime_dirs(store)?;
    let mut found = vec![];
    for path in dirs.into_iter().filter(|p| is_dir(p)) {
        let owner = known.iter().find(|(dir, _)| *dir == path).map(|(_, name)| name.clone());
        // The VM's own lock is held while it is being started or ended.
        let Some(_look) = look_at(store, owner.as_ref()) else { continue };
        let evidence = match (shim_lives(&path), &owner) {
            (true, Some(_)) => continue,
            (true, None) => "a VM runs here that the store does not know",
            // A VM that has just ended takes its directory with it.
            (false, _) if !path.exists() => continue,
            (false, _) => "no VM runs here any more",
        };
        let mut f = finding("runtime_dir", path.display().to_string(), evidence);
        let id = shim_state(&path).map(|s| s.machine_id);
        f.owner = owner.as_ref().map(Name::to_string).or(id).unwrap_or_default();
        f.age_ms = age_ms(&path);
        found.push(Found { finding: f, remedy: Remedy::Runtime(path, owner) });
    }
    Ok(found)
}

/// Whether the shim whose runtime directory this is lives.
pub(super) fn shim_lives(dir: &Path) -> bool {
    shim_state(dir).is_some_and(|s| ProcessId::from(s.shim).is_alive())
}

/// What the shim says of its processes.
pub(super) fn shim_state(dir: &Path) -> Option<ShimState> {
    strict(&std::fs::read_to_string(dir.join("shim.json")).ok()?).ok()
}

/// A look at a VM; `None` while its lock is held: then its processes come and go.
pub(super) fn look_at(store: &Store, name: Option<&Name>) -> Option<Option<Glance>> {
    match name {
        Some(name) => glance(&store.machine_dir(name).file("lock")).map(Some),
        None => Some(None),
    }
}

/// Temporary files of saves, and temporary directories of builds, whose maker is gone.
pub fn temporary(store: &Store, cache: &Path) -> Result<Vec<Found>> {
    let mut places = vec![store.state_dir().to_owned(), store.state_dir().join("ssh")];
    places.extend(children(&store.machines_dir())?.into_iter().filter(|p| is_dir(p)));
    places.extend(children(&store.images_dir())?.into_iter().filter(|p| is_dir(p)));
    places.extend(["image", "kernel", "rootfs", "seed"].map(|d| cache.join(d)));
    let mut found = vec![];
    for place in places {
        let names = children(&place)?.into_iter();
        for path in names.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(TEMP_PREFIX))) {
            // A build that runs has its temporary directory for minutes: its lock beside it tells.
            let locks = [lock_of(&path), place.join("lock")];
            outlast_the_making(&path, || locks.iter().any(|lock| lock.exists()))?;
            if locks.iter().any(|lock| is_held(lock)) || !path.exists() {
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

/// Each VM's runtime directory and name: by the journals, for those that have no record yet, and by the records. In this
/// order, since a creation saves its record and then ends in the journal.
pub(super) fn known_runtime_dirs(store: &Store) -> Result<Vec<(PathBuf, Name)>> {
    let mut known = vec![];
    for name in store.machine_names()? {
        let machine: MachineDir = store.machine_dir(&name);
        let open = machine.journal().open_operation().ok().flatten();
        for undo in open.into_iter().flat_map(|o| o.undo) {
            if let Undo::StopVm { runtime_dir } = undo {
                known.push((runtime_dir.to_path_buf(), name.clone()));
            }
        }
        if let Ok(dir) = machine.document().and_then(|doc| machine.runtime_dir(&id_of(&doc)?)) {
            known.push((dir.to_path_buf(), name));
        }
    }
    Ok(known)
}

fn unfinished(open: &OpenOperation) -> String {
    format!("the operation `{}` was not finished, and its process is gone", open.operation)
}

fn missing_files(path: &Path, doc: &Document) -> Vec<Found> {
    let disks = doc.section::<Disks>().ok().flatten();
    let files = disks.into_iter().flat_map(|d| [d.root.path.to_path_buf(), d.work.path.to_path_buf()]);
    let boot = doc.section::<ImageRef>().ok().flatten().map(|_| [path.join("vmlinux"), path.join("initrd")]);
    let missing = files.chain(boot.into_iter().flatten()).filter(|f| !f.exists());
    missing
        .map(|file| {
            let mut f = owned("machine", path, format!("{} is missing", file.display()));
            f.fix = format!("bg-vm rm {}", f.owner);
            Found { finding: f, remedy: Remedy::Report }
        })
        .collect()
}

pub(super) fn image_files(doc: &Document) -> Vec<PathBuf> {
    let mut files = vec![];
    if let Ok(Some(kernel)) = doc.section::<Kernel>() {
        files.extend([kernel.vmlinux.to_path_buf(), kernel.initrd.to_path_buf()]);
        files.extend(kernel.modules.map(|m| m.to_path_buf()));
    }
    if let Ok(Some(rootfs)) = doc.section::<Rootfs>() {
        files.extend([rootfs.path.to_path_buf(), rootfs.manifest.to_path_buf()]);
    }
    if let Ok(Some(seed)) = doc.section::<Seed>() {
        files.extend(seed.sizes.iter().map(|s| s.path.to_path_buf()));
    }
    files
}

/// A finding of a directory whose name is its owner's.
pub(super) fn owned(kind: &str, path: &Path, evidence: String) -> Finding {
    let mut f = finding(kind, path.display().to_string(), evidence);
    f.owner = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    f.age_ms = age_ms(path);
    f
}

/// What a directory holds, but for names that begin with a dot and are no temporary files; empty where it is missing.
pub(super) fn children(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(Error::io("list", dir, &e)),
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| is_ours(p)).collect();
    paths.sort();
    Ok(paths)
}

/// Whether it is a directory, and no link to one: those are [`super::strangers`].
pub(super) fn is_dir(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

fn is_ours(path: &Path) -> bool {
    path.file_name().is_some_and(|n| {
        let n = n.to_string_lossy();
        !n.starts_with('.') || n.starts_with(TEMP_PREFIX)
    })
}
