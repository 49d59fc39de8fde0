//! `bg-shim`: the parent of one running VM, from its first boot to its end. It owns the VM's processes, the console's
//! log, the runtime directory and `exit.json`; it knows no records of the store, and opens no network port.
//!
//! One thread waits for everything in one place ([`events`]); whatever else is here reads like the life of a VM.
//! One thread also because a parent's death is that of the thread that started the child (prctl(2), PR_SET_PDEATHSIG).

mod boot;
mod boot_firecracker;
mod boot_qemu;
mod events;
mod halt;
mod init_failed;
mod launch_file;
mod link;
mod pause;
mod process;
mod reason;
mod up;

use crate::store::vm_lock;
use crate::vmm::capped::Capped;
use crate::vmm::files;
use crate::vmm::qemu_qmp::Message;
use events::Event;
use init_failed::InitFailed;
use launch_file::{check, read_strict};
use lib_common::doc::{ExitInfo, Identity, Launch, ProcessDoc, ShimReply, ShimState, to_json};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::Cmd;
use lib_common::sys::fs::{remove_file, replace, save};
use lib_common::sys::process::ProcessId;
use lib_common::sys::tsc::TscMeter;
use lib_common::sys::{cmd, signal, socket};
use lib_common::timing::now;
use link::Link;
use nix::sys::signal::Signal;
use pause::Pause;
pub use pause::{GOES_ON_WITHIN, can_go_on};
use process::{Device, Ended, Vmm};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use up::Up;

/// How long the starter may take to save its record.
const KEEP_WITHIN: Duration = Duration::from_secs(60);

/// How long a VMM that was told to end may take to flush its disks.
const GRACE: Duration = Duration::from_secs(2);

/// A run shorter than this that ends in a reboot counts towards [`MOST_QUICK_REBOOTS`].
const QUICK: Duration = Duration::from_secs(10);

/// After so many quick reboots in a row it is a loop, such as of a kernel that panics.
const MOST_QUICK_REBOOTS: u32 = 5;

/// The shim's own log may have so many bytes.
const LOG_BYTES: u64 = 256 << 10;

/// The VM and all that belongs to it. Dropped, nothing of it is left.
struct Shim {
    launch: Launch,
    identity: Identity,
    state: ShimState,
    /// The VM's own lock, which the VMM inherits. Not even dropping the shim closes it: the process holds it to its end.
    lock: &'static File,
    link: Option<Link>,
    /// Readable when this process is told to end; `None` once that was seen.
    signal: Option<BorrowedFd<'static>>,
    stopping: bool,
    /// Runs for as long as the shim, so each reboot's answer is more exact.
    tsc: Option<TscMeter>,
    vmm: Option<Vmm>,
    device: Option<Device>,
    /// Where the guest says that it is up, and whether it has, in this boot.
    up: Option<Up>,
    /// When a paused guest is let go on.
    pause: Pause,
    console: Capped,
    init_failed: InitFailed,
    console_rests_until: Option<Instant>,
    log: Capped,
}

/// How often the runtime directory is tried to be removed while others write to it.
const REMOVALS: u32 = 10;

/// How a VM ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Poweroff,
    Reboot,
    Killed,
    Crashed,
}

/// Runs the VM that the launch file describes, to its end. To be called by `bg-shim` alone, on its main thread.
pub fn run(launch_file: &Path) -> Result<()> {
    let signal = signal::fd();
    // From here on a signal is an event among others, and ends no wait by itself.
    let _shield = signal::shield();
    let mut link = Link::new(socket::inherited()?);
    if link.is_gone() {
        // Whoever starts the VM next has the directory by now.
        return Err(Error::new(Code::Terminated, "the starter went away before the VM was begun"));
    }
    let shim = settle().and_then(|()| Shim::new(launch_file));
    match shim {
        Ok(mut shim) => {
            shim.signal = signal;
            shim.link = Some(link);
            shim.live()
        }
        Err(e) => {
            link.send(&ShimReply::Failed(failure(&e)));
            Err(e)
        }
    }
}

