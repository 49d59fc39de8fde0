//! The processes of a running VM, what they write, and what their end means.

use super::halt::Halt;
use super::reason::reason;
use crate::vmm::capped::Capped;
use crate::vmm::qemu_qmp::Qmp;
use lib_common::error::{ChildFailure, Code, Error, Result};
use lib_common::sys::cmd::{Child, describe};
use lib_common::sys::poll::readable;
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// How much is read at once, in bytes.
const CHUNK: usize = 16 << 10;

/// How much of a program's last words goes into an error, in bytes.
const TAIL: usize = 1024;

/// A running VMM and what it writes.
pub(super) struct Vmm {
    pub(super) child: Child,
    pub(super) argv: Vec<String>,
    pub(super) console: Feed,
    pub(super) stderr: Feed,
    pub(super) monitor: Monitor,
}

/// By what its parent knows what a VMM does.
pub(super) enum Monitor {
    Qemu {
        qmp: Qmp,
        /// The reason of its `SHUTDOWN` event.
        shutdown: Option<String>,
        /// Whether a disk has failed already.
        disk_failed: bool,
    },
    Firecracker {
        log: Feed,
        metrics: Feed,
        /// Where the metrics go.
        kept: Capped,
        halt: Halt,
        /// The other end of its stdin: without it, the serial console would be at its end.
        _stdin: File,
    },
}

/// A running vhost-device-vsock.
pub(super) struct Device {
    pub(super) child: Child,
    pub(super) stderr: Feed,
}

impl Monitor {
    /// Reads along on the console.
    pub(super) fn printed(&mut self, bytes: &[u8]) {
        if let Monitor::Firecracker { halt, .. } = self {
            halt.read(bytes, Instant::now());
        }
    }
}

impl Vmm {
    /// Its status if it has ended. What a script started beside it ends with it, since that has the VM's lock, too.
    pub(super) fn reap(&mut self) -> Result<Option<ExitStatus>> {
        if self.child.pidfd().wait(Duration::ZERO)? {
            self.child.signal_group(Signal::SIGKILL);
        }
        self.child.try_wait()
    }

    /// QEMU's monitor.
    pub(super) fn qmp(&self) -> Option<&Qmp> {
        match &self.monitor {
            Monitor::Qemu { qmp, .. } => Some(qmp),
            Monitor::Firecracker { .. } => None,
        }
    }

    /// True if Firecracker has written a line of metrics: before that it is building the microVM.
    pub(super) fn is_built(&self) -> bool {
        self.pipes().1.is_some_and(|metrics| metrics.has_line)
    }

    /// Firecracker's log and metrics.
    pub(super) fn pipes(&self) -> (Option<&Feed>, Option<&Feed>) {
        match &self.monitor {
            Monitor::Qemu { .. } => (None, None),
            Monitor::Firecracker { log, metrics, .. } => (Some(log), Some(metrics)),
        }
    }

    /// When the guest will be known to have halted, unless it prints something before.
    pub(super) fn halts_at(&self) -> Option<Instant> {
        match &self.monitor {
            Monitor::Firecracker { halt, .. } => halt.at(),
            Monitor::Qemu { .. } => None,
        }
    }

    /// Whether that time has come; said once.
    pub(super) fn has_just_halted(&mut self) -> bool {
        match &mut self.monitor {
            Monitor::Firecracker { halt, .. } => halt.take(Instant::now()),
            Monitor::Qemu { .. } => false,
        }
    }

    /// Why it has ended, in a word of qapi's `ShutdownCause`, where that is known. `reset_is_end`: whether the guest was
    /// asked to end by a reset.
    ///
    /// Firecracker exits with 0 on a guest's reset, of which there are several kinds, and on its power-off where the
    /// architecture has one.
    fn why(&self, status: ExitStatus, reset_is_end: bool) -> Option<String> {
        match &self.monitor {
            Monitor::Qemu { shutdown, .. } => shutdown.clone(),
            Monitor::Firecracker { .. } if !status.success() => None,
            Monitor::Firecracker { halt, .. } if reset_is_end || halt.has_said() => Some("guest-shutdown".into()),
            Monitor::Firecracker { .. } => Some("guest-reset".into()),
        }
    }

    /// It as one that has ended and was reaped; for `reset_is_end` see [`Vmm::why`].
    pub(super) fn ended(self, status: ExitStatus, reset_is_end: bool) -> Ended {
        let shutdown = self.why(status, reset_is_end);
        let log = self.pipes().0.map(|log| log.tail.as_slice()).unwrap_or_default();
        let said = [self.stderr.tail.as_slice(), log].concat();
        Ended { status, shutdown, argv: self.argv, stderr: String::from_utf8_lossy(&said).into_owned() }
    }
}

/// A VMM that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// Why, in a word of qapi's `ShutdownCause`.
    pub(super) shutdown: Option<String>,
    argv: Vec<String>,
    stderr: String,
}

impl Ended {
    #[cfg(test)]
    pub(super) fn example(status: ExitStatus, shutdown: Option<&str>) -> Self {
        let stderr = "qemu: a warning\ncould not load kernel\n\n".to_owned();
        Ended { status, shutdown: shutdown.map(str::to_owned), argv: vec!["qemu".into()], stderr }
    }

    /// `exit 0`, `signal 9`; with the VMM's own reason where it gave one.
    pub(super) fn in_words(&self) -> String {
        match &self.shutdown {
            Some(reason) => format!("{}, {reason}", describe(self.status)),
            None => describe(self.status),
        }
    }

    /// The error for a VMM that ended before its time.
    pub(super) fn into_error(self, log: &str) -> Error {
        let mut error = Error::new(Code::VmmFailed, format!("the VMM ended at once ({})", self.in_words()));
        if let Some(reason) = reason(&self.stderr) {
            error = error.also(reason);
        }
        let child = ChildFailure { argv: self.argv, status: describe(self.status), stderr: self.stderr };
        error.hint(format!("what it said is in {log}")).child(child)
    }
}

/// The reading end of what a child writes, until that ends.
pub(super) struct Feed {
    file: Option<File>,
    tail: Vec<u8>,
    /// Whether a whole line has come.
    has_line: bool,
}

impl Feed {
    pub(super) fn new(file: File) -> Self {
        Feed { file: Some(file), tail: vec![], has_line: false }
    }

    /// Reads once, gives that to `sink`, and remembers its end.
    pub(super) fn pump(&mut self, sink: impl FnOnce(&[u8])) {
        let Some(file) = &mut self.file else { return };
        let mut chunk = [0; CHUNK];
        match file.read(&mut chunk) {
            Ok(n @ 1..) => {
                sink(&chunk[..n]);
                self.has_line |= chunk[..n].contains(&b'\n');
                self.tail.extend_from_slice(&chunk[n.saturating_sub(TAIL)..n]);
                self.tail.drain(..self.tail.len().saturating_sub(TAIL));
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => self.file = None,
        }
    }

    pub(super) fn has_more(&self) -> bool {
        let now = Instant::now();
        self.file.as_ref().is_some_and(|f| readable(&[f.as_fd()], now).is_ok_and(|r| !r.is_empty()))
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }
}
