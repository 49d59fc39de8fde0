//! Threads: where the system has none left, that is an error like any other, and no panic.

use crate::error::{Code, Error, Result};
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

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
