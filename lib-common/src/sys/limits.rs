//! What a crash of a tool, or of a program that it starts, may leave behind; and what its parent's end does to it.

use crate::error::{Context, Result};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;

/// Has neither this process nor its children write core dumps: they hold private keys and guests' memory.
pub fn no_core_dumps() -> Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("cannot switch core dumps off")
}

/// Keeps other processes of this user from reading this process's memory, and a core dump from a program that collects them, which
/// RLIMIT_CORE does not bind.
///
/// For short-lived tools that hold a private key alone: while it is in force, root owns this process's files in /proc, and the
/// user's other tools cannot see what it runs. An execve(2) ends it.
pub fn hide_memory() -> Result<()> {
    nix::sys::prctl::set_dumpable(false).context("cannot hide this process's memory")
}

/// Has this process get SIGTERM, which cancels, when the process that started it ends.
pub fn end_with_parent() -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).context("cannot watch the parent")
}
