//! One boot, up to the moment at which the guest's processors run: the same for the first one and for each that a guest's
//! reset asks for. Here is what every VMM needs; how each is started has a file of its own.

use super::Shim;
use super::init_failed::InitFailed;
use super::up::Up;
use crate::config::scaled;
use crate::guest::vsock::served_at;
use crate::store::boot;
use crate::vmm::bootcheck::refuse_unpadded;
use crate::vmm::files;
use lib_common::doc::{ProcessDoc, Timing, UP_PORT, VmmKind};
use lib_common::error::{Code, Context, Error, Result};
use lib_common::sys::cmd::{Child, Cmd, Stream};
use lib_common::sys::fs::remove_file;
use lib_common::sys::process::ProcessId;
use lib_common::timing::millis;
use lib_image::build::kernel::initrd;
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

/// How long a VMM may take to make the machine. Usually it takes 0.1 s.
const VMM_WITHIN: Duration = Duration::from_secs(30);

/// How long a process may take from its last instruction to its end.
const EXITS_WITHIN: Duration = Duration::from_secs(1);

/// Between two looks whether somebody listens.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Times of a boot's parts.
pub(super) struct Parts {
    timings: Vec<Timing>,
    since: Instant,
}

impl Parts {
    /// What went on until now.
    pub(super) fn end(&mut self, stage: &str) {
        let ms = millis(self.since.elapsed());
        self.timings.push(Timing { tool: "bg-shim".into(), stage: stage.into(), ms });
        self.since = Instant::now();
    }
}

impl Shim {
    /// Boots; gives how long its parts took.
    pub(super) fn boot(&mut self) -> Result<Vec<Timing>> {
        let mut parts = Parts { timings: vec![], since: Instant::now() };
        self.clear()?;
        self.check_tap()?;
        match self.launch.kind {
            VmmKind::Qemu => self.boot_qemu(&mut parts),
            VmmKind::Firecracker => self.boot_firecracker(&mut parts),
        }?;
        if let Some(up) = &mut self.up {
            up.runs();
        }
        Ok(parts.timings)
    }

    /// Refuses to boot without the VM's own TAP. Asked before each boot: others may have removed it while the guest ran.
    fn check_tap(&self) -> Result<()> {
        let Some(net) = &self.launch.net else { return Ok(()) };
        let name = &self.launch.name;
        crate::net::check_lent(&net.network_dir, &net.tap, &self.launch.machine_id)
            .map_err(|e| e.with_code(Code::VmmFailed).hint(format!("bg-vm start {name}")))
    }

    /// Until when the VMM has to have made the machine.
    pub(super) fn vmm_deadline(&self) -> Instant {
        Instant::now() + self.within(VMM_WITHIN)
    }

    /// A deadline of the usual length, in proportion to the time that a boot may take.
    pub(super) fn within(&self, usual: Duration) -> Duration {
        scaled(usual, Duration::from_millis(self.launch.boot_timeout_ms))
    }

    /// Takes away what the boot before has left, and listens where the guest will say that it is up.
    fn clear(&mut self) -> Result<()> {
        (self.device, self.up, self.init_failed, self.state.paused) = (None, None, InitFailed::default(), None);
        (self.state.vmm, self.state.vsock_device) = (None, None);
        let up = served_at(&self.run_file(files::VSOCK), UP_PORT);
        for file in [files::VSOCK, files::VSOCK_EARLY, files::VHOST, files::API, files::VMM_LOG, files::METRICS_PIPE] {
            remove_file(&self.run_file(file))?;
        }
        remove_file(&up)?;
        boot::forget(&self.launch.runtime_dir)?;
        self.up = Some(Up::listen(&up)?);
        Ok(())
    }

    /// Until the guest is up, nobody finds its vsock by the name that clients know.
    pub(super) fn hide_vsock(&self) -> Result<()> {
        if self.up.as_ref().is_some_and(Up::has_come) {
            return Ok(());
        }
        let (socket, early) = (self.run_file(files::VSOCK), self.run_file(files::VSOCK_EARLY));
        std::fs::rename(&socket, &early).map_err(|e| Error::io("rename to", &early, &e))
    }

    /// The kernel's base and this VM's identity, for this boot alone: it holds the guest's secrets.
    pub(super) fn write_initrd(&self) -> Result<()> {
        let path = self.run_file(files::INITRD);
        let _ = std::fs::remove_file(&path);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Error::io("make", &path, &e))?;
        let assembled = initrd::assemble(&self.launch.initrd, &self.identity, &mut file);
        refuse_unpadded(self.launch.kind, assembled.context(format!("cannot assemble the initrd {}", path.display()))?)
    }

    /// Refuses a VMM that is not our child: a script that started it and waits would be ended in its place. Notes the program that
    /// the child runs by now, since a script may have become the VMM.
    pub(super) fn check_vmm(&mut self, answers: i32) -> Result<()> {
        let Some(child) = self.vmm.as_ref().map(|vmm| &vmm.child) else { return Ok(()) };
        if answers == child.pid() {
            // Of one that has ended since, its end tells.
            self.state.vmm = document(child)?.or(self.state.vmm.take());
            return self.save_state();
        }
        let message = format!("{} started the VMM as another process ({answers})", self.launch.vmm_program);
        // It may have left the child's process group.
        let ended = ProcessId::of(answers).and_then(|vmm| vmm.end()).err();
        let error = ended.iter().fold(Error::new(Code::VmmFailed, message), |error, e| error.also(e.with_causes()));
        Err(error.hint("a script has to become the VMM: begin its last line with exec"))
    }

    /// Once the VMM has read it.
    pub(super) fn remove_initrd(&self) -> Result<()> {
        let initrd = self.run_file(files::INITRD);
        std::fs::remove_file(&initrd).map_err(|e| Error::io("remove", &initrd, &e))
    }
}

/// With an environment that does not depend on who started the VM, and messages in English.
pub(super) fn clean(cmd: Cmd) -> Cmd {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    cmd.only_env().env("PATH", path).env("LC_ALL", "C")
}

/// What is to be known of a child; `None` of one that has ended already: its end is the event that says so.
pub(super) fn document(child: &Child) -> Result<Option<ProcessDoc>> {
    match ProcessId::of(child.pid()) {
        Ok(process) => process.try_into().map(Some),
        // While a process exits, it has no executable any more, and is no zombie yet.
        Err(e) => match child.pidfd().wait(EXITS_WITHIN)? {
            false => Err(e),
            true => Ok(None),
        },
    }
}

/// Our end, to read from, and the child's.
pub(super) fn pipe() -> Result<(File, Stream)> {
    let (ours, theirs) = std::io::pipe()?;
    Ok((File::from(OwnedFd::from(ours)), Stream::Fd(theirs.into())))
}
