//! The network namespace that this process is in, and what /proc says of it. Knows no domain.

#![allow(unsafe_code)]

use crate::error::{Error, Result};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The inode of the process namespace that the host began with (linux/proc_ns.h, `PROC_PID_INIT_INO`).
const FIRST_PROCESS_NAMESPACE: u64 = 0xEFFF_FFFC;

/// The inode of the current network namespace, by which it is known.
pub fn inode() -> Result<u64> {
    let path = Path::new("/proc/self/ns/net");
    std::fs::metadata(path).map(|m| m.ino()).map_err(|e| Error::io("read", path, &e))
}

/// The number that the kernel has given the current namespace and gives no other one until the host is booted, while the inode
/// of one that ends is the next one's. `None` where the kernel has no such numbers, as before Linux 5.14.
///
/// Source: socket(7) has no word of it; linux/net/core/sock.c, `SO_NETNS_COOKIE`.
pub fn cookie() -> Option<u64> {
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
    let mut cookie: u64 = 0;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).ok()?;
    // SAFETY: the descriptor is open, and the kernel writes no more than `length` bytes, which are those of the number.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (asked == 0).then_some(cookie)
}

/// Whether a namespace is still there, as far as the caller may see: a process is in it, or ip-netns(8) keeps it.
///
/// # Errors
/// What keeps the processes from being listed: then nobody knows.
pub fn is_alive(inode: u64) -> Result<bool> {
    let of_processes = super::process::all_pids()?.into_iter().map(|pid| format!("/proc/{pid}/ns/net"));
    let named = super::dirs::list(Path::new("/run/netns"))?.into_iter().map(|entry| entry.path());
    let mut paths = of_processes.map(PathBuf::from).chain(named);
    Ok(paths.any(|path| std::fs::metadata(path).is_ok_and(|m| m.ino() == inode)))
}

/// Every namespace that a process is in or a file keeps. `None` where the caller may not see that of some process, or not all
/// processes: from a process namespace other than the host's those outside of it are not seen. Init is not asked: it is never
/// alone in its namespace, and in some containers nobody may look into it.
pub fn living() -> Option<BTreeSet<u64>> {
    if std::fs::metadata("/proc/self/ns/pid").map_or(true, |meta| meta.ino() != FIRST_PROCESS_NAMESPACE) {
        return None;
    }
    let mut living = BTreeSet::new();
    for pid in super::process::all_pids().ok()? {
        match std::fs::metadata(format!("/proc/{pid}/ns/net")) {
            Ok(meta) => drop(living.insert(meta.ino())),
            // It has ended.
            Err(e) if super::process::has_ended(&e) => {}
            Err(e) if e.kind() == ErrorKind::PermissionDenied && pid == 1 => {}
            Err(_) => return None,
        }
    }
    // proc_pid_mountinfo(5): the fourth field of a namespace that is mounted somewhere is `net:[INODE]`.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let roots = mounts.lines().filter_map(|line| line.split(' ').nth(3));
    living.extend(roots.filter_map(|root| root.strip_prefix("net:[")?.strip_suffix(']')?.parse::<u64>().ok()));
    Some(living)
}

/// Whether packets that come from an interface are sent on.
pub fn is_forwarding(interface: &str) -> Result<bool> {
    let path = forwarding(interface);
    std::fs::read_to_string(&path).map(|text| text.trim() == "1").map_err(|e| Error::io("read", &path, &e))
}

/// Sets whether packets that come from an interface are sent on.
pub fn set_forwarding(interface: &str, on: bool) -> Result<()> {
    let path = forwarding(interface);
    std::fs::write(&path, if on { "1" } else { "0" }).map_err(|e| Error::io("write", &path, &e))
}

fn forwarding(interface: &str) -> PathBuf {
    Path::new("/proc/sys/net/ipv4/conf").join(interface).join("forwarding")
}

/// How many connections are tracked; 0 where none ever was.
pub fn tracked_connections() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_one_number() {
        let own = cookie();
        assert_eq!(std::thread::spawn(cookie).join().unwrap(), own);
        assert!(own != Some(0));
    }

    #[test]
    fn the_own_namespace_lives_where_all_can_be_seen() {
        let own = inode().unwrap();
        assert!(is_alive(own).unwrap() && !is_alive(1).unwrap());
        assert!(living().is_none_or(|living| living.contains(&own) && !living.contains(&1)));
    }
}
