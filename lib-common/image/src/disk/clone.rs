//! A VM's disks: a clone of the image's root file system, and a work disk. Chooses the cheapest way that gives the size
//! that was asked for.

use super::ext4;
use super::look;
use super::seed::{Home, check_file_system};
use super::untrusted::Unread;
use lib_common::doc::{AbsPath, Check, CloneMethod, Disk, Disks, ImageRef, Name, SeedSize, Spec};
use lib_common::error::{Code, Context, Error, Result};
use lib_common::size::bytes;
use lib_common::sys::fs::{allocated_bytes, clone_file};
use lib_common::timing::Stages;
use std::path::Path;

/// The root disk's file in a VM's directory.
pub const ROOT_FILE: &str = "root.ext4";
/// The work disk's file.
pub const WORK_FILE: &str = "work.ext4";

/// Makes both disks in `dir`. The caller asks afterwards whether the image is still the same, and removes `dir` if it is
/// not or if this fails. Nothing is fsync'ed: until the VM's record is saved there is no VM to lose.
///
/// Stages: `clone_root`, `grow_root`, `clone_work`, `grow_work` or `make_work`, as needed.
///
/// Errors: [`Code::BadValue`] for a size that is smaller than the image or cannot be, [`Code::MissingFile`],
/// [`Code::BadInput`] for a damaged image.
pub fn clone_disks(image: &ImageRef, spec: &Spec, dir: &Path, stages: &mut Stages) -> Result<Disks> {
    let root_bytes = root_size(image, spec)?;
    ext4::check_size(spec.work_bytes).context("the work disk cannot be made")?;
    let root = clone_root(image, root_bytes, &dir.join(ROOT_FILE), stages)?;
    let work = make_work(image, spec.work_bytes, &dir.join(WORK_FILE), stages)?;
    Ok(Disks { root, work })
}

/// The root disk's size: the image's own unless a larger one was asked for.
fn root_size(image: &ImageRef, spec: &Spec) -> Result<u64> {
    let own = image.rootfs.size_bytes;
    match spec.root_bytes {
        0 => Ok(own),
        size if size < own => {
            let (own, size) = (bytes(own), bytes(size));
            let message = format!("the image `{}` has {own}, its root disk cannot have {size}", image.name);
            Err(Error::new(Code::BadValue, message).hint("leave the size out to take the image's own"))
        }
        size => ext4::check_size(size).map(|()| size),
    }
}

fn clone_root(image: &ImageRef, size: u64, to: &Path, stages: &mut Stages) -> Result<Disk> {
    stages.begin("clone_root");
    let method = clone(&image.rootfs.path, to)?;
    if size > image.rootfs.size_bytes {
        stages.begin("grow_root");
        ext4::grow(to, size).context("cannot grow the root disk")?;
    }
    Ok(Disk { path: AbsPath::new(to)?, method, from_seed: None })
}

/// An exact clone, else a clone that is grown, else a new file system with the image's `/root`.
fn make_work(image: &ImageRef, size: u64, to: &Path, stages: &mut Stages) -> Result<Disk> {
    let sizes = image.seed.as_ref().map(|s| s.sizes.as_slice()).unwrap_or_default();
    let (method, from_seed) = match nearest(sizes, size) {
        Some(seed) => {
            stages.begin("clone_work");
            let method = clone(&seed.path, to)?;
            if seed.size_bytes < size {
                stages.begin("grow_work");
                ext4::grow(to, size).context("cannot grow the work disk")?;
            }
            (method, true)
        }
        None => {
            stages.begin("make_work");
            Home::read_for(&image.rootfs.path, size)?.write_to(to, size)?;
            (CloneMethod::Built, false)
        }
    };
    Ok(Disk { path: AbsPath::new(to)?, method, from_seed: Some(from_seed) })
}

/// The seed of this size, or else the largest smaller one.
fn nearest(sizes: &[SeedSize], size: u64) -> Option<&SeedSize> {
    sizes.iter().filter(|s| s.size_bytes <= size).max_by_key(|s| s.size_bytes)
}

fn clone(from: &Path, to: &Path) -> Result<CloneMethod> {
    if !from.is_file() {
        let error = Error::new(Code::MissingFile, format!("the image's disk {} is not there", from.display()));
        return Err(error
            .hint("`bg-image verify` says what the image lacks")
            .detail("path", from.display().to_string()));
    }
    Ok(clone_file(from, to)?.into())
}

/// Whether the work disk of the VM `name`, which nobody has mounted, is there and sound, and its content not nested.
///
/// Errors: [`Code::MissingProgram`], or the signal that came. What is wrong with the disk is in its check.
pub fn check_disk(path: &Path, name: &Name) -> Result<Vec<Check>> {
    if !path.is_file() {
        return Ok(vec![Check::new("file", false, format!("{} is not there", path.display()), "make the VM anew")]);
    }
    let file = Check::new("file", true, format!("{} on the host", bytes(allocated_bytes(path))), "");
    let file_system = check_file_system("file_system", path, &ext4::mend_command(path))?;
    let sound = file_system.ok;
    let mut checks = vec![file, file_system];
    // What has failed already is not looked into.
    if sound {
        checks.extend(check_nested(path, name)?);
    }
    Ok(checks)
}

/// Whether its content is nested; nothing where the disk is of a format that cannot be looked into.
fn check_nested(path: &Path, name: &Name) -> Result<Option<Check>> {
    match look::is_nested_or_unread(path) {
        Ok(nested) => {
            let seen = if nested { "its content is nested in /root/root" } else { "its content is where it belongs" };
            Ok(Some(Check::new("not_nested", !nested, seen, &format!("`bg-vm start {name}` mends it"))))
        }
        Err(Unread::Refused(e)) => {
            let seen = format!("it cannot be looked into: {}", e.with_causes());
            Ok(Some(Check::new("not_nested", false, seen, &ext4::mend_command(path))))
        }
        Err(Unread::Signal(e)) => Err(e),
        Err(Unread::Fs(_)) => Ok(None),
    }
}

#[cfg(test)]
mod tests;
