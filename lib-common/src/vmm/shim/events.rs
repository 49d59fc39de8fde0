//! The one place where the shim waits. Whatever it waits for, the console, the logs and the monitor are read on, so
//! that neither a guest that prints without end nor a talkative program ever stands still.

use super::Shim;
use super::link::Said;
use crate::error::{ChildFailure, Code, Error, Result};
use crate::sys::cmd::{Child, describe};
use crate::sys::poll::readable;
use crate::vmm::files;
use crate::vmm::qemu_qmp::{Message, Qmp};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// How much is read at once, in bytes.
const CHUNK: usize = 16 << 10;

/// For how long the console rests after it was read: a guest that prints without end has its bytes come one by one, and
/// each would wake us. A socket holds far more than comes in this time.
const REST: Duration = Duration::from_millis(5);

/// How many chunks a process that has ended may have left: more than a pipe or socket holds.
const LAST_CHUNKS: usize = 64;

/// How much of a program's last words goes into an error, in bytes.
const TAIL: usize = 1024;

/// Something to act on.
#[derive(Debug)]
pub(super) enum Event {
    /// SIGTERM or SIGINT.
    Stop,
    /// The starter wants the VM to live on.
    Keep,
    /// The starter wants the VM to end with itself.
    Hold,
    /// The starter went without a word.
    Abandoned,
    /// The VMM's monitor.
    Qmp(Message),
    /// The monitor said what cannot be understood, and was closed.
    Confused(Error),
    /// The first time in a boot that a disk's file could not be read or written.
    DiskFailed(String),
    /// The VMM has ended and was reaped.
    VmmEnded(Ended),
    /// vhost-device-vsock has ended and was reaped.
    DeviceEnded(ExitStatus),
    /// None of these came in time.
    Deadline,
}

/// A running VMM and what it writes.
pub(super) struct Vmm {
    pub(super) child: Child,
    pub(super) argv: Vec<String>,
    pub(super) qmp: Qmp,
    pub(super) console: Feed,
    pub(super) stderr: Feed,
    /// The reason of its `SHUTDOWN` event.
    pub(super) shutdown: Option<String>,
    /// Whether a disk has failed already.
    pub(super) disk_failed: bool,
}

/// A running vhost-device-vsock.
pub(super) struct Device {
    pub(super) child: Child,
    pub(super) stderr: Feed,
}

/// A VMM that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// The reason of its `SHUTDOWN` event.
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
        if let Some(line) = self.stderr.lines().rev().find(|l| !l.trim().is_empty()) {
            error = error.also(line.trim().to_owned());
        }
        let child = ChildFailure { argv: self.argv, status: describe(self.status), stderr: self.stderr };
        error.hint(format!("what it said is in {log}")).child(child)
    }
}

/// The reading end of what a child writes, until that ends.
pub(super) struct Feed {
    file: Option<File>,
    tail: Vec<u8>,
}

impl Feed {
    pub(super) fn new(file: File) -> Self {
        Feed { file: Some(file), tail: vec![] }
    }

    /// Reads once, gives that to `sink`, and remembers its end.
    fn pump(&mut self, sink: impl FnOnce(&[u8])) {
        let Some(file) = &mut self.file else { return };
        let mut chunk = [0; CHUNK];
        match file.read(&mut chunk) {
            Ok(n @ 1..) => {
                sink(&chunk[..n]);
                self.tail.extend_from_slice(&chunk[n.saturating_sub(TAIL)..n]);
                self.tail.drain(..self.tail.len().saturating_sub(TAIL));
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => self.file = None,
        }
    }

    fn has_more(&self) -> bool {
        let now = Instant::now();
        self.file.as_ref().is_some_and(|f| readable(&[f.as_fd()], now).is_ok_and(|r| !r.is_empty()))
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }
}

/// What is waited for. In the order in which it is read: ends come last, when what led to them is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Console,
    VmmStderr,
    DeviceStderr,
    Qmp,
    Signal,
    Starter,
    Up,
    VmmEnd,
    DeviceEnd,
}

impl Shim {
    /// The next event, at the latest [`Event::Deadline`].
    pub(super) fn next(&mut self, deadline: Instant) -> Result<Event> {
        loop {
            let ready: Vec<Source> = {
                let rest = self.console_rests_until.filter(|until| *until > Instant::now());
                let mut sources = self.sources();
                sources.retain(|(source, _)| rest.is_none() || *source != Source::Console);
                let fds: Vec<BorrowedFd<'_>> = sources.iter().map(|(_, fd)| *fd).collect();
                let until = rest.map_or(deadline, |rest| rest.min(deadline));
                readable(&fds, until)?.into_iter().map(|i| sources[i].0).collect()
            };
            // What is not taken this time is still readable the next.
            for source in ready {
                if let Some(event) = self.take(source)? {
                    return Ok(event);
                }
            }
            // Also where something was read: a guest that prints without end must not keep us here.
            if Instant::now() >= deadline {
                return Ok(Event::Deadline);
            }
        }
    }

