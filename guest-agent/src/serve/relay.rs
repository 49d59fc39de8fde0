//! Connects a vsock connection with the guest's sshd, byte for byte, so that SSH needs no network card.

use super::accept::{self, Accept, Slots};
use super::io;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// What is read and not yet written, per direction.
const BUFFER_BYTES: usize = 16 * 1024;

/// sshd is on this machine: it is there at once or not at all.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);

/// Serves for ever. One connection too many is closed.
pub fn serve<L: Accept>(listener: &L, slots: &Arc<Slots>, sshd: SocketAddr) -> ! {
    accept::serve(listener, slots, drop, move |conn| {
        // Without an sshd the connection is just closed; the client sees the end of the stream.
        if let Ok(server) = TcpStream::connect_timeout(&sshd, CONNECTS_WITHIN) {
            // Keystrokes must not wait for each other; without it they are slower, no more.
            let _ = server.set_nodelay(true);
            // Whatever broke, both ends are closed now, which is all that either side needs to know.
            let _ = relay(conn.as_fd(), server.as_fd());
        }
    })
}

/// Copies both ways until both are at their end. The end of one way is passed on alone, so the other goes on.
fn relay(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> std::io::Result<()> {
    io::set_nonblocking(a)?;
    io::set_nonblocking(b)?;
    let mut there = Way::new(a, b);
    let mut back = Way::new(b, a);
    loop {
        there.step()?;
        back.step()?;
        if there.closed && back.closed {
            return Ok(());
        }
        // poll(2) always reports a hang-up, so a socket that nobody waits for is left out: else this would spin.
        let wanted = [
            (a, there.wants_input(), back.wants_output()),
            (b, back.wants_input(), there.wants_output()),
        ];
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(2);
        for (fd, input, output) in wanted {
            let mut events = PollFlags::empty();
            events.set(PollFlags::POLLIN, input);
            events.set(PollFlags::POLLOUT, output);
            if !events.is_empty() {
                fds.push(PollFd::new(fd, events));
            }
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// One direction.
struct Way<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    buffer: Vec<u8>,
    /// The bytes of `buffer` that are to be written are `start..end`.
    start: usize,
    end: usize,
    /// `from` has sent its last byte.
    ended: bool,
    /// `to` has been told so.
    closed: bool,
}

impl<'a> Way<'a> {
    fn new(from: BorrowedFd<'a>, to: BorrowedFd<'a>) -> Self {
        Way {
            from,
            to,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            ended: false,
            closed: false,
        }
    }

    fn wants_input(&self) -> bool {
        !self.ended && self.start == self.end
    }

    fn wants_output(&self) -> bool {
        self.start < self.end
    }

    /// Moves what can be moved without waiting.
    fn step(&mut self) -> Result<(), Errno> {
        if self.wants_input() {
            match nix::unistd::read(self.from, &mut self.buffer) {
                Ok(0) => self.ended = true,
                Ok(n) => (self.start, self.end) = (0, n),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        if self.wants_output() {
            match nix::unistd::write(self.to, &self.buffer[self.start..self.end]) {
                Ok(n) => self.start += n,
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        if self.ended && !self.wants_output() && !self.closed {
            self.closed = true;
            match shutdown(self.to.as_raw_fd(), Shutdown::Write) {
                // The other side is gone already, which is what this asks for.
                Ok(()) | Err(Errno::ENOTCONN) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
