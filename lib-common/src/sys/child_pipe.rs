//! The reading end of a child's output, which ends with the child: a process that the child has left behind, and that still holds
//! the other end, is not waited for.

use super::process::PidFd;
use super::signal;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

/// At most this much is read once the child has ended: more than a pipe holds, unless root has enlarged it.
const AFTER_END: usize = 1 << 20;

/// A pipe from a child, and the child's end.
#[derive(Debug)]
pub struct ChildPipe<T> {
    pipe: T,
    child: OwnedFd,
    left: usize,
    heeds_signals: bool,
}

impl<T> ChildPipe<T> {
    /// A pipe whose reads also end with an error when a signal has come.
    pub(super) fn new(pipe: T, child: &PidFd) -> io::Result<Self> {
        let child = child.as_fd().try_clone_to_owned()?;
        Ok(ChildPipe { pipe, child, left: AFTER_END, heeds_signals: true })
    }

    /// Leaves signals to others: for a thread that only collects.
    pub(super) fn deaf(self) -> Self {
        ChildPipe { heeds_signals: false, ..self }
    }
}

impl<T: AsFd> ChildPipe<T> {
    /// Waits until the pipe can be read or the child has ended; says which of them.
    fn wait(&self) -> io::Result<(bool, bool)> {
        loop {
            if self.heeds_signals {
                signal::check().map_err(io::Error::other)?;
            }
            let mut fds = vec![
                PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.child.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(self.heeds_signals.then(signal::fd).flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                polled => polled?,
            };
            let [readable, ended] = [0, 1].map(|i| fds[i].any() == Some(true));
            if readable || ended {
                return Ok((readable, ended));
            }
        }
    }
}

impl<T: Read + AsFd> Read for ChildPipe<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.wait()? {
            (true, false) => self.pipe.read(buffer),
            (true, true) => {
                let most = buffer.len().min(self.left);
                let n = self.pipe.read(&mut buffer[..most])?;
                self.left -= n;
                Ok(n)
            }
            // All that the child has written has been read.
            (false, _) => Ok(0),
        }
    }
}