    fn sources(&self) -> Vec<(Source, BorrowedFd<'_>)> {
        let (vmm, device) = (self.vmm.as_ref(), self.device.as_ref());
        let all = [
            (Source::Console, vmm.and_then(|v| v.console.fd())),
            (Source::VmmStderr, vmm.and_then(|v| v.stderr.fd())),
            (Source::DeviceStderr, device.and_then(|d| d.stderr.fd())),
            (Source::Qmp, vmm.and_then(|v| v.qmp.socket()).map(AsFd::as_fd)),
            (Source::Signal, self.signal),
            (Source::Starter, self.link.as_ref().map(super::Link::fd)),
            (Source::Up, self.up.as_ref().map(AsFd::as_fd)),
            (Source::VmmEnd, vmm.map(|v| v.child.pidfd().as_fd())),
            (Source::DeviceEnd, device.map(|d| d.child.pidfd().as_fd())),
        ];
        all.into_iter().filter_map(|(source, fd)| Some((source, fd?))).collect()
    }

    fn take(&mut self, source: Source) -> Result<Option<Event>> {
        match source {
            Source::Console | Source::VmmStderr => {
                if let Some(vmm) = &mut self.vmm {
                    match source {
                        Source::Console => {
                            vmm.console.pump(|bytes| self.console.write(bytes));
                            self.console_rests_until = Some(Instant::now() + REST);
                        }
                        _ => vmm.stderr.pump(|bytes| self.log.write(bytes)),
                    }
                }
                Ok(None)
            }
            Source::DeviceStderr => {
                if let Some(device) = &mut self.device {
                    device.stderr.pump(|bytes| self.log.write(bytes));
                }
                Ok(None)
            }
            Source::Qmp => Ok(self.take_qmp()),
            // Whoever ends a VM may do so right after `keep`: that came first, though poll looked there too early.
            Source::Signal if self.starter_speaks() => Ok(self.take_said()),
            Source::Signal => {
                self.signal = None;
                self.stopping = true;
                Ok(Some(Event::Stop))
            }
            Source::Starter => Ok(self.take_said()),
            Source::Up => self.take_up().map(|()| None),
            Source::VmmEnd => self.take_vmm_end().map(|ended| ended.map(Event::VmmEnded)),
            Source::DeviceEnd => self.take_device_end().map(|status| status.map(Event::DeviceEnded)),
        }
    }

    /// The shutdown's reason is kept for the end; of the rest the last counts, since commands go one by one.
    fn take_qmp(&mut self) -> Option<Event> {
        let vmm = self.vmm.as_mut()?;
        let messages = match vmm.qmp.read() {
            Ok(messages) => messages,
            Err(e) => return Some(Event::Confused(e)),
        };
        let mut event = None;
        for message in messages {
            match message {
                Message::Shutdown(reason) => vmm.shutdown = Some(reason),
                Message::Other => {}
                Message::DiskFailed(_) if vmm.disk_failed => {}
                Message::DiskFailed(what) => {
                    vmm.disk_failed = true;
                    event = Some(Event::DiskFailed(what));
                }
                answer => event = Some(Event::Qmp(answer)),
            }
        }
        event
    }

    /// The guest listens. An agent that comes back says so again: nobody there, and the device would let it wait.
    fn take_up(&mut self) -> Result<()> {
        if self.up.as_ref().is_some_and(|up| up.accept().is_ok()) {
            let (early, socket) = (self.run_file(files::VSOCK_EARLY), self.run_file(files::VSOCK));
            if early.exists() {
                std::fs::rename(&early, &socket).map_err(|e| Error::io("rename to", &socket, &e))?;
            }
        }
        Ok(())
    }

    fn take_said(&mut self) -> Option<Event> {
        match self.link.as_mut()?.read() {
            Said::Nothing => None,
            Said::Keep => Some(Event::Keep),
            Said::Hold => Some(Event::Hold),
            Said::Gone => Some(Event::Abandoned),
        }
    }

    fn starter_speaks(&self) -> bool {
        let now = Instant::now();
        self.link.as_ref().is_some_and(|link| readable(&[link.fd()], now).is_ok_and(|r| !r.is_empty()))
    }

    fn take_vmm_end(&mut self) -> Result<Option<Ended>> {
        let Some(status) = self.vmm.as_mut().map(|v| v.child.try_wait()).transpose()?.flatten() else {
            return Ok(None);
        };
        // It may have said and printed something between our last look and its end.
        for _ in 0..LAST_CHUNKS {
            let Some(vmm) = &self.vmm else { break };
            let (console, stderr) = (vmm.console.has_more(), vmm.stderr.has_more());
            let now = Instant::now();
            let qmp = vmm.qmp.socket().is_some_and(|s| readable(&[s.as_fd()], now).is_ok_and(|r| !r.is_empty()));
            for (more, source) in [(console, Source::Console), (stderr, Source::VmmStderr), (qmp, Source::Qmp)] {
                if more {
                    self.take(source)?;
                }
            }
            if !console && !stderr && !qmp {
                break;
            }
        }
        Ok(self.vmm.take().map(|vmm| Ended {
            status,
            shutdown: vmm.shutdown,
            argv: vmm.argv,
            stderr: String::from_utf8_lossy(&vmm.stderr.tail).into_owned(),
        }))
    }

    fn take_device_end(&mut self) -> Result<Option<ExitStatus>> {
        let Some(device) = &mut self.device else { return Ok(None) };
        let Some(status) = device.child.try_wait()? else { return Ok(None) };
        for _ in 0..LAST_CHUNKS {
            if !device.stderr.has_more() {
                break;
            }
            device.stderr.pump(|bytes| self.log.write(bytes));
        }
        self.device = None;
        Ok(Some(status))
    }
}
