//! Connections to ports of a guest's vsock, through the Unix socket of its VMM.
//!
//! The hybrid protocol, the same in Firecracker (docs/vsock.md, "Host-Initiated Connections") and in
//! vhost-device-vsock: the host writes `CONNECT PORT\n` and reads `OK NUMBER\n`; then the stream is the guest's. A guest
//! that is not up yet, or does not listen, resets the connection; whether to try again is the caller's business.

use super::live::is_paused;
use super::timed::Timed;
use super::unreachable;
use crate::store::paused_in;
use lib_common::error::{Error, Result};
use lib_common::sys::poll;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// `OK 4294967295\n` is 14 bytes; nobody needs more than this.
const MAX_REPLY: usize = 32;

/// A stream to `port` of the guest behind `socket`, in blocking mode.
///
/// # Errors
/// [`lib_common::Code::GuestUnreachable`] for a guest that refuses, sends anything else, or has not answered by `deadline`;
/// a signal's error.
pub fn connect(socket: &Path, port: u32, deadline: Instant) -> Result<UnixStream> {
    let within = |e: Error| match e.code() {
        lib_common::Code::GuestUnreachable => e.within(format!("the guest does not answer on vsock port {port}")),
        _ => e,
    };
    // A connection that a guest did not accept before its client leaves can end the vsock device.
    if let Some(paused) = socket.parent().and_then(paused_in) {
        return Err(within(is_paused(&paused)));
    }
    let stream = open(socket, deadline).map_err(within)?;
    handshake(stream, port, deadline).map_err(within)
}

/// Where the device of the vsock `socket` looks for whoever serves the guest's connections to a port of the host
/// (Firecracker's docs/vsock.md, "Guest-Initiated Connections").
pub fn served_at(socket: &Path, port: u32) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(format!("_{port}"));
    path.into()
}

/// Listens at such a path, where nothing is, mode 0600 and without blocking.
///
/// # Errors
/// [`lib_common::Code::Io`] where something is there, or the path is too long.
pub fn listen_at(path: &Path) -> Result<UnixListener> {
    let go = || -> nix::Result<UnixListener> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        // The file gets the socket's own mode (unix(7)), so there is no moment at which others could connect.
        fchmod(&fd, Mode::from_bits_truncate(0o600))?;
        bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        listen(&fd, Backlog::new(128)?).inspect_err(|_| drop(std::fs::remove_file(path)))?;
        Ok(UnixListener::from(fd))
    };
    go().map_err(|errno| Error::io("listen on", path, &errno.into()))
}

fn handshake(stream: UnixStream, port: u32, deadline: Instant) -> Result<UnixStream> {
    let mut stream = Timed::new(stream, deadline)?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    // Byte by byte: whatever follows the line belongs to the caller.
    let mut reply = vec![];
    while reply.last() != Some(&b'\n') {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            return Err(unreachable("the connection was refused"));
        }
        reply.push(byte[0]);
        if reply.len() > MAX_REPLY {
            return Err(strange(&reply));
        }
    }
    let number = reply.strip_prefix(b"OK ").and_then(|r| r.strip_suffix(b"\n"));
    if number.is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit)) {
        stream.into_inner()
    } else {
        Err(strange(&reply))
    }
}

fn strange(reply: &[u8]) -> Error {
    unreachable(format!("the vsock device says `{}` instead of OK", reply.escape_ascii()))
}

/// Connects to a Unix socket without ever blocking: a device that accepts nobody fills its backlog, and connect(2) would wait for it.
pub fn open(socket: &Path, deadline: Instant) -> Result<UnixStream> {
    let io = |e: Errno| Error::io("connect to", socket, &e.into());
    let address = UnixAddr::new(socket).map_err(io)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd: OwnedFd = nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    loop {
        match nix::sys::socket::connect(fd.as_raw_fd(), &address) {
            Ok(()) => return Ok(UnixStream::from(fd)),
            // unix(7): a full backlog. There is nothing to poll for.
            Err(Errno::EAGAIN) if Instant::now() < deadline => {
                poll::wait(&[], Some(deadline.min(Instant::now() + Duration::from_millis(5))))?;
            }
            Err(Errno::EINTR) => lib_common::sys::signal::check()?,
            // It gets its name when the guest has come up, and loses it with the VM.
            Err(Errno::ENOENT) => return Err(unreachable("it is not up")),
            Err(e @ (Errno::EAGAIN | Errno::ECONNREFUSED)) => {
                return Err(unreachable(format!("nobody accepts on {}", socket.display())).because(&e));
            }
            Err(e) => return Err(io(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::fake::Fake;
    use std::io::{Read, Write};

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(60)
    }

    #[test]
    fn what_follows_the_ok_belongs_to_the_caller() {
        let guest = Fake::raw(|mut stream, request| {
            assert_eq!(request, "CONNECT 22\n");
            stream.write_all(b"OK 1073741824\nSSH-2.0-x\r\n").unwrap();
        });
        let mut text = String::new();
        connect(guest.socket(), 22, Instant::now() + Duration::from_secs(10))
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "SSH-2.0-x\r\n");
    }

    #[test]
    fn whatever_is_not_ok_is_a_guest_that_does_not_answer() {
        for (reply, why) in [
            (&b""[..], "refused"),
            (b"OK 1", "refused"),
            (b"OK \n", "`OK \\n`"),
            (b"OK 1 2\n", "instead of OK"),
            (b"NO 7\n", "instead of OK"),
            (b"\x1b]0;x\x07\n", "\\x1b]0;x\\x07"),
            (&[b'x'; 4096], "instead of OK"),
        ] {
            let guest = Fake::raw(move |mut stream, _| {
                let _ = stream.write_all(reply);
            });
            let e = connect(guest.socket(), 52, Instant::now() + Duration::from_secs(10)).unwrap_err();
            assert_eq!(e.code(), lib_common::Code::GuestUnreachable);
            assert!(e.causes().iter().any(|c| c.contains(why)), "{why}: {e:?}");
        }
    }

    #[test]
    fn neither_silence_nor_a_trickle_outlasts_the_deadline() {
        let silent = Fake::raw(|stream, _| Fake::until_closed(stream));
        let trickling = Fake::raw(|mut stream, _| {
            while stream.write_all(b"O").is_ok() {
                std::thread::yield_now();
            }
        });
        for guest in [silent, trickling] {
            let begun = Instant::now();
            let e = connect(guest.socket(), 52, soon()).unwrap_err();
            assert_eq!(e.code(), lib_common::Code::GuestUnreachable);
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
    }

    #[test]
    fn a_missing_socket_and_a_full_backlog_are_guests_that_do_not_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v");
        assert_eq!(connect(&path, 52, soon()).unwrap_err().code(), lib_common::Code::GuestUnreachable);
        let address = UnixAddr::new(&path).unwrap();
        let listener =
            nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        nix::sys::socket::bind(listener.as_raw_fd(), &address).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let held: Vec<_> = (0..2).filter_map(|_| open(&path, soon()).ok()).collect();
        assert!(!held.is_empty());
        let e = connect(&path, 52, soon()).unwrap_err();
        assert_eq!(e.code(), lib_common::Code::GuestUnreachable);
    }
}