/// What every process of the VM inherits.
fn settle() -> Result<()> {
    std::env::set_current_dir("/")?;
    // Files and sockets are 0600 when they are made, without a moment in between; the shim makes no directories.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    // A core file would have the guest's memory in it.
    Ok(nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)?)
}

impl Shim {
    fn new(launch_file: &Path) -> Result<Self> {
        let tsc = TscMeter::begin();
        let launch: Launch = read_strict(launch_file)?;
        check(&launch)?;
        let identity = read_strict(&launch.runtime_dir.join(files::IDENTITY))?;
        // Before anything runs that could write to the VM's disks.
        let lock = Box::leak(Box::new(vm_lock::take(launch.exit_file.parent().unwrap_or(Path::new("/")))?));
        let shim = own_process()?;
        let state = ShimState {
            machine_id: launch.machine_id.clone(),
            shim,
            vmm: None,
            vsock_device: None,
            reboots: 0,
            paused: None,
        };
        let console = Capped::open(&launch.console, launch.console_bytes)?;
        let log = Capped::open(&launch.log, LOG_BYTES)?;
        let (link, signal, stopping, vmm, device, up) = (None, None, false, None, None, None);
        let shim = Shim {
            launch,
            identity,
            state,
            lock,
            link,
            signal,
            stopping,
            tsc,
            vmm,
            device,
            up,
            pause: Pause::default(),
            console,
            init_failed: InitFailed::default(),
            console_rests_until: None,
            log,
        };
        shim.save_state()?;
        Ok(shim)
    }

    fn live(mut self) -> Result<()> {
        self.say("started");
        if let Err(e) = self.first_boot() {
            let link = self.link.take();
            // Told when nothing is left, so that the starter need not look. The log gets it as our stderr.
            drop(self);
            if let Some(mut link) = link {
                link.send(&ShimReply::Failed(failure(&e)));
            }
            return Err(e);
        }
        let (end, status) = self.watch();
        self.finish(&end, status)
    }

    /// Up to the starter's `keep`; on failure everything is undone by dropping.
    fn first_boot(&mut self) -> Result<()> {
        let timings = self.boot()?;
        let ready = ShimReply::Ready { state: self.state.clone(), timings };
        if let Some(link) = &mut self.link {
            link.send(&ready);
        }
        let held = match self.next(Instant::now() + KEEP_WITHIN)? {
            Event::Keep => false,
            Event::Hold => true,
            Event::Deadline => return Err(Error::new(Code::TimedOut, "the starter did not say `keep` in time")),
            other => return Err(self.not_expected(other)),
        };
        // How the run before this one ended is no longer how the last one did.
        if let Err(e) = remove_file(&self.launch.exit_file) {
            self.say(&e.with_causes());
        }
        self.answer_kept(held);
        Ok(())
    }

    /// Answered, so that `keep` is not lost in the moment in which the VM ends by itself. The link to a starter that
    /// holds the VM stays: its end is the VM's.
    fn answer_kept(&mut self, held: bool) {
        let Some(mut link) = self.link.take() else { return };
        link.send(&ShimReply::Kept);
        if held {
            self.link = Some(link);
        }
    }

    /// Until the VM ends for good; with its last status in words.
    fn watch(&mut self) -> (End, String) {
        let (mut booted, mut quick) = (Instant::now(), 0);
        loop {
            let (end, status) = self.one_run();
            if end == End::Poweroff && !self.up.as_ref().is_some_and(Up::has_come) {
                let failed = self.init_failed.why().map(|why| format!("the guest's /init gave up: {why}"));
                return failed.map_or((end, status), |why| (End::Crashed, why));
            }
            if end != End::Reboot {
                return (end, status);
            }
            quick = if booted.elapsed() < QUICK { quick + 1 } else { 0 };
            if quick > MOST_QUICK_REBOOTS {
                let loops = format!("the guest rebooted {quick} times within {} s of each other", QUICK.as_secs());
                return (End::Crashed, loops);
            }
            booted = Instant::now();
            self.state.reboots += 1;
            self.say(&format!("the guest rebooted ({})", self.state.reboots));
            if let Err(e) = self.boot() {
                let end = if self.stopping { End::Killed } else { End::Crashed };
                return (end, format!("not started again: {}", e.with_causes()));
            }
        }
    }

