//! What /proc says of this host, for whoever reads what was measured on it. Knows no domain.

use super::dirs::list;
use crate::error::{Code, Error, Result};
use nix::unistd::Uid;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The kernel's release.
pub fn kernel_release() -> Result<String> {
    read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned())
}

/// The processor's model; `None` where the architecture does not name it.
pub fn cpu_model() -> Result<Option<String>> {
    let text = read("/proc/cpuinfo")?;
    let model = text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == "model name");
    Ok(model.map(|(_, value)| value.trim().to_owned()))
}

/// How many processors this process may use.
pub fn cpus() -> Result<u32> {
    Ok(std::thread::available_parallelism()?.get() as u32)
}

/// The home directory that the passwd database has for the caller.
pub fn home_of_caller() -> Option<PathBuf> {
    Some(nix::unistd::User::from_uid(caller_uid()).ok()??.dir)
}

/// True if the caller is root of this system, and not an ordinary user who is root in a user namespace alone, as `unshare -r`
/// makes one.
pub fn caller_is_root() -> bool {
    nix::unistd::geteuid().is_root() && !is_root_by_name()
}

/// The caller's user id; where an ordinary user is root in a user namespace, the id that the user has outside.
pub fn caller_uid() -> Uid {
    let uid = nix::unistd::geteuid();
    if !uid.is_root() || !is_root_by_name() {
        return uid;
    }
    uid_map().and_then(|map| outer_id(&map, uid.as_raw())).map_or(uid, Uid::from_raw)
}

/// True if user 0 of this namespace is another user outside, and does not own `/` either. A container has its root's files, and its
/// root works as any root does, whoever that is outside.
fn is_root_by_name() -> bool {
    let is_other = uid_map().and_then(|map| outer_id(&map, 0)).is_some_and(|outer| outer != 0);
    is_other && std::fs::symlink_metadata("/").is_ok_and(|meta| meta.uid() != 0)
}

fn uid_map() -> Option<String> {
    read("/proc/self/uid_map").ok()
}

/// The id outside of a user namespace by its map, whose lines are the first id inside, the first outside, and how many there are
/// (user_namespaces(7)).
fn outer_id(map: &str, inside: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut words = line.split_whitespace().map(str::parse::<u32>);
        let [first, outer, count] = [words.next()?.ok()?, words.next()?.ok()?, words.next()?.ok()?];
        inside.checked_sub(first).filter(|offset| *offset < count)?.checked_add(outer)
    })
}

/// The host's memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// In all.
    pub total: u64,
    /// What programs can still have without swapping.
    pub available: u64,
}

/// The host's memory (proc_meminfo(5)).
///
/// # Errors
/// What keeps it from being read.
pub fn memory() -> Result<Memory> {
    let text = read("/proc/meminfo")?;
    let bytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        kib.map(|kib| kib.saturating_mul(1024))
            .ok_or_else(|| Error::new(Code::Os, format!("/proc/meminfo does not say {key}")))
    };
    Ok(Memory { total: bytes("MemTotal")?, available: bytes("MemAvailable")? })
}

/// How many processes ran or wanted to, in the mean of the last minute.
pub fn load_average() -> Result<f64> {
    let text = read("/proc/loadavg")?;
    Ok(text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0))
}

/// The processor time of this process's children that have ended and were waited for, with theirs, in seconds.
pub fn children_cpu_s() -> Result<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// The type of the file system that a path is on, `ext4`: of the mounts above it the nearest and latest.
pub fn file_system(path: &Path) -> Result<Option<String>> {
    let path = std::fs::canonicalize(path).map_err(|e| Error::io("find", path, &e))?;
    Ok(mounted_above(&read("/proc/self/mountinfo")?, &path))
}

/// proc_pid_mountinfo(5): the fifth field is the mount point, and the type stands behind the lone hyphen.
fn mounted_above(mounts: &str, path: &Path) -> Option<String> {
    let mount = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let point = unescaped(left.split(' ').nth(4)?);
        path.starts_with(&point).then_some((point.len(), right.split(' ').next()?.to_owned()))
    };
    mounts.lines().filter_map(mount).max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

/// What proc_pid_mountinfo(5) writes as three octal digits after a backslash: blanks, line feeds, backslashes.
fn unescaped(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

/// Where something is mounted in this mount namespace; nothing where that cannot be read.
pub fn mount_points() -> Result<Vec<PathBuf>> {
    let mounts = read("/proc/self/mountinfo")?;
    Ok(mounts.lines().filter_map(|line| Some(unescaped(line.split(' ').nth(4)?).into())).collect())
}

/// The loop devices that are in use, as `/dev/loop0`, each with its file, whether that was removed meanwhile or not
/// (sysfs-block-loop).
pub fn backing_files() -> Result<Vec<(String, PathBuf)>> {
    let mut found = vec![];
    for entry in list(Path::new("/sys/block"))? {
        let Some(name) = entry.file_name().into_string().ok().filter(|name| name.starts_with("loop")) else { continue };
        let path = entry.path().join("loop/backing_file");
        let file = match std::fs::read_to_string(&path) {
            // It has none.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            read => read.map_err(|e| Error::io("read", &path, &e))?,
        };
        let file = file.trim_end_matches('\n');
        found.push((format!("/dev/{name}"), file.strip_suffix(" (deleted)").unwrap_or(file).into()));
    }
    found.sort();
    Ok(found)
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::io("read", Path::new(path), &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_part_of_the_hosts() {
        let memory = memory().unwrap();
        assert!(memory.available > 0 && memory.available <= memory.total, "{memory:?}");
    }

    #[test]
    fn an_id_is_found_outside_of_a_user_namespace_by_its_map() {
        let container = "         0       1000          1\n         1     100000      65536\n";
        for (map, inside, outer) in [
            ("         0          0 4294967295\n", 1000, Some(1000)),
            ("         0       4321          1\n", 0, Some(4321)),
            ("         0       4321          1\n", 1, None),
            (container, 0, Some(1000)),
            (container, 7, Some(100_006)),
            ("", 0, None),
            ("junk", 0, None),
        ] {
            assert_eq!(outer_id(map, inside), outer, "{inside} of {map}");
        }
    }

    #[test]
    fn a_path_is_on_the_nearest_and_latest_mount_above_it() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/vda rw\n2 1 0:2 / /mnt/a rw shared:1 - xfs /dev/loop0 rw\n\
            3 1 0:3 / /mnt/a rw - btrfs /dev/loop1 rw\n4 1 0:4 / /mnt/a\\040b rw - tmpfs none rw\n";
        for (path, kind) in [("/x", "ext4"), ("/mnt/a/x", "btrfs"), ("/mnt/ab", "ext4"), ("/mnt/a b/x", "tmpfs")] {
            assert_eq!(mounted_above(mounts, Path::new(path)).as_deref(), Some(kind), "{path}");
        }
        assert_eq!(unescaped("/a\\040b\\134c"), "/a b\\c");
        assert!(mount_points().unwrap().contains(&"/proc".into()));
        assert!(file_system(Path::new("/proc/self")).unwrap().is_some_and(|kind| kind == "proc"));
    }
}
