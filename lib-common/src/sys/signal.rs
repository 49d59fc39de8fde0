//! SIGINT, SIGQUIT, SIGTERM, SIGHUP and SIGXCPU, as a state that long work asks for and a descriptor that waits can poll.
//!
//! Signals belong to the process, so this state does too. The first one cancels; what is undone after it runs in a
//! [`shield`], where nothing is cancelled again.

#![allow(unsafe_code)]

use crate::error::{Code, Context, Error, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

static GOT: AtomicI32 = AtomicI32::new(0);
static FD: AtomicI32 = AtomicI32::new(-1);
static UNDONE: AtomicBool = AtomicBool::new(false);
static SHIELDS: AtomicUsize = AtomicUsize::new(0);
static EVENT: OnceLock<EventFd> = OnceLock::new();

extern "C" fn on_signal(signal: i32) {
    let _ = GOT.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
    let one: u64 = 1;
    // SAFETY: write(2) is async-signal-safe, the buffer is eight live bytes, and the descriptor is never closed.
    unsafe { nix::libc::write(FD.load(Ordering::SeqCst), (&raw const one).cast(), 8) };
}

/// Does nothing: a handler, unlike `SIG_IGN`, is not inherited by the programs that are started.
extern "C" fn on_full_file(_: i32) {}

/// Makes SIGINT, SIGQUIT, SIGTERM and SIGXCPU (a limit on processor time) cancel instead of kill, and SIGHUP, which comes when a
/// terminal is closed, unless the parent has it ignored (nohup(1)). A write beyond a limit on files' sizes fails with EFBIG,
/// without SIGXFSZ. To be called once, first thing in `main`.
pub fn install() -> Result<()> {
    let event = match EVENT.get() {
        Some(event) => event,
        None => {
            let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
            let made = EventFd::from_value_and_flags(0, flags).context("cannot prepare for signals")?;
            EVENT.get_or_init(|| made)
        }
    };
    FD.store(event.as_fd().as_raw_fd(), Ordering::SeqCst);
    // No SA_RESTART: a blocking read or flock ends with EINTR, and its caller asks `check`.
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::empty(), SigSet::empty());
    let full_file = SigAction::new(SigHandler::Handler(on_full_file), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGXFSZ, &full_file) }?;
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGXCPU, Signal::SIGHUP] {
        // SAFETY: the handler touches atomics and an eventfd only.
        let before = unsafe { sigaction(signal, &action) }?;
        if signal == Signal::SIGHUP && matches!(before.handler(), SigHandler::SigIgn) {
            // SAFETY: to ignore a signal runs nothing.
            unsafe { sigaction(signal, &before) }?;
        }
    }
    Ok(())
}

/// The error to end with if a signal came: [`Code::Interrupted`] or [`Code::Terminated`].
pub fn check() -> Result<()> {
    if SHIELDS.load(Ordering::SeqCst) > 0 {
        return Ok(());
    }
    let undone = if UNDONE.load(Ordering::SeqCst) { "; what was begun has been undone" } else { "" };
    match GOT.load(Ordering::SeqCst) {
        0 => Ok(()),
        nix::libc::SIGINT | nix::libc::SIGQUIT => Err(Error::new(Code::Interrupted, format!("interrupted{undone}"))),
        nix::libc::SIGXCPU => {
            Err(Error::new(Code::Terminated, format!("the limit on processor time is reached{undone}"))
                .hint("see the limit: ulimit -t"))
        }
        _ => Err(Error::new(Code::Terminated, format!("terminated{undone}"))),
    }
}

/// Says that an operation was taken back whole: the error of a signal tells so from now on, and does not before.
pub fn note_undone() {
    UNDONE.store(true, Ordering::SeqCst);
}

/// Makes a system call again that a signal has interrupted, unless that was to cancel.
pub fn restarted<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(nix::errno::Errno::EINTR) if check().is_ok() => {}
            other => return other,
        }
    }
}

/// Becomes readable when a signal has come; `None` inside a [`shield`] and where nothing was installed.
pub fn fd() -> Option<BorrowedFd<'static>> {
    if SHIELDS.load(Ordering::SeqCst) > 0 {
        return None;
    }
    EVENT.get().map(AsFd::as_fd)
}

/// While it lives, nothing in this process is cancelled: for undoing what was begun.
#[must_use]
pub struct Shield(());

/// Begins a shielded stretch.
pub fn shield() -> Shield {
    SHIELDS.fetch_add(1, Ordering::SeqCst);
    Shield(())
}

impl Drop for Shield {
    fn drop(&mut self) {
        SHIELDS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A pipe or socket whose reads end with an error when a signal has come. (`Read`'s helpers begin anew after an
/// interrupted read, so without this a signal would wait for the writer.)
#[derive(Debug)]
pub struct Interruptible<T>(pub T);

impl<T: Read + AsFd> Read for Interruptible<T> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            check().map_err(std::io::Error::other)?;
            let input = PollFd::new(self.0.as_fd(), PollFlags::POLLIN);
            let ready = match fd() {
                Some(signal) => {
                    let mut both = [input, PollFd::new(signal, PollFlags::POLLIN)];
                    poll(&mut both, PollTimeout::NONE).map(|_| both[0].any() == Some(true))
                }
                None => poll(&mut [input], PollTimeout::NONE).map(|_| true),
            };
            match ready {
                Ok(true) => return self.0.read(buffer),
                Ok(false) | Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn an_interruptible_pipe_reads_to_its_end() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let writing = std::thread::spawn(move || writer.write_all(&[7; 200_000]));
        let mut all = vec![];
        Interruptible(reader).read_to_end(&mut all).unwrap();
        writing.join().unwrap().unwrap();
        assert_eq!(all, [7; 200_000]);
    }
}