    /// Until the VMM has ended, of itself or because it has to.
    fn one_run(&mut self) -> (End, String) {
        loop {
            match self.next(self.looks_again_at()) {
                Ok(Event::VmmEnded(ended)) => return (classify(&ended, self.stopping), ended.in_words()),
                Ok(Event::Stop) => {
                    let status = self.end_vmm();
                    return (End::Killed, status);
                }
                Ok(Event::Abandoned) => {
                    self.link = None;
                    self.stopping = true;
                    let status = self.end_vmm();
                    return (End::Killed, status);
                }
                Ok(Event::Keep) => self.answer_kept(false),
                Ok(Event::DeviceEnded(status)) => {
                    // The guest would live on without a way to reach it.
                    self.end_vmm();
                    return (End::Crashed, format!("vhost-device-vsock ended ({})", cmd::describe(status)));
                }
                Ok(Event::Halted) => {
                    self.end_vmm();
                    return (End::Poweroff, "the guest halted".into());
                }
                // What its starter does with a guest whose writes fail is lost, and the guest may wait for them without end.
                Ok(Event::DiskFailed(failure)) if self.link.is_some() => {
                    self.end_vmm();
                    return (End::Crashed, failure.what);
                }
                Ok(Event::DiskFailed(failure)) if failure.stopped => self.note_pause(&failure),
                Ok(Event::DiskFailed(failure)) => self.say(&format!("{}; the guest was told", failure.what)),
                // It runs on; how it ends will be seen all the same.
                Ok(Event::Confused(e)) => self.say(&e.with_causes()),
                Ok(Event::Deadline) => self.resume_where_room(),
                Ok(Event::Qmp(Message::Refused(why))) => self.say(&format!("QEMU refused a command: {why}")),
                Ok(Event::Hold | Event::Qmp(_) | Event::Built) => {}
                Err(e) => {
                    self.end_vmm();
                    return (End::Crashed, format!("bg-shim cannot go on: {}", e.with_causes()));
                }
            }
        }
    }

    /// Ends the VMM, at first so that it can flush its disks; reads on meanwhile, lest it wait for us. Gives its status.
    fn end_vmm(&mut self) -> String {
        // Nobody has anything to say any more; a starter that has gone would be heard of without end.
        self.link = None;
        for (signal, wait) in [(Signal::SIGTERM, GRACE), (Signal::SIGKILL, Duration::from_secs(5))] {
            let deadline = Instant::now() + wait;
            if let Some(vmm) = &self.vmm {
                vmm.child.signal_group(signal);
            }
            while self.vmm.is_some() {
                match self.next(deadline) {
                    Ok(Event::VmmEnded(ended)) => return ended.in_words(),
                    Ok(Event::Deadline) | Err(_) => break,
                    Ok(_) => {}
                }
            }
        }
        // Dropping a child kills it once more and waits.
        self.vmm = None;
        "signal 9".into()
    }

    fn finish(mut self, end: &End, status: String) -> Result<()> {
        self.device = None;
        let reason = match end {
            End::Poweroff => "poweroff",
            End::Killed => "killed",
            End::Crashed | End::Reboot => "crashed",
        };
        self.say(&format!("ended: {reason} ({status})"));
        let exit = ExitInfo { at: now(), reason: reason.into(), status, reboots: self.state.reboots };
        save(&self.launch.exit_file, format!("{}\n", to_json(&exit)).as_bytes(), 0o600).inspect_err(|e| {
            let message = e.with_causes();
            self.say(&message);
        })
    }

