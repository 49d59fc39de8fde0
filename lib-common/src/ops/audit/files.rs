//! Directories and files: VMs, images, staging, runtime directories, temporary files.

use super::{Found, Remedy, age_ms, finding};
use crate::build::slot::{TEMP_PREFIX, lock_of};
use crate::doc::{Disks, Document, ImageRef, Kernel, Kind, Rootfs, Seed, ShimState, Undo, strict};
use crate::error::{Error, Result};
use crate::store::{Journal, MachineDir, Store, id_of, read_record};
use crate::sys::lock::is_held;
use crate::sys::process::ProcessId;
use std::path::{Path, PathBuf};

/// VMs that are half made, damaged, or miss files.
pub fn machines(store: &Store) -> Result<Vec<Found>> {
    let mut found = vec![];
    for path in children(&store.machines_dir())? {
        if is_held(&path.join("lock")) {
            continue;
        }
        let id = path.display().to_string();
        if let Some(evidence) = unfinished(&path) {
            found.push(Found { finding: owned(finding("machine", id, evidence), &path), remedy: Remedy::Undo(path) });
            continue;
        }
        match read_record(&path.join("machine.json"), Kind::Machine) {
            Ok(Some(doc)) => found.extend(missing_files(&path, &doc)),
            Ok(None) => {
                let found_dir = owned(finding("machine", id, "it has no record, and nobody is making it"), &path);
                found.push(Found { finding: found_dir, remedy: Remedy::Undo(path) });
            }
            // A bad record isolates its own VM, and is kept: somebody may mend it.
            Err(e) => {
                let mut f = owned(finding("machine", id, said(&e)), &path);
                f.fix = format!("mend {}, or remove the VM: bg-vm rm {}", path.join("machine.json").display(), f.owner);
                found.push(Found { finding: f, remedy: Remedy::Report });
            }
        }
    }
    Ok(found)
}

/// Images that are half made, damaged, or miss files.
pub fn images(store: &Store) -> Result<Vec<Found>> {
    let mut found = vec![];
    for path in children(&store.images_dir())?.into_iter().filter(|p| p.is_dir()) {
        if is_held(&path.join("lock")) {
            continue;
        }
        let id = path.display().to_string();
        match read_record(&path.join("image.json"), Kind::Image) {
            Ok(Some(doc)) => {
                for file in image_files(&doc).into_iter().filter(|f| !f.exists()) {
                    let mut f = owned(finding("image", id.clone(), format!("{} is missing", file.display())), &path);
                    f.fix = "build it again and register it with --replace".into();
                    found.push(Found { finding: f, remedy: Remedy::Report });
                }
            }
            Ok(None) => {
                let f = owned(finding("image", id, "it has no record"), &path);
                found.push(Found { finding: f, remedy: Remedy::RemoveDir(path) });
            }
            Err(e) => {
                let mut f = owned(finding("image", id, said(&e)), &path);
                f.fix = format!("mend it, or remove the image: bg-image rm {}", f.owner);
                found.push(Found { finding: f, remedy: Remedy::Report });
            }
        }
    }
    Ok(found)
}

/// What was being made or removed by a process that is gone.
pub fn staging(store: &Store) -> Result<Vec<Found>> {
    let abandoned = children(&store.staging_dir())?.into_iter().filter(|p| !is_held(&p.join("lock")));
    Ok(abandoned
        .map(|path| {
            let what = Journal::in_dir(&path).open_operation().ok().flatten();
            let evidence = match what {
                Some(open) => format!("the operation `{}` was not finished, and its process is gone", open.operation),
                None => "its removal was not finished".into(),
            };
            let mut f = finding("staging", path.display().to_string(), evidence);
            f.age_ms = age_ms(&path);
            Found { finding: f, remedy: Remedy::RemoveDir(path) }
        })
        .collect())
}

/// Runtime directories without a living shim, or whose VM the store does not know.
pub fn runtime(store: &Store) -> Result<Vec<Found>> {
    let known = known_runtime_dirs(store)?;
    let mut found = vec![];
    for path in children(store.runtime_dir())?.into_iter().filter(|p| p.is_dir()) {
        let state = std::fs::read_to_string(path.join("shim.json")).ok().and_then(|t| strict::<ShimState>(&t).ok());
        let alive = state.as_ref().is_some_and(|s| ProcessId::from(s.shim.clone()).is_alive());
        let owner = known.iter().find(|(dir, _)| *dir == path).map(|(_, name)| name.clone());
        let evidence = match (alive, &owner) {
            (true, Some(_)) => continue,
            (true, None) => "a VM runs here that the store does not know",
            (false, _) => "no VM runs here any more",
        };
        // The VM's own lock is held while it is being started or ended.
        if owner.as_ref().is_some_and(|name| is_held(&store.machines_dir().join(name).join("lock"))) {
            continue;
        }
        let mut f = finding("runtime_dir", path.display().to_string(), evidence);
        f.owner = owner.or_else(|| state.map(|s| s.machine_id)).unwrap_or_default();
        f.age_ms = age_ms(&path);
        found.push(Found { finding: f, remedy: Remedy::EndRuntime(path) });
    }
    Ok(found)
}

