//! The processor's time stamp counter, where there is one.

#![allow(unsafe_code)]

/// How fast the host's time stamp counter runs, in kHz; `None` on processors without one. Takes 10 ms, and is right to
/// about 10 parts in a million.
///
/// An emulated guest reads this very counter, and without a PIT or HPET it cannot measure it.
#[cfg(target_arch = "x86_64")]
pub fn khz() -> Option<u64> {
    use std::time::{Duration, Instant};
    // SAFETY: every x86_64 processor has RDTSC.
    let ticks = || unsafe { std::arch::x86_64::_rdtsc() };
    let (since, from) = (Instant::now(), ticks());
    std::thread::sleep(Duration::from_millis(10));
    let (ran, time) = (ticks().checked_sub(from)?, since.elapsed());
    u64::try_from(u128::from(ran) * 1_000_000 / time.as_nanos().max(1)).ok().filter(|khz| *khz > 0)
}

/// See above.
#[cfg(not(target_arch = "x86_64"))]
pub fn khz() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn it_is_the_same_twice_and_of_a_possible_processor() {
        let (a, b) = (super::khz().unwrap(), super::khz().unwrap());
        assert!((200_000..10_000_000).contains(&a), "{a}");
        assert!(a.abs_diff(b) < a / 100, "{a} {b}");
    }
}
