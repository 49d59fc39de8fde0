//! What the kernel has attached to files of ours: mounts and loop devices. banger makes neither, so whoever made them must take
//! them away; as long as they are there, a removed VM's disk keeps its blocks.

use super::{Found, Remedy, finding};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::store::Store;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Mounts and loop devices in what banger has.
pub fn attached(store: &Store, config: &Config) -> Result<Vec<Found>> {
    let places = [store.machines_dir(), store.images_dir(), store.staging_dir(), store.runtime_dir().into()];
    let places: Vec<PathBuf> = places.into_iter().chain([config.cache_dir.clone()]).collect();
    // Not the place itself: somebody may keep it on a disk of its own.
    let is_ours = |path: &Path| places.iter().any(|place| path != place && path.starts_with(place));
    let table = Path::new("/proc/self/mountinfo");
    let mounts = std::fs::read(table).map_err(|e| Error::io("read", table, &e))?;
    let report = |kind: &str, id: String, evidence: String, fix: String| {
        let mut f = finding(kind, id, evidence);
        f.fix = fix;
        Found { finding: f, remedy: Remedy::Report }
    };
    let mut found = vec![];
    for path in mount_points(&mounts).into_iter().filter(|path| is_ours(path)) {
        let (id, fix) = (path.display().to_string(), format!("umount {}", path.display()));
        found.push(report("mount", id, "something is mounted here, and not by banger".into(), fix));
    }
    for (device, file) in loop_devices(Path::new("/sys/block")).into_iter().filter(|(_, file)| is_ours(file)) {
        let evidence = format!("its file is {}, and banger uses no loop devices", file.display());
        found.push(report("loop_device", device.clone(), evidence, format!("losetup -d {device}")));
    }
    Ok(found)
}

/// The fifth field of each line of proc_pid_mountinfo(5).
fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    let point = |line: &[u8]| line.split(|b| *b == b' ').nth(4).map(unescaped);
    table.split(|b| *b == b'\n').filter_map(point).collect()
}

/// A name in which blanks, tabs, line feeds and backslashes are three octal digits behind a backslash.
fn unescaped(name: &[u8]) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::with_capacity(name.len()), name);
    while let Some((first, more)) = rest.split_first() {
        let octal = more.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        let (byte, used) = match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => (byte, 4),
            None => (*first, 1),
        };
        bytes.push(byte);
        rest = &rest[used..];
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// Loop devices and their files, by `loop/backing_file` of sysfs.
fn loop_devices(block: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(block).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let device = |path: PathBuf| {
        let file = std::fs::read(path.join("loop/backing_file")).ok()?;
        let file = file.strip_suffix(b"\n").unwrap_or(&file);
        let file = file.strip_suffix(b" (deleted)").unwrap_or(file);
        Some((format!("/dev/{}", path.file_name()?.to_str()?), OsStr::from_bytes(file).into()))
    };
    entries.filter_map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_tables_are_read() {
        let table = b"36 35 98:0 / /mnt/a\\040b rw,noatime master:1 - ext3 /dev/root rw\n37 35 0:5 / /x\\134y rw - tmpfs t rw\n\n";
        assert_eq!(mount_points(table), [Path::new("/mnt/a b"), Path::new("/x\\y")]);
        assert_eq!(unescaped(b"a\\9\\"), Path::new("a\\9\\"));
        let dir = tempfile::tempdir().unwrap();
        for (name, file) in [("loop0", Some("/srv/root.ext4 (deleted)\n")), ("loop1", None), ("vda", None)] {
            std::fs::create_dir_all(dir.path().join(name).join("loop")).unwrap();
            if let Some(file) = file {
                std::fs::write(dir.path().join(name).join("loop/backing_file"), file).unwrap();
            }
        }
        assert_eq!(loop_devices(dir.path()), [("/dev/loop0".to_owned(), PathBuf::from("/srv/root.ext4"))]);
    }
}
