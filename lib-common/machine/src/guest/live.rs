//! A running VM as its clients see it: where its vsock is, whether it still lives, and trying again until it answers.

use crate::store::boot::Booted;
use crate::store::{MachineDir, paused_in, vm_lock};
use lib_common::doc::{Document, ExitInfo, Name, Paused, State, Status, Vmm};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::process::{PidFd, ProcessId};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The first pause between two attempts; each is half as long again as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// A VM that ran a moment ago.
#[derive(Debug)]
pub struct Live {
    /// Its name.
    pub name: Name,
    /// The Unix socket that takes `CONNECT PORT`.
    pub vsock: PathBuf,
    /// bg-shim: a guest's reboot changes the VMM's process and leaves this one.
    shim: PidFd,
}

impl Live {
    /// The VM that a document's section `vmm` speaks of.
    ///
    /// # Errors
    /// [`Code::NotRunning`] where it has ended; [`Code::BadDocument`] without that section.
    pub fn of(doc: &Document) -> Result<Self> {
        let name = doc.name()?;
        let vmm: Vmm = doc.require()?;
        let shim = ProcessId::noted(vmm.shim_pid, vmm.shim_start_time, vmm.boot_id);
        match shim.open()? {
            Some(shim) => Ok(Live { name, vsock: vmm.vsock.to_path_buf(), shim }),
            None => Err(ended(&name)),
        }
    }

    /// The VM of the store, with its record as it is now (without what is computed, but for `vmm`).
    ///
    /// # Errors
    /// [`Code::NotRunning`] where it does not run or is still being started.
    pub fn in_store(machine: &MachineDir) -> Result<(Self, Document)> {
        vm_lock::refuse_elsewhere(machine.path())?;
        let mut doc = machine.current()?;
        let status: Status = doc.require()?;
        let name = machine.name();
        if !status.state.lives() || !doc.has("vmm") {
            let error = Error::new(Code::NotRunning, format!("the VM `{name}` is not running"));
            return Err(match (status.state, status.exit) {
                (State::Running | State::Paused, _) => error.also("it is just being started"),
                (State::Crashed, exit) => error
                    .also(crash(exit.as_ref()))
                    .hint(format!("`bg-vm logs {name}` shows its console, `bg-vm start {name}` starts it again")),
                _ => error.hint(format!("`bg-vm start {name}` starts it")),
            });
        }
        doc.remove("status");
        Ok((Live::of(&doc)?, doc))
    }

    /// Its guest's boot; `None` before that is up.
    pub fn booted(&self) -> Option<Booted> {
        Booted::at(self.runtime_dir())
    }

    /// Where its sockets are.
    pub fn runtime_dir(&self) -> &Path {
        self.vsock.parent().unwrap_or(&self.vsock)
    }

