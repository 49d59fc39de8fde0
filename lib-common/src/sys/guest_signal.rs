//! The two signal calls of the guest agent for which nix has no safe form. Knows no domain.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};

/// Sends the real-time signal SIGRTMIN + `offset` to process `pid`. nix's `Signal` has no real-time signals.
///
/// # Errors
/// kill(2)'s: EPERM, ESRCH, and EINVAL where `offset` leads beyond SIGRTMAX.
pub fn send_realtime(pid: i32, offset: i32) -> Result<(), Errno> {
    // SAFETY: kill() takes two integers and touches no memory of ours.
    Errno::result(unsafe { libc::kill(pid, libc::SIGRTMIN() + offset) }).map(drop)
}

/// Gives SIGPIPE its default action again. Rust's runtime ignores it, and an ignored signal stays ignored across
/// execve(2), so a program that takes this one's place would inherit that.
///
/// # Errors
/// sigaction(2)'s; there are none for this signal.
pub fn default_sigpipe() -> Result<(), Errno> {
    // SAFETY: SIG_DFL is no handler, so no code of ours runs in signal context.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.map(drop)
}
