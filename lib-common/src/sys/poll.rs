//! Waiting for descriptors, with a deadline and an ear for signals.

use super::signal;
use crate::error::Result;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// Waits until at least one of `asked` is ready, and gives what each is ready for, in the same order. At the deadline
/// nothing is ready; without one it waits for ever. A signal to us is an error.
pub fn wait(asked: &[(BorrowedFd<'_>, PollFlags)], deadline: Option<Instant>) -> Result<Vec<PollFlags>> {
    loop {
        let mut fds: Vec<_> = asked.iter().map(|(fd, flags)| PollFd::new(*fd, *flags)).collect();
        fds.extend(signal::fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let ready = match poll(&mut fds, left.map_or(PollTimeout::NONE, timeout)) {
            Ok(ready) => ready > 0,
            Err(Errno::EINTR) => false,
            Err(e) => return Err(e.into()),
        };
        signal::check()?;
        if ready || left.is_some_and(|l| l.is_zero()) {
            return Ok(fds[..asked.len()].iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect());
        }
    }
}

/// The indices of the descriptors that can be read or were hung up; none at the deadline. A signal to us is an error.
pub fn readable(fds: &[BorrowedFd<'_>], deadline: Instant) -> Result<Vec<usize>> {
    let asked: Vec<_> = fds.iter().map(|fd| (*fd, PollFlags::POLLIN)).collect();
    let ready = wait(&asked, Some(deadline))?;
    Ok((0..ready.len()).filter(|i| !ready[*i].is_empty()).collect())
}

/// Whole milliseconds, rounded up: rounded down, the last one would be spent spinning.
fn timeout(left: Duration) -> PollTimeout {
    let up = left.min(Duration::from_secs(3600)) + Duration::from_nanos(if left.is_zero() { 0 } else { 999_999 });
    PollTimeout::try_from(up).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_is_ready_stands_where_it_was_asked_and_the_deadline_ends_the_wait() {
        let (mut a, b) = UnixStream::pair().unwrap();
        let asked = [(a.as_fd(), PollFlags::POLLIN), (b.as_fd(), PollFlags::POLLIN)];
        let soon = Instant::now() + Duration::from_millis(5);
        assert_eq!(wait(&asked, Some(soon)).unwrap(), [PollFlags::empty(); 2]);
        assert!(Instant::now() >= soon);
        a.write_all(b"x").unwrap();
        let asked = [(a.as_fd(), PollFlags::POLLIN), (b.as_fd(), PollFlags::POLLIN)];
        assert_eq!(wait(&asked, None).unwrap(), [PollFlags::empty(), PollFlags::POLLIN]);
        assert_eq!(readable(&[a.as_fd(), b.as_fd()], soon).unwrap(), [1]);
    }

    #[test]
    fn a_hung_up_descriptor_can_be_read() {
        let (a, b) = UnixStream::pair().unwrap();
        assert!(readable(&[a.as_fd()], Instant::now()).unwrap().is_empty());
        drop(b);
        assert_eq!(readable(&[a.as_fd()], Instant::now()).unwrap(), [0]);
    }
}
