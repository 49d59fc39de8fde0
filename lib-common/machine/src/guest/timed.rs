//! A connection to a guest whose reads and writes all share one deadline, so that a guest that trickles gains nothing.

use super::unreachable;
use lib_common::error::{Error, Result};
use lib_common::sys::poll;
use nix::poll::PollFlags;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// A stream with a deadline.
#[derive(Debug)]
pub struct Timed {
    stream: UnixStream,
    deadline: Instant,
}

impl Timed {
    /// The stream, from now on in non-blocking mode.
    pub fn new(stream: UnixStream, deadline: Instant) -> Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Timed { stream, deadline })
    }

    /// The stream in blocking mode.
    pub fn into_inner(self) -> Result<UnixStream> {
        self.stream.set_nonblocking(false)?;
        Ok(self.stream)
    }

    /// Reads what is there, waiting for the first of it; 0 is the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(e) => self.wait_after(&e, PollFlags::POLLIN)?,
                Ok(n) => return Ok(n),
            }
        }
    }

    /// Writes all of it.
    pub fn write_all(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Err(e) => self.wait_after(&e, PollFlags::POLLOUT)?,
                Ok(n) => bytes = &bytes[n..],
            }
        }
        Ok(())
    }

    /// Waits for as long as the error says nothing but "not yet".
    fn wait_after(&self, e: &std::io::Error, what: PollFlags) -> Result<()> {
        match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::Interrupted => self.wait(what),
            _ => Err(broken(e)),
        }
    }

    fn wait(&self, what: PollFlags) -> Result<()> {
        let ready = poll::wait(&[(self.stream.as_fd(), what)], Some(self.deadline))?;
        if ready[0].is_empty() { Err(unreachable("no answer came in time")) } else { Ok(()) }
    }
}

/// The guest, or the vsock device before it, has cut the connection.
fn broken(e: &std::io::Error) -> Error {
    unreachable("the connection broke").because(e)
}
