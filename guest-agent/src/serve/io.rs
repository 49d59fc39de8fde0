//! Reading and writing sockets of any kind with a deadline. Descriptors given here are in non-blocking mode.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{Error, ErrorKind, Result};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// Puts a descriptor into non-blocking mode.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Reads what is there, waiting for the first of it; 0 is the end of the stream.
///
/// # Errors
/// `TimedOut` at the deadline; recv(2)'s.
pub fn read_by(fd: BorrowedFd<'_>, buffer: &mut [u8], deadline: Instant) -> Result<usize> {
    loop {
        match nix::unistd::read(fd, buffer) {
            Ok(n) => return Ok(n),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => wait(fd, PollFlags::POLLIN, deadline)?,
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Writes it all.
///
/// # Errors
/// `TimedOut` at the deadline; send(2)'s. Rust's runtime ignores SIGPIPE, so a closed peer is an error.
pub fn write_all_by(fd: BorrowedFd<'_>, mut bytes: &[u8], deadline: Instant) -> Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => wait(fd, PollFlags::POLLOUT, deadline)?,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Reads and forgets up to `most` bytes until the peer is done: closing a socket with unread bytes may reset the
/// connection and take the answer with it.
pub fn drain(fd: BorrowedFd<'_>, most: usize, deadline: Instant) {
    let mut left = most;
    let mut buffer = [0; 2048];
    while left > 0 {
        match read_by(fd, &mut buffer, deadline) {
            Ok(n) if n > 0 => left = left.saturating_sub(n),
            _ => return,
        }
    }
}

fn wait(fd: BorrowedFd<'_>, events: PollFlags, deadline: Instant) -> Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Error::from(ErrorKind::TimedOut));
    }
    // One more, as a fraction of a millisecond would otherwise be a busy loop.
    let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(fd, events)], timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
