//! Setting the guest's clock by the host's: it stands still while the guest is paused or the host sleeps.

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A clock that is behind by less than this, in milliseconds, is right.
const BEHIND_MS: u64 = 2_000;

/// What a clock has to be ahead by, in milliseconds, to be set back: the host's time is as old as its request, so that a clock
/// that is a little ahead may be right.
const AHEAD_MS: u64 = 10_000;

/// Sets the clock where it is wrong. What is wrong still, in words.
pub fn follow(host_unix_ms: u64) -> Option<String> {
    let own_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    step(own_ms, host_unix_ms, |to| clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(to)))
}

fn step(own_ms: u64, host_ms: u64, set: impl FnOnce(Duration) -> Result<(), Errno>) -> Option<String> {
    let (behind, ahead) = (host_ms.saturating_sub(own_ms), own_ms.saturating_sub(host_ms));
    if behind <= BEHIND_MS && ahead <= AHEAD_MS {
        return None;
    }
    let errno = set(Duration::from_millis(host_ms)).err()?;
    let (by, which) = if behind > 0 { (behind, "behind") } else { (ahead, "ahead of") };
    Some(format!("the clock is {} s {which} the host's and cannot be set: {}", by / 1000, errno.desc()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_clock_is_set_where_it_is_seconds_off() {
        for (own, host, set) in [
            (100_000, 102_000, None),
            (100_000, 102_001, Some(102_001)),
            (100_000, 90_000, None),
            (100_000, 89_999, Some(89_999)),
            (0, 1 << 40, Some(1 << 40)),
        ] {
            let done = Cell::new(None);
            let ok = |to: Duration| {
                done.set(Some(to.as_millis()));
                Ok(())
            };
            assert_eq!((step(own, host, ok), done.get()), (None, set), "{own} {host}");
        }
    }

    #[test]
    fn a_clock_that_cannot_be_set_is_a_problem() {
        let said = |own, host| step(own, host, |_| Err(Errno::EPERM)).unwrap();
        assert!(said(0, 60_000).starts_with("the clock is 60 s behind the host's and cannot be set: "));
        assert!(said(60_000, 0).starts_with("the clock is 60 s ahead of the host's and cannot be set: "));
    }
}
