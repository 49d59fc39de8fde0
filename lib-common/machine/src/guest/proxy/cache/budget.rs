//! How much may still be stored: a guest chooses what it downloads, and must not fill the host's disk by it.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that nobody has taken yet. None at first.
#[derive(Debug, Default)]
pub struct Budget(AtomicU64);

/// What one download has taken of it; dropped, it is given back, but for what was spent.
#[derive(Debug)]
pub struct Part<'a> {
    budget: &'a Budget,
    taken: u64,
}

impl Budget {
    /// So many bytes.
    pub fn new(bytes: u64) -> Self {
        Budget(AtomicU64::new(bytes))
    }

    /// A part of so many bytes at first; `None` where there are not as many left.
    pub fn part(&self, bytes: u64) -> Option<Part<'_>> {
        let mut part = Part { budget: self, taken: 0 };
        part.grow(bytes).is_ok().then_some(part)
    }
}

impl Part<'_> {
    /// Takes more.
    ///
    /// # Errors
    /// `QuotaExceeded`: there are not as many left.
    pub fn grow(&mut self, bytes: u64) -> io::Result<()> {
        // A number alone: nothing else is ordered by it.
        let less = |left: u64| left.checked_sub(bytes);
        let taken = self.budget.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.map_err(|_| io::Error::new(ErrorKind::QuotaExceeded, "the cache takes no more"))?;
        self.taken += bytes;
        Ok(())
    }

    /// What stays on the disk is not given back.
    pub fn spend(&mut self, bytes: u64) {
        self.taken = self.taken.saturating_sub(bytes);
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_spent_comes_back() {
        let budget = Budget::new(10);
        let mut part = budget.part(4).unwrap();
        assert!(budget.part(7).is_none());
        part.grow(6).unwrap();
        assert_eq!(part.grow(1).unwrap_err().kind(), ErrorKind::QuotaExceeded);
        part.spend(3);
        drop(part);
        assert!(budget.part(8).is_none());
        drop(budget.part(7).unwrap());
        assert!(budget.part(7).is_some());
    }
}
