//! Bytes both ways between the guest and a server, once CONNECT has been answered.

use super::conn::Conn;
use nix::poll::PollFlags;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// How long the guest may still write after the server has ended: a vsock device does not pass the end of one way on, so
/// the guest learns of it by the close alone.
const LINGER: Duration = Duration::from_millis(250);

/// Copies until both sides have ended, at most `most` bytes a way, and gives how many came from the server.
///
/// # Errors
/// `TimedOut` where nothing moves, `InvalidData` beyond `most`, whatever broke.
pub fn run(guest: &mut Conn, server: &mut Conn, most: u64) -> io::Result<u64> {
    let (mut there, mut back) = (Way::new(most), Way::new(most));
    let mut linger: Option<Instant> = None;
    loop {
        let moved = there.step(guest, server)? | back.step(server, guest)?;
        if there.closed && back.closed {
            return Ok(back.bytes);
        }
        if back.closed && linger.is_none() {
            linger = Some(Instant::now() + LINGER);
        }
        if moved {
            continue;
        }
        let mut asked = vec![];
        // A hang-up is always reported, so nobody is asked without a reason.
        for (conn, reads, writes) in [(&*guest, &there, &back), (&*server, &back, &there)] {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, !reads.ended && !reads.pending);
            flags.set(PollFlags::POLLOUT, writes.pending);
            if !flags.is_empty() {
                asked.push((conn.fd(), flags));
            }
        }
        match guest.stop().wait(&asked, linger.unwrap_or_else(|| guest.patience())) {
            Err(e) if e.kind() == ErrorKind::TimedOut && linger.is_some() => return Ok(back.bytes),
            other => drop(other?),
        }
    }
}

/// One direction.
struct Way {
    left: u64,
    bytes: u64,
    /// Something was read that is not written yet.
    pending: bool,
    ended: bool,
    closed: bool,
}

impl Way {
    fn new(most: u64) -> Self {
        Way { left: most, bytes: 0, pending: false, ended: false, closed: false }
    }

    /// Moves what can be moved without waiting; whether anything was.
    fn step(&mut self, from: &mut Conn, to: &Conn) -> io::Result<bool> {
        let mut moved = false;
        if !self.ended && from.buffered().is_empty() {
            match from.try_fill()? {
                Some(0) => self.ended = true,
                Some(_) => moved = true,
                None => {}
            }
        }
        if !from.buffered().is_empty()
            && let Some(n) = to.try_write(from.buffered())?
        {
            from.consume(n);
            self.bytes += n as u64;
            self.left = self.left.checked_sub(n as u64).ok_or(ErrorKind::InvalidData)?;
            moved = true;
        }
        self.pending = !from.buffered().is_empty();
        if self.ended && !self.pending && !self.closed {
            self.closed = true;
            to.end_writing();
        }
        Ok(moved)
    }
}