    /// Readable when it has ended.
    pub fn ends(&self) -> BorrowedFd<'_> {
        self.shim.as_fd()
    }

    /// Whether it has ended by now.
    pub fn has_ended(&self) -> Result<bool> {
        self.shim.wait(Duration::ZERO)
    }

    /// Calls `attempt` until it gives anything but [`Code::GuestUnreachable`], with short growing pauses, at least once.
    ///
    /// # Errors
    /// What `attempt` gave at last, as [`Code::TimedOut`], when `deadline` has passed; [`Code::NotRunning`] as soon as
    /// the VM has ended; a signal's.
    pub fn retry<T>(&self, deadline: Instant, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            // A paused guest answers nobody, and is not even asked: it may go on.
            let attempted = self.paused().map_or_else(&mut attempt, |paused| Err(is_paused(&paused)));
            let e = match attempted {
                Err(e) if e.code() == Code::GuestUnreachable => e,
                other => return other,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if self.shim.wait(pause.min(left))? {
                return Err(ended(&self.name));
            }
            if left.is_zero() {
                let waited = begun.elapsed().as_secs_f32();
                if let Some(paused) = self.paused() {
                    let error = paused_error(&self.name, &paused).with_code(Code::TimedOut);
                    return Err(error.also(format!("it did not go on within {waited:.1} s")));
                }
                let error = e
                    .with_code(Code::TimedOut)
                    .within(format!("the VM `{}` is not ready after {waited:.1} s", self.name));
                return Err(error.hint(format!("`bg-vm logs {}` shows its console", self.name)));
            }
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    /// The error to give for a failed attempt that is not repeated: a VM that has ended or is paused explains every other.
    pub fn explain(&self, e: Error) -> Error {
        if e.code() != Code::GuestUnreachable {
            return e;
        }
        if self.has_ended().unwrap_or(false) {
            return ended(&self.name);
        }
        self.paused().map_or(e, |paused| paused_error(&self.name, &paused))
    }

    /// Why it is paused, where it is.
    pub fn paused(&self) -> Option<Paused> {
        paused_in(self.runtime_dir())
    }
}

/// The error of a guest that stands still, for whoever tries again.
pub(super) fn is_paused(paused: &Paused) -> Error {
    super::unreachable(format!("it is paused: {paused}"))
}

fn paused_error(name: &Name, paused: &Paused) -> Error {
    let hint = match paused.resumes {
        true => format!("make room there and it goes on by itself; `bg-vm kill {name}` ends it"),
        false => format!("bg-vm restart {name}"),
    };
    Error::new(Code::GuestUnreachable, format!("the VM `{name}` is paused: {paused}")).hint(hint)
}

fn ended(name: &Name) -> Error {
    Error::new(Code::NotRunning, format!("the VM `{name}` has ended")).hint(format!("`bg-vm logs {name}` shows why"))
}

fn crash(exit: Option<&ExitInfo>) -> String {
    match exit {
        Some(exit) => format!("it crashed at {} ({})", exit.at, exit.status),
        None => "it died without a word".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::testing::{document, stand_in};

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(60)
    }

    #[test]
    fn an_attempt_is_repeated_until_it_succeeds_or_fails_for_another_reason() {
        let (_child, vmm) = stand_in(Path::new("/v"));
        let live = Live::of(&document(&vmm)).unwrap();
        let mut left = 3;
        let counted = live.retry(Instant::now() + Duration::from_secs(10), || {
            left -= 1;
            if left > 0 { Err(crate::guest::unreachable("no")) } else { Ok(left) }
        });
        assert_eq!(counted.unwrap(), 0);
        let e = live.retry(soon(), || Err::<(), _>(Error::new(Code::Io, "disk on fire"))).unwrap_err();
        assert_eq!(e.code(), Code::Io);
        let e = live.retry(soon(), || Err::<(), _>(crate::guest::unreachable("still booting"))).unwrap_err();
        assert_eq!((e.code(), e.causes()[0].as_str()), (Code::TimedOut, "still booting"));
        assert!(e.get_hint().unwrap().contains("bg-vm logs dev"));
    }

    #[test]
    fn the_end_of_the_vm_ends_the_wait_at_once() {
        let (child, vmm) = stand_in(Path::new("/v"));
        let live = Live::of(&document(&vmm)).unwrap();
        assert!(!live.has_ended().unwrap());
        let begun = Instant::now();
        let mut child = Some(child);
        let e = live.retry(begun + Duration::from_secs(600), || {
            child.take();
            Err::<(), _>(crate::guest::unreachable("no"))
        });
        assert_eq!(e.unwrap_err().code(), Code::NotRunning);
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(Live::of(&document(&vmm)).unwrap_err().code(), Code::NotRunning);
        assert_eq!(live.explain(crate::guest::unreachable("no")).code(), Code::NotRunning);
    }

    #[test]
    fn another_process_with_its_pid_is_not_the_vm() {
        let (_child, vmm) = stand_in(Path::new("/v"));
        let stranger = Vmm { shim_start_time: vmm.shim_start_time + 1, ..vmm };
        assert_eq!(Live::of(&document(&stranger)).unwrap_err().code(), Code::NotRunning);
    }
}
