//! Between a guest and libssh2, which keeps each packet that nobody asked for, without a limit. What passes is counted here,
//! and one call of libssh2 gets no more than its socket holds: it reads on for as long as there is something.

use super::allowance::Allowance;
use lib_common::error::Result;
use nix::poll::PollFlags;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// How much passes at once, in bytes: a large packet and what follows it.
const CHUNK: usize = 64 << 10;

/// Passes both ways, and only when it is called: there is no thread of its own to be ended.
pub(super) struct Pump {
    guest: UnixStream,
    /// The other end of libssh2's socket.
    ssh: UnixStream,
    from_guest: Way,
    to_guest: Way,
    /// What the guest may have sent.
    pub(super) allowance: Allowance,
}

impl Pump {
    /// Between a guest and that end of the pair of which libssh2 has the other.
    pub(super) fn new(guest: UnixStream, ssh: UnixStream, allowance: Allowance) -> Self {
        Pump { guest, ssh, from_guest: Way::new(), to_guest: Way::new(), allowance }
    }

    /// Passes on what is there, without waiting.
    ///
    /// # Errors
    /// Those of [`Allowance::passed`]. A side that has gone is none: the other one hears of it.
    pub(super) fn turn(&mut self) -> Result<()> {
        self.push();
        let passed = self.from_guest.pass(&self.guest, &self.ssh);
        self.allowance.passed(passed)
    }

    /// Passes on to the guest what libssh2 has written: it takes that for sent.
    pub(super) fn push(&mut self) {
        while self.to_guest.pass(&self.ssh, &self.guest) > 0 {}
    }

    /// What has to be ready before another turn passes anything.
    pub(super) fn waits_for(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let (guest, ssh) = (self.guest.as_fd(), self.ssh.as_fd());
        [self.from_guest.waits_for(guest, ssh), self.to_guest.waits_for(ssh, guest)].into_iter().flatten().collect()
    }
}

/// One direction: what was read and is not written yet.
struct Way {
    buffer: Box<[u8]>,
    begin: usize,
    end: usize,
    is_over: bool,
}

impl Way {
    fn new() -> Self {
        Way { buffer: vec![0; CHUNK].into(), begin: 0, end: 0, is_over: false }
    }

    /// Reads where nothing is left to be written, and writes as much as goes. How many bytes it has read.
    fn pass(&mut self, mut from: &UnixStream, mut to: &UnixStream) -> usize {
        let mut read = 0;
        if self.begin == self.end && !self.is_over {
            match from.read(&mut self.buffer) {
                Ok(n) if n > 0 => (read, self.begin, self.end) = (n, 0, n),
                Err(e) if is_for_later(&e) => {}
                Ok(_) | Err(_) => self.is_over(from, to),
            }
        }
        if self.begin < self.end {
            match to.write(&self.buffer[self.begin..self.end]) {
                Ok(n) => self.begin += n,
                Err(e) if is_for_later(&e) => {}
                Err(_) => self.is_over(from, to),
            }
        }
        read
    }

    /// The other direction goes on: a command may have printed something before its guest went.
    fn is_over(&mut self, from: &UnixStream, to: &UnixStream) {
        (self.begin, self.end, self.is_over) = (0, 0, true);
        // Either may have gone as a whole.
        let _ = from.shutdown(Shutdown::Read);
        let _ = to.shutdown(Shutdown::Write);
    }

    fn waits_for<'fd>(&self, from: BorrowedFd<'fd>, to: BorrowedFd<'fd>) -> Option<(BorrowedFd<'fd>, PollFlags)> {
        match self.begin < self.end {
            true => Some((to, PollFlags::POLLOUT)),
            false => (!self.is_over).then_some((from, PollFlags::POLLIN)),
        }
    }
}

fn is_for_later(e: &std::io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
