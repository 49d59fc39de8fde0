//! A connection whose every wait has a deadline and ends when the proxy does. Knows nothing of HTTP.

use lib_common::error::Result;
use lib_common::sys::poll;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is read and not yet used, in bytes. A head must fit in.
pub const BUFFER_BYTES: usize = 64 << 10;

/// Closing a socket with unread bytes may reset the connection and take the answer with it: so much is read first, for so
/// long.
const DRAIN_BYTES: usize = 256 << 10;
const DRAIN_FOR: Duration = Duration::from_millis(250);

/// Tells every wait of a proxy that it is over.
#[derive(Debug)]
pub struct Stop(EventFd);

impl Stop {
    /// Not yet.
    pub fn new() -> Result<Self> {
        Ok(Stop(EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))
    }

    /// Now, and for good.
    pub fn trigger(&self) {
        // It can only fail where it was triggered 2^64 times already.
        let _ = self.0.write(1);
    }

    /// Whether it is over.
    pub fn check(&self) -> io::Result<()> {
        self.wait(&[], Instant::now()).map(drop).or_else(|e| if is_time_out(&e) { Ok(()) } else { Err(e) })
    }

    /// Waits until at least one is ready, and gives what each is ready for.
    ///
    /// # Errors
    /// `TimedOut` at the deadline; `ConnectionAborted` when the proxy ends or a signal came.
    pub fn wait(&self, asked: &[(BorrowedFd<'_>, PollFlags)], deadline: Instant) -> io::Result<Vec<PollFlags>> {
        let mut all = asked.to_vec();
        all.push((self.0.as_fd(), PollFlags::POLLIN));
        let over = |_| io::Error::new(ErrorKind::ConnectionAborted, "the proxy ends");
        let mut ready = poll::wait(&all, Some(deadline)).map_err(over)?;
        if ready.pop().is_some_and(|stop| !stop.is_empty()) {
            return Err(io::Error::new(ErrorKind::ConnectionAborted, "the proxy ends"));
        }
        if ready.iter().all(|flags| flags.is_empty()) { Err(ErrorKind::TimedOut.into()) } else { Ok(ready) }
    }
}

fn is_time_out(e: &io::Error) -> bool {
    e.kind() == ErrorKind::TimedOut
}

/// A stream socket of any family.
#[derive(Debug)]
pub struct Conn {
    fd: OwnedFd,
    stop: Arc<Stop>,
    idle: Duration,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Conn {
    /// Takes a socket over, from now on in non-blocking mode. `idle`: how long one read or write may wait.
    pub fn new(fd: OwnedFd, stop: Arc<Stop>, idle: Duration) -> io::Result<Self> {
        let stream = UnixStream::from(fd);
        // The same call whatever the family.
        stream.set_nonblocking(true)?;
        Ok(Conn { fd: stream.into(), stop, idle, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0 })
    }

    /// The socket, for waiting.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What tells it that the proxy ends.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// How long one wait may last, from now.
    pub fn patience(&self) -> Instant {
        Instant::now() + self.idle
    }

    /// What was read and not yet consumed.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Forgets the first `n` bytes of it.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Reads more into the buffer, waiting for the first of it; 0 is the end of the stream, or a full buffer.
    ///
    /// # Errors
    /// `TimedOut` at the deadline; those of [`Stop::wait`] and recv(2).
    pub fn fill(&mut self, deadline: Instant) -> io::Result<usize> {
        loop {
            if let Some(n) = self.try_fill()? {
                return Ok(n);
            }
            self.stop.wait(&[(self.fd.as_fd(), PollFlags::POLLIN)], deadline)?;
        }
    }

    /// As [`Conn::fill`], but `None` where it would have to wait.
    pub fn try_fill(&mut self) -> io::Result<Option<usize>> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        match recv(self.fd.as_raw_fd(), &mut self.buffer[self.end..], MsgFlags::empty()) {
            Ok(n) => {
                self.end += n;
                Ok(Some(n))
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Writes it all, as long as something is taken now and then.
    ///
    /// # Errors
    /// `TimedOut` where nothing is; those of [`Stop::wait`] and send(2).
    pub fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes)? {
                Some(n) => bytes = &bytes[n..],
                None => drop(self.stop.wait(&[(self.fd.as_fd(), PollFlags::POLLOUT)], self.patience())?),
            }
        }
        Ok(())
    }

    /// Writes what is taken at once; `None` where it would have to wait.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match send(self.fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
            Ok(n) => Ok(Some(n)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Tells the other side that nothing more comes.
    pub fn end_writing(&self) {
        // One that is gone already knows.
        let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Write);
    }

    /// Closes so that the other side gets the last answer.
    pub fn finish(mut self) {
        self.end_writing();
        let deadline = Instant::now() + DRAIN_FOR;
        let mut left = DRAIN_BYTES;
        while left > 0 {
            self.consume(BUFFER_BYTES);
            match self.fill(deadline) {
                Ok(n) if n > 0 => left = left.saturating_sub(n),
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_wait_ends_with_the_deadline_or_with_the_proxy() {
        let (mut other, ours) = UnixStream::pair().unwrap();
        let stop = Arc::new(Stop::new().unwrap());
        let mut conn = Conn::new(ours.into(), Arc::clone(&stop), Duration::from_millis(10)).unwrap();
        assert_eq!(conn.fill(conn.patience()).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(conn.write_all(&vec![0; 8 << 20]).unwrap_err().kind(), ErrorKind::TimedOut, "nobody reads");
        other.write_all(b"abc").unwrap();
        assert_eq!((conn.fill(conn.patience()).unwrap(), conn.buffered()), (3, &b"abc"[..]));
        conn.consume(2);
        assert_eq!(conn.buffered(), b"c");
        stop.check().unwrap();
        stop.trigger();
        stop.check().unwrap_err();
        let e = conn.fill(Instant::now() + Duration::from_secs(60)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::ConnectionAborted);
    }
}
