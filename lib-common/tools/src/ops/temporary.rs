//! A VM that lives no longer than the operation that made it: journaled and locked like any other, held by its starter,
//! and ended with that however that ends. Knows nothing of what is done in it.

use crate::cli::Context;
use crate::ops::machine::{Claimed, Hardware, boot, choosing};
use crate::ops::ssh;
use lib_common::doc::{Document, Guest, Identity, LaunchDisk, Name, Spec, Vmm};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::fs::free_bytes;
use lib_common::sys::lock::Lock;
use lib_common::sys::owned;
use lib_common::sys::random::random_id;
use lib_image::disk::clone::ROOT_FILE;
use lib_machine::guest::http;
use lib_machine::guest::live::Live;
use lib_machine::guest::ssh::session::{Login, Session};
use lib_machine::guest::ssh::{keys, wait_for_sshd};
use lib_machine::store::{MachineDir, Operation};
use lib_machine::vmm::{self, Started};
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long one answer of the agent may take.
const AGENT_WAIT: Duration = Duration::from_secs(10);

/// How long a guest may take to shut down: on a busy host, under emulation.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(120);

/// How long a VM whose connections broke may take to end, if that is why they did.
const ENDS_WITHIN: Duration = Duration::from_secs(3);

/// A file system with less room than this is full, in bytes.
const FULL: u64 = 1 << 20;

/// So many of the console's last lines are in an error.
const LAST_LINES: usize = 20;

/// They are looked for in so many of its last bytes.
const END: u64 = 64 << 10;

/// A running VM. Dropped, it is ended and nothing of it is left.
pub(in crate::ops) struct Temporary {
    // In this order: each needs those below it.
    started: Started,
    operation: Operation,
    machine: MachineDir,
    _lock: Lock,
    doc: Document,
    live: Live,
    answers_within: Duration,
    shutdown_wait: Duration,
}

/// A name that no VM has: what it is for, and eight random digits.
pub(in crate::ops) fn new_name(purpose: &str) -> Result<Name> {
    Name::parse(&format!("{purpose}-{}", &random_id()?[..8]))
}

/// What such a VM has where nothing else is asked for: no card. `image` is a name for messages.
pub(in crate::ops) fn spec(cx: &Context<'_>, image: Name) -> Spec {
    Spec {
        image,
        vcpu: cx.config.vcpu,
        memory_mib: cx.config.memory_mib,
        overcommit: false,
        root_bytes: 0,
        work_bytes: cx.config.work_bytes,
        net: false,
        nat: false,
        vmm: cx.config.vmm,
        kernel_args: cx.config.kernel_args.clone(),
    }
}

impl Temporary {
    /// Boots what was claimed, with the disks in the guest's order.
    ///
    /// # Errors
    /// What keeps a VMM from running. Nothing is left then.
    pub fn boot(
        cx: &mut Context<'_>,
        mut doc: Document,
        claimed: Claimed,
        (identity, disks): (&Identity, Vec<LaunchDisk>),
    ) -> Result<Self> {
        // Dropped in reverse: the lock is held until all is undone.
        let Claimed { lock, machine, mut operation } = claimed;
        let hardware = Hardware { disks, net: None, vmm: choosing(cx, &doc)? };
        let mut started = boot(cx, &doc, (&machine, &mut operation), (identity, hardware))
            .map_err(|e| e.without_files(machine.path(), None))?;
        started.hold()?;
        doc.set::<Vmm>(started.vmm());
        cx.stages.begin("boot_guest");
        let live = Live::of(&doc)?;
        let answers_within = cx.config.guest_deadline(AGENT_WAIT);
        let shutdown_wait = cx.config.guest_deadline(SHUTDOWN_WAIT);
        Ok(Temporary { started, operation, machine, _lock: lock, doc, live, answers_within, shutdown_wait })
    }

    /// Waits until the guest's sshd answers, and logs in: only a guest with the host key that it was given is logged in to.
    ///
    /// # Errors
    /// Those of [`wait_for_sshd`] with the end of the console, and of [`Session::open`].
    pub fn login(&self, cx: &mut Context<'_>, deadline: Instant) -> Result<Session> {
        let stream = wait_for_sshd(&self.live, deadline).map_err(|e| self.with_console(e))?;
        cx.stages.begin("login");
        let guest: Guest = self.doc.require()?;
        let private_key = keys::private_key(&cx.store());
        let login = Login { user: &guest.user, host_key: &guest.host_key, private_key: &private_key };
        Session::open(stream, login, deadline)
    }

    /// How long one answer of its agent may take.
    pub fn answers_within(&self) -> Duration {
        self.answers_within
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        self.machine.name()
    }

    /// What it runs on.
    pub fn vmm(&self) -> &Vmm {
        self.started.vmm()
    }

