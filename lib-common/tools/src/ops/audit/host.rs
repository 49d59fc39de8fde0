//! What the host has of our directories that banger never makes: loop devices on their files, mounts below them; and locks
//! that are held by nobody who took them. All of it is reported, and left to whoever made it.

use super::files::children;
use super::{Found, JUST_ENDING, Remedy, age_ms, finding, fix, wait_until};
use lib_common::error::Result;
use lib_common::sys::cmd::quote;
use lib_common::sys::host::{backing_files, mount_points};
use lib_common::sys::lock::{is_held, signer};
use lib_common::sys::process::{openers, stat};
use lib_common::sys::program;
use lib_machine::config::Config;
use lib_machine::store::Store;
use std::path::{Path, PathBuf};

/// The directories whose files are ours, as the kernel names them.
fn roots(store: &Store, config: &Config) -> [PathBuf; 3] {
    let real = |dir: &Path| std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    [store.state_dir(), store.runtime_dir(), &config.cache_dir].map(real)
}

/// The directory of ours below which a path is, and what is below it.
fn below<'a>(roots: &[PathBuf], path: &'a Path) -> Option<&'a Path> {
    let below = roots.iter().filter_map(|root| path.strip_prefix(root).ok());
    // Where one is in another, the inner one: `BG_CACHE_DIR` may be a directory of the state directory.
    below.min_by_key(|below| below.as_os_str().len()).filter(|below| !below.as_os_str().is_empty())
}

/// Loop devices whose backing file is one of ours: a guest's disk that the host writes to, too, is soon damaged, and one that
/// was removed takes its room as long as the device is there.
pub fn loop_devices(store: &Store, config: &Config) -> Result<Vec<Found>> {
    let roots = roots(store, config);
    let mut found = vec![];
    for (device, file) in backing_files()? {
        let Some(below) = below(&roots, &file) else { continue };
        let mut f = finding("loop", device.clone(), format!("a loop device on {}", file.display()));
        f.owner = owner(below);
        f.age_ms = age_ms(&file);
        f.fix = format!("{} -d {}  # unmount what is mounted of it first", program::typed("losetup"), quote(&device));
        found.push(Found { finding: f, remedy: Remedy::Report });
    }
    Ok(found)
}

/// Mounts below our directories, as this mount namespace has them; not of one of them itself, which may be a disk of its own.
pub fn mounts(store: &Store, config: &Config) -> Result<Vec<Found>> {
    let roots = roots(store, config);
    let mut found = vec![];
    for point in mount_points()? {
        let Some(below) = below(&roots, &point) else { continue };
        let mut f =
            finding("mount", point.display().to_string(), "something is mounted here, and banger mounts nothing");
        f.owner = owner(below);
        f.age_ms = age_ms(&point);
        f.fix = format!("umount {}", fix::word(&point));
        found.push(Found { finding: f, remedy: Remedy::Report });
    }
    Ok(found)
}

/// The VM or image in whose directory a path is: `machines/NAME/…`.
fn owner(below: &Path) -> String {
    let mut names = below.components().map(|c| c.as_os_str());
    match names.next() {
        Some(kind) if kind == "machines" || kind == "images" => {
            names.next().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        }
        _ => String::new(),
    }
}

/// Locks that somebody holds while the process that took them is gone: a child of it has the descriptor, and nobody knows.
pub fn locks(store: &Store) -> Result<Vec<Found>> {
    let mut places = vec![store.images_dir().join(".lock"), store.state_dir().join("ssh/.lock")];
    for dir in [store.machines_dir(), store.staging_dir()] {
        places.extend(children(&dir)?.into_iter().map(|path| path.join("lock")));
    }
    let mut found = vec![];
    for lock in places {
        let Some(pid) = dead_holder(&lock)? else { continue };
        // The one who has it next says so a moment after taking it.
        if wait_until(JUST_ENDING, || Ok(dead_holder(&lock)? != Some(pid)))? {
            continue;
        }
        let evidence =
            format!("it is held, and the process {pid} that took it is gone: something that it started has it");
        let mut f = finding("lock", lock.display().to_string(), evidence);
        f.owner = lock.strip_prefix(store.state_dir()).map(owner).unwrap_or_default();
        f.age_ms = age_ms(&lock);
        let pids: Vec<String> = openers(&lock).iter().map(ToString::to_string).collect();
        f.fix = match pids.join(",") {
            pids if pids.is_empty() => fix::look_at(&lock, "find what has it open, and end that"),
            pids => format!("ps -fp {pids}  # what has it open: end it"),
        };
        found.push(Found { finding: f, remedy: Remedy::Report });
    }
    Ok(found)
}

/// The process that says it holds a lock, where the lock is held and that process is no more.
fn dead_holder(lock: &Path) -> Result<Option<i32>> {
    if !is_held(lock)? {
        return Ok(None);
    }
    let Some(pid) = signer(lock)? else { return Ok(None) };
    Ok(stat(pid)?.is_none_or(|s| matches!(s.state, 'Z' | 'X')).then_some(pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_a_path_is_and_what_is_below_us() {
        let roots = ["/s", "/r", "/s/cache"].map(PathBuf::from);
        for (path, expected) in [
            ("/s/machines/dev/root.ext4", Some("dev")),
            ("/s/images/debian/rootfs.ext4", Some("debian")),
            ("/s/staging/1", Some("")),
            ("/s/cache/rootfs/x", Some("")),
            ("/r/x", Some("")),
            ("/s", None),
            ("/s/cache", None),
            ("/state/machines/dev", None),
        ] {
            let found = below(&roots, Path::new(path)).map(owner);
            assert_eq!(found.as_deref(), expected, "{path}");
        }
    }
}
