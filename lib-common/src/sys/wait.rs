//! Waiting for several descriptors at once, with a deadline.

use crate::error::Result;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// The indices of the descriptors that can be read or were hung up; none when `deadline` has passed. Signals do not
/// end the wait: poll [`super::signal::fd`] too.
pub fn readable(fds: &[BorrowedFd<'_>], deadline: Instant) -> Result<Vec<usize>> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the last millisecond is slept and not spun.
        let ms = left.min(Duration::from_secs(3600)).as_micros().div_ceil(1000);
        let ms = PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, ms) {
            Ok(0) if left.is_zero() => return Ok(vec![]),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok((0..polled.len()).filter(|i| polled[*i].any() == Some(true)).collect()),
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn says_who_is_ready_and_ends_at_the_deadline() {
        let ((a, _a), (b, mut to_b)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let soon = || Instant::now() + Duration::from_millis(5);
        assert!(readable(&[a.as_fd(), b.as_fd()], soon()).unwrap().is_empty());
        to_b.write_all(b"x").unwrap();
        assert_eq!(readable(&[a.as_fd(), b.as_fd()], soon()).unwrap(), [1]);
        drop(_a);
        assert_eq!(readable(&[a.as_fd(), b.as_fd()], soon()).unwrap(), [0, 1]);
    }
}
