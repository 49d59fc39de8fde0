//! The one place where the shim waits. Whatever it waits for, the console, the logs and the monitor are read on, so
//! that neither a guest that prints without end nor a talkative program ever stands still.

use super::Shim;
use super::link::Said;
use super::process::{Ended, Feed, Monitor, Vmm};
use super::up::Up;
use crate::store::boot::note_up;
use crate::vmm::files;
use crate::vmm::qemu_qmp::{DiskFailure, Message};
use lib_common::error::{Error, Result};
use lib_common::sys::poll::readable;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// For how long the console rests after it was read: a guest that prints without end has its bytes come one by one, and
/// each would wake us. A socket holds far more than comes in this time.
const REST: Duration = Duration::from_millis(5);

/// How many chunks a process that has ended may have left: more than a pipe or socket holds.
const LAST_CHUNKS: usize = 64;

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
    /// A disk's file could not be written and the guest stands still; or, the first time in a boot, the guest was told that
    /// one could not be read or written.
    DiskFailed(DiskFailure),
    /// Firecracker has written its first line of metrics, which it does when the microVM is built.
    Built,
    /// The guest's kernel has halted, and its VMM cannot know.
    Halted,
    /// The VMM has ended and was reaped.
    VmmEnded(Ended),
    /// vhost-device-vsock has ended and was reaped.
    DeviceEnded(ExitStatus),
    /// None of these came in time.
    Deadline,
}

/// What is waited for. In the order in which it is read: ends come last, when what led to them is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Console,
    VmmStderr,
    VmmLog,
    Metrics,
    DeviceStderr,
    Qmp,
    Signal,
    Starter,
    Up,
    UpLine,
    VmmEnd,
    DeviceEnd,
}

impl Shim {
    /// The next event, at the latest [`Event::Deadline`].
    pub(super) fn next(&mut self, deadline: Instant) -> Result<Event> {
        loop {
            self.note_boot();
            let ready: Vec<Source> = {
                let rest = self.console_rests_until.filter(|until| *until > Instant::now());
                let mut sources = self.sources();
                sources.retain(|(source, _)| rest.is_none() || *source != Source::Console);
                let fds: Vec<BorrowedFd<'_>> = sources.iter().map(|(_, fd)| *fd).collect();
                let halts_at = self.vmm.as_ref().and_then(Vmm::halts_at);
                let until = [rest, halts_at, self.up.as_ref().and_then(Up::deadline)]
                    .into_iter()
                    .flatten()
                    .fold(deadline, Instant::min);
                readable(&fds, until)?.into_iter().map(|i| sources[i].0).collect()
            };
            // What is not taken this time is still readable the next.
            for source in ready {
                if let Some(event) = self.take(source)? {
                    return Ok(event);
                }
            }
            if self.vmm.as_mut().is_some_and(Vmm::has_just_halted) {
                return Ok(Event::Halted);
            }
            // Also where something was read: a guest that prints without end must not keep us here.
            if Instant::now() >= deadline {
                return Ok(Event::Deadline);
            }
        }
    }

    fn sources(&self) -> Vec<(Source, BorrowedFd<'_>)> {
        let (vmm, device) = (self.vmm.as_ref(), self.device.as_ref());
        let (log, metrics) = vmm.map(Vmm::pipes).unwrap_or_default();
        let all = [
            (Source::Console, vmm.and_then(|v| v.console.fd())),
            (Source::VmmStderr, vmm.and_then(|v| v.stderr.fd())),
            (Source::VmmLog, log.and_then(Feed::fd)),
            (Source::Metrics, metrics.and_then(Feed::fd)),
            (Source::DeviceStderr, device.and_then(|d| d.stderr.fd())),
            (Source::Qmp, vmm.and_then(Vmm::qmp).and_then(|qmp| qmp.socket()).map(AsFd::as_fd)),
            (Source::Signal, self.signal),
            (Source::Starter, self.link.as_ref().map(super::Link::fd)),
            (Source::Up, self.up.as_ref().map(Up::listener)),
            (Source::UpLine, self.up.as_ref().and_then(Up::speaker)),
            (Source::VmmEnd, vmm.map(|v| v.child.pidfd().as_fd())),
            (Source::DeviceEnd, device.map(|d| d.child.pidfd().as_fd())),
        ];
        all.into_iter().filter_map(|(source, fd)| Some((source, fd?))).collect()
    }