/// Temporary files of saves, and temporary directories of builds, whose maker is gone.
pub fn temporary(store: &Store, cache: &Path) -> Result<Vec<Found>> {
    let mut places = vec![store.state_dir().to_owned(), store.state_dir().join("ssh")];
    places.extend(children(&store.machines_dir())?);
    places.extend(children(&store.images_dir())?.into_iter().filter(|p| p.is_dir()));
    places.extend(["image", "kernel", "rootfs", "seed"].map(|d| cache.join(d)));
    let mut found = vec![];
    for place in places {
        let names = children(&place)?.into_iter();
        for path in names.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(TEMP_PREFIX))) {
            // A build that runs has its temporary directory for minutes: its lock beside it tells.
            if is_held(&lock_of(&path)) || is_held(&place.join("lock")) {
                continue;
            }
            let mut f =
                finding("file", path.display().to_string(), "a temporary file, left by a process that was killed");
            f.age_ms = age_ms(&path);
            let remedy = if path.is_dir() { Remedy::RemoveDir(path) } else { Remedy::RemoveFile(path) };
            found.push(Found { finding: f, remedy });
        }
    }
    Ok(found)
}

/// Each VM's runtime directory and name: by the records, and by the journals of those that have none yet.
pub(super) fn known_runtime_dirs(store: &Store) -> Result<Vec<(PathBuf, String)>> {
    let mut known = vec![];
    for name in store.machine_names()? {
        let machine: MachineDir = store.machine_dir(&name);
        if let Ok(dir) = machine.document().and_then(|doc| machine.runtime_dir(&id_of(&doc)?)) {
            known.push((dir.to_path_buf(), name.to_string()));
        }
        let open = machine.journal().open_operation().ok().flatten();
        for undo in open.into_iter().flat_map(|o| o.undo) {
            if let Undo::StopVm { runtime_dir } = undo {
                known.push((runtime_dir.to_path_buf(), name.to_string()));
            }
        }
    }
    Ok(known)
}

fn unfinished(path: &Path) -> Option<String> {
    match Journal::in_dir(path).open_operation() {
        Ok(Some(open)) => Some(format!("the operation `{}` was not finished, and its process is gone", open.operation)),
        _ => None,
    }
}

fn missing_files(path: &Path, doc: &Document) -> Vec<Found> {
    let disks = doc.section::<Disks>().ok().flatten();
    let files = disks.into_iter().flat_map(|d| [d.root.path.to_path_buf(), d.work.path.to_path_buf()]);
    let boot = doc.section::<ImageRef>().ok().flatten().map(|_| [path.join("vmlinux"), path.join("initrd")]);
    let missing = files.chain(boot.into_iter().flatten()).filter(|f| !f.exists());
    missing
        .map(|file| {
            let mut f = finding("machine", path.display().to_string(), format!("{} is missing", file.display()));
            f = owned(f, path);
            f.fix = format!("bg-vm rm {}", f.owner);
            Found { finding: f, remedy: Remedy::Report }
        })
        .collect()
}

fn image_files(doc: &Document) -> Vec<PathBuf> {
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

fn owned(mut f: crate::doc::Finding, path: &Path) -> crate::doc::Finding {
    f.owner = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    f.age_ms = age_ms(path);
    f
}

fn said(e: &Error) -> String {
    let causes = e.causes().iter().map(|c| format!(": {c}")).collect::<String>();
    format!("{}{causes}", e.message())
}

/// What a directory holds, but for names that begin with a dot and are no temporary files; empty where it is missing.
fn children(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(Error::io("list", dir, &e)),
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| is_ours(p)).collect();
    paths.sort();
    Ok(paths)
}

fn is_ours(path: &Path) -> bool {
    path.file_name().is_some_and(|n| {
        let n = n.to_string_lossy();
        !n.starts_with('.') || n.starts_with(TEMP_PREFIX)
    })
}