    /// Nobody has it open any more. One that root has lent stays lent.
    fn give_back_tap(&mut self) {
        let Some(net) = &self.launch.net else { return };
        match crate::net::give_back(&net.network_dir, &net.tap, &self.launch.machine_id) {
            Err(e) if e.code() != Code::Permission => self.say(&e.with_causes()),
            _ => {}
        }
    }

    fn save_state(&self) -> Result<()> {
        replace(&self.run_file(files::STATE), format!("{}\n", to_json(&self.state)).as_bytes(), 0o600)
    }

    /// A VMM that holds the VM's lock for as long as it lives.
    fn with_lock(&self, vmm: Cmd) -> Cmd {
        vmm.inherit(self.lock.as_fd())
    }

    fn run_file(&self, name: &str) -> PathBuf {
        self.launch.runtime_dir.join(name)
    }

    /// A line in the log.
    fn say(&mut self, text: &str) {
        self.log.write(format!("{} bg-shim: {text}\n", now()).as_bytes());
    }

    /// The error for what came instead of what had to come.
    fn not_expected(&mut self, event: Event) -> Error {
        match event {
            Event::Stop => Error::new(Code::Terminated, "the VM was ended while it was being started"),
            Event::Abandoned => Error::new(Code::Terminated, "the starter went away while the VM was being started"),
            Event::VmmEnded(ended) => ended.into_error(self.launch.log.as_str()),
            Event::DeviceEnded(status) => {
                let message =
                    format!("vhost-device-vsock ended as the VM was being started ({})", cmd::describe(status));
                Error::new(Code::VmmFailed, message).hint(format!("its last words are in {}", self.launch.log))
            }
            Event::Confused(e) => e.within("the VMM is not what it should be").with_code(Code::VmmFailed),
            Event::Deadline => Error::new(Code::TimedOut, "the VMM did not answer in time")
                .hint(format!("what it said is in {}", self.launch.log)),
            Event::Halted => Error::new(Code::VmmFailed, "the guest halted as soon as it was started")
                .hint(format!("what it said is in {}", self.launch.console)),
            Event::DiskFailed(failure) => Error::new(Code::VmmFailed, failure.what),
            Event::Keep | Event::Hold | Event::Qmp(_) | Event::Built => {
                Error::new(Code::VmmFailed, "an answer came that nobody asked for")
            }
        }
    }
}

impl Drop for Shim {
    /// In every case, a panic too: first the processes, then what they used.
    fn drop(&mut self) {
        if self.vmm.is_some() {
            self.end_vmm();
        }
        self.device = None;
        self.give_back_tap();
        // Somebody may be noting there just now what he has seen of the guest.
        for _ in 0..REMOVALS {
            match std::fs::remove_dir_all(&self.launch.runtime_dir) {
                Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
                _ => break,
            }
        }
    }
}

/// What the end of a VMM means. With QEMU, what the guest did is known by its `SHUTDOWN` event alone: its status is 0
/// then, and also after somebody else's SIGTERM. Firecracker's end is put into the same words ([`process::Vmm::why`]).
fn classify(ended: &Ended, stopping: bool) -> End {
    match ended.shutdown.as_deref() {
        _ if stopping => End::Killed,
        Some("guest-shutdown") if ended.status.success() => End::Poweroff,
        Some("guest-reset") if ended.status.success() => End::Reboot,
        _ => End::Crashed,
    }
}

fn own_process() -> Result<ProcessDoc> {
    ProcessId::of(nix::unistd::getpid().as_raw())?.try_into()
}

fn failure(e: &Error) -> lib_common::doc::ErrorDoc {
    lib_common::doc::ErrorDoc::new("bg-shim", e)
}

#[cfg(test)]
mod tests;
