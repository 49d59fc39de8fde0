//! Connects a connection with a server, byte for byte: the guest's sshd, so that SSH needs no network card, or the
//! builder's package proxy on the host.

use super::accept::{self, Accept, Slots};
use super::io;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is read and not yet written, per direction.
const BUFFER_BYTES: usize = 16 * 1024;

/// How long a client may still write after its server has ended. sshd ends both ways at once, and the vsock devices of
/// Firecracker and of vhost-device-vsock do not pass the end of one way on: whoever is behind one learns of it by the
/// close alone.
const LINGER: Duration = Duration::from_millis(250);

/// How long each side may be waited for once the other has ended.
#[derive(Clone, Copy)]
pub struct Patience {
    /// For the client, after the server's end.
    pub client: Duration,
    /// For the server to say something more, after the client's end; without it, for ever.
    pub server: Option<Duration>,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { client: LINGER, server: None }
    }
}

/// Serves for ever, while more than `reserve` slots are free; one connection too many is closed. So is one whose server
/// `connect` cannot reach: the client sees the end of the stream.
pub fn serve<L: Accept, S: AsFd>(
    listener: &L,
    (slots, reserve): (&Arc<Slots>, usize),
    patience: Patience,
    connect: impl Fn() -> std::io::Result<S> + Send + Sync + 'static,
) -> ! {
    accept::serve(listener, (slots, reserve), drop, move |conn, _| {
        if let Ok(server) = connect() {
            // Whatever broke, both ends are closed now, which is all that either side needs to know.
            let _ = relay(conn.as_fd(), server.as_fd(), patience);
        }
    })
}

/// Copies both ways. An end is passed on, and the other side heard to its own, as long as `patience` has it.
fn relay(client: BorrowedFd<'_>, server: BorrowedFd<'_>, patience: Patience) -> std::io::Result<()> {
    io::set_nonblocking(client)?;
    io::set_nonblocking(server)?;
    let mut there = Way::new(client, server);
    let mut back = Way::new(server, client);
    let mut server_ended = None;
    loop {
        there.step()?;
        back.step()?;
        if there.closed && back.closed {
            return Ok(());
        }
        let now = Instant::now();
        let deadline = if back.closed {
            Some(*server_ended.get_or_insert(now + patience.client))
        } else {
            patience.server.filter(|_| there.closed).map(|silence| there.moved.max(back.moved) + silence)
        };
        let timeout = match deadline {
            None => PollTimeout::NONE,
            Some(at) if at <= now => return Ok(()),
            Some(at) => PollTimeout::try_from(at.saturating_duration_since(now) + Duration::from_millis(1))
                .unwrap_or(PollTimeout::MAX),
        };
        match poll(&mut waited_for(&there, &back), timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// What can happen next. poll(2) always reports a hang-up, so a socket that nobody waits for is left out: else the
/// relay would spin.
fn waited_for<'a>(there: &Way<'a>, back: &Way<'a>) -> Vec<PollFd<'a>> {
    let mut fds = Vec::with_capacity(2);
    for (input, output) in [(there, back), (back, there)] {
        let mut events = PollFlags::empty();
        events.set(PollFlags::POLLIN, input.wants_input());
        events.set(PollFlags::POLLOUT, output.wants_output());
        if !events.is_empty() {
            fds.push(PollFd::new(input.from, events));
        }
    }
    fds
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
    /// When a byte, or the end, was last passed on.
    moved: Instant,
}

impl<'a> Way<'a> {
    fn new(from: BorrowedFd<'a>, to: BorrowedFd<'a>) -> Self {
        let moved = Instant::now();
        Way { from, to, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0, ended: false, closed: false, moved }
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
                Ok(n) => {
                    self.start += n;
                    self.moved = Instant::now();
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        if self.ended && !self.wants_output() && !self.closed {
            self.closed = true;
            self.moved = Instant::now();
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