    fn take(&mut self, source: Source) -> Result<Option<Event>> {
        match source {
            Source::Console | Source::VmmStderr | Source::VmmLog => {
                self.pump(source);
                Ok(None)
            }
            Source::Metrics => {
                let was_built = self.vmm.as_ref().is_some_and(Vmm::is_built);
                self.pump(source);
                let is_built = self.vmm.as_ref().is_some_and(Vmm::is_built);
                Ok((is_built && !was_built).then_some(Event::Built))
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
            Source::UpLine => {
                self.up.as_mut().into_iter().for_each(Up::hear);
                Ok(None)
            }
            Source::VmmEnd => self.take_vmm_end().map(|ended| ended.map(Event::VmmEnded)),
            Source::DeviceEnd => self.take_device_end().map(|status| status.map(Event::DeviceEnded)),
        }
    }

    /// Reads once what the VMM writes there.
    fn pump(&mut self, source: Source) {
        let Some(vmm) = &mut self.vmm else { return };
        match (source, &mut vmm.monitor) {
            (Source::Console, _) => {
                vmm.console.pump(|bytes| {
                    self.console.write(bytes);
                    self.init_failed.read(bytes);
                    vmm.monitor.printed(bytes);
                });
                self.console_rests_until = Some(Instant::now() + REST);
            }
            (Source::VmmLog, Monitor::Firecracker { log, .. }) => log.pump(|bytes| self.log.write(bytes)),
            (Source::Metrics, Monitor::Firecracker { metrics, kept, .. }) => metrics.pump(|bytes| kept.write(bytes)),
            _ => vmm.stderr.pump(|bytes| self.log.write(bytes)),
        }
    }

    /// The shutdown's reason is kept for the end; of the rest the last counts, since commands go one by one.
    fn take_qmp(&mut self) -> Option<Event> {
        let Monitor::Qemu { qmp, shutdown, disk_failed } = &mut self.vmm.as_mut()?.monitor else { return None };
        let messages = match qmp.read() {
            Ok(messages) => messages,
            Err(e) => return Some(Event::Confused(e)),
        };
        let (mut event, mut stopped) = (None, vec![]);
        for message in messages {
            match message {
                Message::Shutdown(reason) => *shutdown = Some(reason),
                Message::Other => {}
                Message::DiskFailed(failure) if failure.stopped => stopped.push(failure),
                Message::DiskFailed(_) if *disk_failed => {}
                Message::DiskFailed(failure) => {
                    *disk_failed = true;
                    event = Some(Event::DiskFailed(failure));
                }
                answer => event = Some(Event::Qmp(answer)),
            }
        }
        // Nothing that came with it may hide that the guest stands still; what is not for want of room goes first.
        stopped.sort_by_key(|failure| failure.used_up.is_some());
        stopped.into_iter().next().map(Event::DiskFailed).or(event)
    }

    /// The guest listens. An agent that comes back says so again: nobody there, and the device would let it wait.
    fn take_up(&mut self) -> Result<()> {
        if self.up.as_mut().is_some_and(Up::accept) {
            let (early, socket) = (self.run_file(files::VSOCK_EARLY), self.run_file(files::VSOCK));
            if early.exists() {
                std::fs::rename(&early, &socket).map_err(|e| Error::io("rename to", &socket, &e))?;
            }
        }
        Ok(())
    }

    /// Writes down what the guest's boot consisted of, once that is known. Nobody's VM fails for it.
    fn note_boot(&mut self) {
        let reboots = self.state.reboots;
        let Some(boot) = self.up.as_mut().and_then(|up| up.take(reboots, Instant::now())) else { return };
        if let Err(e) = note_up(&self.launch.runtime_dir, &boot) {
            self.say(&e.with_causes());
        }
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
        let Some(status) = self.vmm.as_mut().map(Vmm::reap).transpose()?.flatten() else {
            return Ok(None);
        };
        // It may have said and printed something between our last look and its end.
        for _ in 0..LAST_CHUNKS {
            let Some(vmm) = &self.vmm else { break };
            let (log, metrics) = vmm.pipes();
            let more = |feed: Option<&Feed>| feed.is_some_and(Feed::has_more);
            let now = Instant::now();
            let qmp = vmm.qmp().and_then(|qmp| qmp.socket());
            let all = [
                (Source::Console, vmm.console.has_more()),
                (Source::VmmStderr, vmm.stderr.has_more()),
                (Source::VmmLog, more(log)),
                (Source::Metrics, more(metrics)),
                (Source::Qmp, qmp.is_some_and(|s| readable(&[s.as_fd()], now).is_ok_and(|r| !r.is_empty()))),
            ];
            for (source, _) in all.iter().filter(|(_, more)| *more) {
                self.take(*source)?;
            }
            if all.iter().all(|(_, more)| !more) {
                break;
            }
        }
        let reset_is_end = self.run_file(files::ENDING).exists();
        Ok(self.vmm.take().map(|vmm| vmm.ended(status, reset_is_end)))
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
