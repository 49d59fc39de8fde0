//! Threads: where the system has none left, that is an error like any other, and no panic.

use crate::error::{Code, Error, Result};
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// No more than this are done by one thread.
const A_FEW: usize = 32;

/// More threads than this wait for each other.
const MOST_THREADS: usize = 4;

/// Runs it in a thread of its own.
///
/// # Errors
/// [`Code::Os`] where there may be no more threads (pthread_create(3)).
pub fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    Builder::new().spawn(work).map_err(|e| refused(&e))
}

/// The same in a scope.
///
/// # Errors
/// As [`spawn`].
pub fn scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().spawn_scoped(scope, work).map_err(|e| refused(&e))
}

fn refused(e: &std::io::Error) -> Error {
    Error::new(Code::Os, "cannot start a thread").because(e).hint("see how many processes you may have: ulimit -u")
}

/// Does it for parts of a list, in as many threads as there are processors. Gives what each part gave, in order.
pub fn in_threads<I: Sync, T: Send>(items: &[I], work: impl Fn(&[I]) -> T + Sync) -> Vec<T> {
    let threads = match items.len() {
        // A thread costs as much as some of them.
        0..=A_FEW => 1,
        _ => std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS),
    };
    let mut parts = items.chunks(items.len().div_ceil(threads).max(1));
    std::thread::scope(|scope| {
        let first = parts.next().unwrap_or_default();
        let work = &work;
        let others: Vec<_> = parts.map(|part| (part, scoped(scope, move || work(part)).ok())).collect();
        let mut all = vec![work(first)];
        all.extend(others.into_iter().map(|(part, other)| match other {
            // A panic is told as one of this thread would be.
            Some(other) => other.join().unwrap_or_else(|e| std::panic::resume_unwind(e)),
            // There may be no more threads.
            None => work(part),
        }));
        all
    })
}
