//! How fast this host's time-stamp counter counts, by measuring it.

#![allow(unsafe_code)]

use std::time::{Duration, Instant};

/// The least time between the two looks: each is exact to about 0.1 µs, so 10 ms give 10 parts in a million.
const LEAST: Duration = Duration::from_millis(10);

/// A measurement that has begun; what the caller does meanwhile makes it longer, and so more exact.
#[derive(Clone, Copy, Debug)]
pub struct TscMeter {
    begun: Instant,
    count: u64,
}

impl TscMeter {
    /// Begins. `None` on a processor without such a counter.
    pub fn begin() -> Option<Self> {
        // The closest of several looks: between its two halves this process was not held up.
        let looks = (0..8).filter_map(|_| {
            let before = Instant::now();
            let count = count()?;
            Some((before.elapsed(), TscMeter { begun: before, count }))
        });
        looks.min_by_key(|(spread, _)| *spread).map(|(_, meter)| meter)
    }

    /// Counts in a millisecond, after a pause where too little time has passed. `None` where that cannot be.
    pub fn khz(&self) -> Option<u64> {
        if let Some(rest) = LEAST.checked_sub(self.begun.elapsed()) {
            std::thread::sleep(rest);
        }
        let end = TscMeter::begin()?;
        let nanoseconds = end.begun.duration_since(self.begun).as_nanos();
        let counts = u128::from(end.count.checked_sub(self.count)?);
        let khz = u64::try_from((counts * 1_000_000 + nanoseconds / 2) / nanoseconds.max(1)).ok()?;
        (100_000..100_000_000).contains(&khz).then_some(khz)
    }
}

#[cfg(target_arch = "x86_64")]
fn count() -> Option<u64> {
    // SAFETY: every x86_64 has the instruction, and Linux lets processes use it.
    Some(unsafe { std::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn count() -> Option<u64> {
    None
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (short, long) = (TscMeter::begin().unwrap(), TscMeter::begin().unwrap());
        let (a, b) = (short.khz().unwrap(), long.khz().unwrap());
        assert!(a.abs_diff(b) * 1000 < a, "{a} and {b} differ by more than one in a thousand");
    }
}