    /// A file in its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.machine.file(name)
    }

    /// It as its clients see it.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// The error that explains the others: a VM that has ended, and why.
    pub fn explain(&self, e: Error) -> Error {
        if e.code() == Code::GuestUnreachable {
            // A connection breaks when the VMM ends, and the shim ends after it.
            let _ = vmm::wait_end(self.started.state(), ENDS_WITHIN);
        }
        let e = self.live.explain(e);
        if e.code() != Code::NotRunning {
            return e;
        }
        let exit = self.machine.exit_info().ok().flatten().map(|exit| format!("{}: {}", exit.reason, exit.status));
        let dir = self.machine.path();
        // Then there is no room for the word either.
        let full = free_bytes(dir).is_ok_and(|free| free < FULL);
        let full = full.then(|| format!("the file system of {} is full", dir.display()));
        let error = Error::new(Code::NotRunning, format!("the temporary VM `{}` has ended", self.name()));
        exit.into_iter().chain(full).fold(error, Error::also)
    }

    /// Shuts the guest down and waits for its end, which must be its own.
    ///
    /// # Errors
    /// [`Code::TimedOut`] for a guest that takes too long, [`Code::VmmFailed`] for another end, those of
    /// [`http::post_shutdown`].
    pub fn power_off(&self) -> Result<()> {
        http::post_shutdown(&self.vmm().vsock, self.answers_within).map_err(|e| self.explain(e))?;
        self.wait_power_off()
    }

    /// Waits for the end of a guest that shuts down.
    ///
    /// # Errors
    /// [`Code::TimedOut`] for a guest that takes too long, [`Code::VmmFailed`] for another end.
    pub fn wait_power_off(&self) -> Result<()> {
        if !vmm::wait_end(self.started.state(), self.shutdown_wait)? {
            let message = format!("the guest did not shut down within {} s", self.shutdown_wait.as_secs());
            return Err(Error::new(Code::TimedOut, message));
        }
        match self.machine.exit_info()? {
            Some(exit) if exit.reason == "poweroff" => Ok(()),
            exit => {
                let how = exit.map_or_else(|| "without a word".into(), |e| format!("{} ({})", e.reason, e.status));
                Err(Error::new(Code::VmmFailed, format!("the VM did not end by a shutdown but {how}")))
            }
        }
    }

    /// What is left to take back of a VM that has ended.
    pub fn ended(self) -> Ended {
        Ended { machine: self.machine, operation: self.operation, _lock: self._lock }
    }

    /// Makes it a VM of the store, for as long as it lives; `complete` adds to its record what is missing.
    pub fn record(&mut self, complete: impl FnOnce(&mut Document, &MachineDir) -> Result<()>) -> Result<()> {
        complete(&mut self.doc, &self.machine)?;
        self.machine.save(&self.doc)
    }

    /// Leaves it running, once it is recorded.
    pub fn keep(self) -> Result<()> {
        self.started.keep()?;
        self.operation.commit()
    }

    /// A login shell in it, on a terminal, once it is recorded.
    pub fn shell(&self, cx: &mut Context<'_>, tty: &File) -> Result<()> {
        ssh::shell(cx, &self.machine, &self.doc, tty)
    }

    /// The error of a guest that does not come up: its console is gone with it, so its end goes into the error.
    pub fn with_console(&self, e: Error) -> Error {
        let error = match e.code() {
            Code::TimedOut => e.hint("--timeout gives it more time"),
            Code::NotRunning => {
                e.hint("`make build`, and build kernel and image again, if the suite was replaced since")
            }
            _ => return e,
        };
        let console = self.console_end();
        // The kernel's word that the machine ends tells nothing, and comes before or after the last that does.
        let tells = |line: &&str| !line.trim().is_empty() && !line.contains("] reboot: ");
        match console.lines().rev().find(tells) {
            Some(line) => error.also(format!("the guest's console ends with: {}", line.trim())),
            None => error,
        }
        .detail("console", console)
    }

    /// What the guest printed last on its console.
    pub fn console_end(&self) -> String {
        let console = owned::read_end(&self.machine.console(), END).ok().flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&console);
        let lines: Vec<&str> = text.lines().rev().take(LAST_LINES).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// A VM that has been shut down. Dropped, its directory is removed.
pub(in crate::ops) struct Ended {
    operation: Operation,
    machine: MachineDir,
    _lock: Lock,
}

impl Ended {
    /// The root disk.
    pub fn root(&self) -> PathBuf {
        self.file(ROOT_FILE)
    }

    /// A file in its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.machine.file(name)
    }

    /// Removes it.
    pub fn remove(self) -> Result<()> {
        self.operation.undo()
    }
}
