//! How much a guest may send beyond the output that was asked for. Knows bytes and no packets: those are encrypted.

use crate::guest::unreachable;
use lib_common::error::Result;
use lib_common::sys::process;

/// Until a command is started, in bytes. An exchange of keys and a login are a few thousand.
const BEFORE: u64 = 1 << 20;

/// From then on, in bytes, what waits to be read included: libssh2 lets a command be 2 MiB ahead.
const BESIDE: u64 = 4 << 20;

/// At most so much more memory may be in use where a guest has sent more than that, in bytes. What the packets of many small
/// outputs and of a large upload's answers are wrapped in is more, and is kept nowhere.
const GROWN: u64 = 32 << 20;

/// Between two looks at that, in bytes.
const LOOK_AGAIN: u64 = 1 << 20;

/// An account of what came.
pub(super) struct Allowance {
    /// What came and was not output.
    beside: u64,
    /// How much of that is fine without a look at the memory.
    limit: u64,
    has_command: bool,
    /// The memory in use, and the least that was.
    memory: fn() -> u64,
    least: u64,
}

impl Allowance {
    /// For a guest with which nothing was spoken, by the memory of this process.
    pub(super) fn new() -> Self {
        Allowance::by(|| process::rss_bytes(std::process::id().cast_signed()))
    }

    fn by(memory: fn() -> u64) -> Self {
        Allowance { beside: 0, limit: BEFORE, has_command: false, memory, least: memory() }
    }

    /// A command is about to be started.
    pub(super) fn command(&mut self) {
        if !self.has_command {
            (self.has_command, self.limit) = (true, BESIDE);
        }
    }

    /// So many bytes were given to whoever wants the output.
    pub(super) fn handed(&mut self, bytes: usize) {
        self.beside = self.beside.saturating_sub(bytes as u64);
    }

    /// So many bytes have come.
    ///
    /// # Errors
    /// [`Code::GuestUnreachable`](lib_common::error::Code::GuestUnreachable) where they are too many.
    pub(super) fn passed(&mut self, bytes: usize) -> Result<()> {
        self.beside += bytes as u64;
        if self.beside <= self.limit {
            return Ok(());
        }
        let now = (self.memory)();
        self.least = self.least.min(now);
        if !self.has_command || now - self.least > GROWN {
            let what = "the guest's sshd sends what nobody asked for";
            return Err(unreachable(what).hint("its image is not to be trusted: build it anew, or use another one"));
        }
        self.limit = self.beside + LOOK_AGAIN;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lib_common::error::Code;
    use std::sync::atomic::{AtomicU64, Ordering};

    const CHUNK: usize = 64 << 10;

    /// How much passes before it is refused, up to 1 GiB.
    fn passes(allowance: &mut Allowance, mut each: impl FnMut(&mut Allowance)) -> u64 {
        for n in 0..(1 << 30) / CHUNK {
            if let Err(e) = allowance.passed(CHUNK) {
                assert_eq!(e.code(), Code::GuestUnreachable);
                return (n * CHUNK) as u64;
            }
            each(allowance);
        }
        1 << 30
    }

    #[test]
    fn before_a_command_little_may_come_whatever_the_memory() {
        assert_eq!(passes(&mut Allowance::by(|| 0), |_| {}), BEFORE);
    }

    #[test]
    fn what_is_kept_is_soon_too_much_and_what_is_handed_on_or_leaves_nothing_never() {
        static KEPT: AtomicU64 = AtomicU64::new(0);
        let kept = || 10_000_000 + KEPT.load(Ordering::SeqCst);
        let keeping = |_: &mut Allowance| {
            KEPT.fetch_add(CHUNK as u64, Ordering::SeqCst);
        };
        let mut allowance = Allowance::by(kept);
        allowance.command();
        assert!(passes(&mut allowance, keeping) <= GROWN + LOOK_AGAIN);
        KEPT.store(0, Ordering::SeqCst);
        for handed in [CHUNK, CHUNK / 50] {
            let mut allowance = Allowance::by(kept);
            allowance.command();
            assert_eq!(passes(&mut allowance, |allowance| allowance.handed(handed)), 1 << 30);
        }
    }

    #[test]
    fn a_second_command_is_no_new_account() {
        let mut allowance = Allowance::by(|| 0);
        allowance.command();
        passes(&mut allowance, |_| {});
        let before = allowance.limit;
        allowance.command();
        assert_eq!(allowance.limit, before);
    }
}
