//! The shim's end of its talk with the starter: one line there, `keep` or `hold` back, or the end of the stream.

use crate::vmm::lines::Lines;
use lib_common::doc::{ShimReply, to_json};
use lib_common::error::Result;
use lib_common::sys::poll;
use nix::poll::PollFlags;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The connection to the starter.
pub(super) struct Link {
    socket: UnixStream,
    lines: Lines,
}

/// What the starter said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Not enough yet.
    Nothing,
    /// The VM is to live on.
    Keep,
    /// The VM is to live for as long as the starter does.
    Hold,
    /// The starter has gone, or is not one.
    Gone,
}

impl Link {
    pub(super) fn new(socket: UnixStream) -> Self {
        Link { socket, lines: Lines::new(100) }
    }

    /// To poll.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether there is nobody at the other end.
    pub(super) fn is_gone(&self) -> bool {
        let seen = poll::wait(&[(self.fd(), PollFlags::empty())], Some(Instant::now()));
        seen.is_ok_and(|seen| seen[0].contains(PollFlags::POLLHUP))
    }

    /// Says it, or not: a starter that does not read any more is seen by the end of the stream.
    pub(super) fn send(&mut self, reply: &ShimReply) {
        let _ = self.socket.set_write_timeout(Some(Duration::from_secs(5)));
        let _ = self.socket.write_all(format!("{}\n", to_json(reply)).as_bytes());
    }

    /// Reads once.
    pub(super) fn read(&mut self) -> Said {
        let read: Result<bool> = self.lines.read(&mut self.socket);
        match (self.lines.next_line().as_deref(), read) {
            (Some(b"keep"), _) => Said::Keep,
            (Some(b"hold"), _) => Said::Hold,
            (None, Ok(true)) => Said::Nothing,
            _ => Said::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_word_keeps_or_holds_a_vm() {
        for (sent, said) in [
            (&b"keep\n"[..], Said::Keep),
            (b"hold\n", Said::Hold),
            (b"keep", Said::Gone),
            (b"kee\n", Said::Gone),
            (b"", Said::Gone),
            (b"\n", Said::Gone),
            (&[b'k'; 300], Said::Gone),
        ] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut link = Link::new(ours);
            theirs.write_all(sent).unwrap();
            drop(theirs);
            let last = std::iter::repeat_with(|| link.read()).find(|s| *s != Said::Nothing);
            assert_eq!(last, Some(said), "{sent:?}");
        }
    }
}
