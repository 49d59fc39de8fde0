//! Unix sockets: the one that a detached child inherits, handing a descriptor on, who is at the other end, and whether somebody
//! listens on a path.
//!
//! Source of the format: proc_net_unix in proc(5), net/unix/af_unix.c of the kernel.

#![allow(unsafe_code)]

use crate::error::{Code, Error, Result};
use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, UnixCredentials, getsockopt, recvmsg, sendmsg, setsockopt, sockopt,
};
use std::io::{BufRead, BufReader, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// `__SO_ACCEPTCON`: the socket has called listen(2).
const LISTENS: u32 = 1 << 16;

/// Descriptor 3, which [`super::cmd::Cmd::spawn_detached`] left for this process: taken once, not inherited further.
pub fn inherited() -> Result<UnixStream> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let none = || {
        Error::new(Code::Usage, "descriptor 3 is not a socket of whoever started this")
            .hint("this tool is started by `bg-vm start`, not by hand")
    };
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(none());
    }
    // SAFETY: fcntl and fstat only ask about a number, which may belong to no descriptor.
    let is_socket = unsafe {
        let mut stat: nix::libc::stat = std::mem::zeroed();
        nix::libc::fcntl(3, nix::libc::F_SETFD, nix::libc::FD_CLOEXEC) == 0
            && nix::libc::fstat(3, &raw mut stat) == 0
            && stat.st_mode & nix::libc::S_IFMT == nix::libc::S_IFSOCK
    };
    if !is_socket {
        return Err(none());
    }
    // SAFETY: 3 is an open socket that came with exec, so nothing in this process owns it, and it is taken once.
    Ok(UnixStream::from(unsafe { OwnedFd::from_raw_fd(3) }))
}

/// Hands a descriptor to whoever reads the socket `over`, with one byte, as ssh's ProxyUseFdpass takes it (monitor_fdpass.c
/// of OpenSSH).
pub fn hand_on(over: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> Result<()> {
    let (fds, byte) = ([fd.as_raw_fd()], [IoSlice::new(&[0])]);
    let sent = sendmsg::<()>(over.as_raw_fd(), &byte, &[ControlMessage::ScmRights(&fds)], MsgFlags::empty(), None);
    sent.map(drop).map_err(|e| match e {
        nix::errno::Errno::ENOTSOCK => Error::new(Code::Usage, "nobody takes a descriptor from here"),
        e => Error::new(Code::Io, "the descriptor could not be handed on").because(&e),
    })
}

/// The process at the other end of a connected socket: the one that called listen(2) there, or connect(2).
///
/// # Errors
/// getsockopt(2)'s.
pub fn peer(socket: BorrowedFd<'_>) -> Result<i32> {
    Ok(getsockopt(&socket, sockopt::PeerCredentials)?.pid())
}

/// The process that wrote what is next to be read from a stream of which both ends have one maker; nothing is taken out. The
/// kernel names the writer of what was sent after this was asked for once.
///
/// # Errors
/// recvmsg(2)'s, also if there is nothing to read.
pub fn writer(socket: BorrowedFd<'_>) -> Result<Option<i32>> {
    let (mut byte, mut space) = ([0], cmsg_space!(UnixCredentials));
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let pid = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::ScmCredentials(credentials) => Some(credentials.pid()),
        _ => None,
    });
    Ok(pid.filter(|pid| *pid != 0))
}

/// Has the kernel name the writers of what will come on a socket, for [`writer`].
///
/// # Errors
/// setsockopt(2)'s.
pub fn name_writers(socket: BorrowedFd<'_>) -> Result<()> {
    Ok(setsockopt(&socket, sockopt::PassCred, &true)?)
}

/// Whether a process of this network namespace listens on the Unix socket at `path`. A socket's file is there before
/// that, and a connection to it is refused meanwhile.
pub fn is_listening(path: &Path) -> bool {
    let (Some(path), true) = (path.to_str(), path.exists()) else { return false };
    let Ok(table) = std::fs::File::open("/proc/net/unix") else { return false };
    BufReader::new(table).lines().map_while(std::io::Result::ok).any(|line| listens(&line, path))
}

/// A line: `address: references protocol flags type state inode path`, the first six in hexadecimal.
fn listens(line: &str, path: &str) -> bool {
    let flags = line.split_ascii_whitespace().nth(3).and_then(|f| u32::from_str_radix(f, 16).ok());
    flags.is_some_and(|f| f & LISTENS != 0) && line.strip_suffix(path).is_some_and(|before| before.ends_with(' '))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_listens_from_its_listener_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a socket");
        assert!(!is_listening(&path));
        let listener = UnixListener::bind(&path).unwrap();
        assert!(is_listening(&path));
        drop(listener);
        assert!(!is_listening(&path), "its file alone is nobody");
    }

    #[test]
    fn the_writer_and_the_peer_are_processes() {
        use std::io::{Read, Write};
        use std::os::fd::AsFd;
        let me = std::process::id().cast_signed();
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        name_writers(ours.as_fd()).unwrap();
        assert!(writer(ours.as_fd()).is_err(), "nothing was written");
        theirs.write_all(b"ab").unwrap();
        for _ in 0..2 {
            assert_eq!(writer(ours.as_fd()).unwrap(), Some(me));
        }
        let mut read = [0; 2];
        ours.read_exact(&mut read).unwrap();
        assert_eq!((&read, peer(ours.as_fd()).unwrap()), (b"ab", me));
    }

    #[test]
    fn only_the_whole_path_counts() {
        let line = "0000000000000000: 00000002 00000000 00010000 0001 01 17 /run/a/b";
        assert!(listens(line, "/run/a/b"));
        assert!(!listens(line, "/a/b") && !listens("", "/run/a/b"));
        assert!(!listens(&line.replace("00010000", "00000000"), "/run/a/b"));
    }
}
