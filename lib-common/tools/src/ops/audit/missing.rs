//! Files that a VM's record names and that are missing, or lie elsewhere. As long as one of its disks is there, nothing that is
//! printed removes the VM: the kernel is its image's, and a disk may be put back.

use super::files::of_dir;
use super::{Found, Remedy, fix};
use lib_common::doc::{Disks, Document, ImageRef, Kernel};
use lib_common::error::{Error, Result, looked_at};
use lib_common::sys::owned;
use lib_machine::store::Store;
use std::path::{Path, PathBuf};

/// What is missing of a VM.
///
/// # Errors
/// What keeps its directory from being looked into.
pub fn files(store: &Store, path: &Path, doc: &Document) -> Result<Vec<Found>> {
    let disks: Vec<PathBuf> = disks_of(doc);
    let mut found = vec![];
    for disk in &disks {
        found.extend(missing_disk(path, disk, &disks)?);
    }
    if let Ok(Some(image)) = doc.section::<ImageRef>() {
        for name in ["vmlinux", "initrd"] {
            found.extend(missing_boot_file(store, path, &image, name)?);
        }
    }
    Ok(found)
}

fn disks_of(doc: &Document) -> Vec<PathBuf> {
    let disks = doc.section::<Disks>().ok().flatten();
    disks.into_iter().flat_map(|d| [d.root.path.to_path_buf(), d.work.path.to_path_buf()]).collect()
}

/// How a file is missing: of what is no plain file in the VM's directory is told with all that is in there.
enum Missing {
    Gone,
    Elsewhere,
    Refused(Error),
}

fn how(path: &Path, file: &Path) -> Result<Option<Missing>> {
    let is_inside = file.parent() == Some(path);
    Ok(match looked_at(owned::is_file(file))? {
        Ok(true) => (!is_inside).then_some(Missing::Elsewhere),
        Ok(false) => Some(Missing::Gone),
        Err(e) => (!is_inside).then_some(Missing::Refused(e)),
    })
}

fn missing_disk(path: &Path, disk: &Path, disks: &[PathBuf]) -> Result<Option<Found>> {
    let Some(how) = how(path, disk)? else { return Ok(None) };
    let (evidence, fix) = match how {
        Missing::Gone => without_disk(path, disk, disks),
        Missing::Elsewhere => {
            let then = format!("see why it is not in the VM's directory, {}", fix::word(path));
            (format!("{} is not in its directory", disk.display()), fix::look_at(disk, &then))
        }
        Missing::Refused(e) => (e.with_causes(), fix::refused(disk)),
    };
    Ok(Some(damage(path, evidence, fix)))
}

/// What is still there of the disks is somebody's work.
fn without_disk(path: &Path, disk: &Path, disks: &[PathBuf]) -> (String, String) {
    let left: Vec<String> = disks.iter().filter(|disk| disk.symlink_metadata().is_ok()).map(|d| name_of(d)).collect();
    let (gone, left) = (format!("{} is missing", disk.display()), left.join(", "));
    if left.is_empty() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let then = fix::or_remove("both disks are missing: put them back from a backup", "bg-vm rm", &name);
        return (gone, fix::look_into(path, &then));
    }
    let then = "put the missing disk back from a backup: removing the VM removes the other one, too";
    (format!("{gone}; still there: {left}"), fix::look_into(path, then))
}

/// The kernel or the initrd, which a VM shares with its image.
fn missing_boot_file(store: &Store, path: &Path, image: &ImageRef, name: &str) -> Result<Option<Found>> {
    let file = path.join(name);
    let Some(Missing::Gone) = how(path, &file)? else { return Ok(None) };
    let fix = match original(store, image, name) {
        Some(from) => format!("cp --reflink=auto -n {} {}", fix::word(&from), fix::word(&file)),
        None => {
            let then = format!("the image {} has another one, or is not there: put it back from a backup", image.name);
            fix::look_into(path, &then)
        }
    };
    Ok(Some(damage(path, format!("{} is missing", file.display()), fix)))
}

/// The file of the VM's image, where that is still the one that the VM was made of.
fn original(store: &Store, image: &ImageRef, name: &str) -> Option<PathBuf> {
    let now = store.image(&image.name).ok()?.section::<Kernel>().ok()??;
    let is_same = now.digests.get(name)? == image.kernel.digests.get(name)?;
    let file = if name == "vmlinux" { now.vmlinux } else { now.initrd };
    (is_same && owned::is_file(&file).is_ok_and(|is_there| is_there)).then(|| file.to_path_buf())
}

fn damage(path: &Path, evidence: String, fix: String) -> Found {
    let mut f = of_dir("machine", path, evidence);
    f.fix = fix;
    Found { finding: f, remedy: Remedy::Report }
}

fn name_of(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
