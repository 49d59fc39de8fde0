//! Bytes between two descriptors and a guest's sshd, for a ProxyCommand.

use lib_common::error::{Code, Error, Result};
use lib_common::sys::poll;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::{read, write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Bytes on their way in one direction.
const BUFFER: usize = 64 << 10;

/// A pipe that says it can be written to takes this many bytes without blocking: PIPE_BUF of pipe(7).
const PIPE_BUF: usize = 4096;

/// Copies `input` to the guest and the guest to `output`. The end of `input` is handed on, and the guest may still
/// answer; it is over when the guest has closed, or when nobody reads `output` any more.
///
/// # Errors
/// [`Code::Io`] where `input` or `output` fail; a signal's.
pub fn relay(input: BorrowedFd<'_>, output: BorrowedFd<'_>, guest: OwnedFd) -> Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&guest, FcntlArg::F_GETFL)?);
    fcntl(&guest, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let mut relay = Relay { guest, to_guest: Buffer::new(), from_guest: Buffer::new(), input_ended: false };
    while relay.step(input, output)? {}
    Ok(())
}

struct Relay {
    guest: OwnedFd,
    to_guest: Buffer,
    from_guest: Buffer,
    input_ended: bool,
}

impl Relay {
    /// Waits until something can be done and does it; `false` when it is over.
    fn step(&mut self, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Result<bool> {
        let on = |flag: PollFlags, wanted: bool| if wanted { flag } else { PollFlags::empty() };
        let (sends, writes) = (!self.to_guest.is_empty(), !self.from_guest.is_empty());
        let reads = !self.input_ended && !sends;
        // The output is always asked: that nobody reads it any more is said without asking for anything. The others
        // only for what is wanted: the end of either would be said again and again.
        let mut asked = vec![(output, on(PollFlags::POLLOUT, writes))];
        let guest = on(PollFlags::POLLIN, !writes) | on(PollFlags::POLLOUT, sends);
        let mut place = |wanted: bool, fd, flags| {
            wanted.then(|| {
                asked.push((fd, flags));
                asked.len() - 1
            })
        };
        let guest = place(!guest.is_empty(), self.guest.as_fd(), guest);
        let stdin = place(reads, input, PollFlags::POLLIN);
        let ready = poll::wait(&asked, None)?;
        let is_ready = |place: Option<usize>| place.is_some_and(|i| !ready[i].is_empty());
        let (out, guest, stdin) = (ready[0], is_ready(guest), is_ready(stdin));
        if out.intersects(PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL) {
            return Ok(false);
        }
        if stdin {
            self.take_input(input)?;
        }
        if sends && guest {
            self.send();
        }
        match (writes, out.contains(PollFlags::POLLOUT)) {
            (true, true) => self.give_output(output),
            (true, false) => Ok(true),
            // Whatever ends the reading, a reset too, is the end of what the guest had to say.
            (false, _) => Ok(!guest || self.from_guest.fill_from(self.guest.as_fd()).unwrap_or(false)),
        }
    }

    fn take_input(&mut self, input: BorrowedFd<'_>) -> Result<()> {
        if !self.to_guest.fill_from(input).map_err(|e| failed("read stdin", e))? {
            self.input_ended = true;
            // A guest that is gone already is noticed by reading from it.
            let _ = shutdown(self.guest.as_raw_fd(), Shutdown::Write);
        }
        Ok(())
    }

    fn send(&mut self) {
        if self.to_guest.drain_to(self.guest.as_fd(), BUFFER).is_err() {
            // It takes nothing any more, but what it said last may still be on its way.
            (self.to_guest, self.input_ended) = (Buffer::new(), true);
        }
    }

    fn give_output(&mut self, output: BorrowedFd<'_>) -> Result<bool> {
        match self.from_guest.drain_to(output, PIPE_BUF) {
            Ok(()) => Ok(true),
            Err(Errno::EPIPE) => Ok(false),
            Err(e) => Err(failed("write to stdout", e)),
        }
    }
}

fn failed(what: &str, e: Errno) -> Error {
    Error::new(Code::Io, format!("cannot {what}")).because(&e)
}

/// Bytes that were read and not all written yet.
struct Buffer {
    bytes: Box<[u8]>,
    from: usize,
    to: usize,
}

impl Buffer {
    fn new() -> Self {
        Buffer { bytes: vec![0; BUFFER].into(), from: 0, to: 0 }
    }

    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Reads once into the empty buffer; `false` at the end.
    fn fill_from(&mut self, fd: BorrowedFd<'_>) -> Result<bool, Errno> {
        match read(fd, &mut self.bytes) {
            Ok(0) => Ok(false),
            Ok(n) => {
                (self.from, self.to) = (0, n);
                Ok(true)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// Writes once, at most `limit` bytes.
    fn drain_to(&mut self, fd: BorrowedFd<'_>, limit: usize) -> Result<(), Errno> {
        let end = self.to.min(self.from + limit);
        match write(fd, &self.bytes[self.from..end]) {
            Ok(n) => self.from += n,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
