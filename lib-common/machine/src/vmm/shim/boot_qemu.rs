//! How QEMU is started: the vsock device beside it, then QEMU itself, whose monitor says when it has read the initrd.

use super::Shim;
use super::boot::{LOOK_AGAIN, Parts, clean, document, pipe};
use super::events::Event;
use super::process::{Device, Feed, Monitor, Vmm};
use crate::vmm::qemu_qmp::{Message, Qmp};
use crate::vmm::{files, qemu};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::{Stream, Streams};
use lib_common::sys::socket::is_listening;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long vhost-device-vsock may take to listen. Usually it takes 5 ms.
const DEVICE_WITHIN: Duration = Duration::from_secs(10);

impl Shim {
    pub(super) fn boot_qemu(&mut self, parts: &mut Parts) -> Result<()> {
        self.start_device()?;
        self.write_initrd()?;
        parts.end("initrd");
        self.wait_for_device()?;
        parts.end("vsock_device");
        self.start_qemu()?;
        self.wait_for_machine()?;
        parts.end("vmm");
        Ok(())
    }

    /// A device of its own for each boot: a used one has connections of the guest that was.
    fn start_device(&mut self) -> Result<()> {
        let Some(program) = &self.launch.vsock_program else {
            return Err(Error::new(Code::BadDocument, "the launch file names no program for the vsock device"));
        };
        let (stderr, to_log) = pipe()?;
        let streams = Streams { stdin: Stream::Null, stdout: Stream::Null, stderr: to_log };
        let child = clean(qemu::vsock_device(program, &self.launch)).spawn(streams)?;
        self.state.vsock_device = document(&child)?;
        self.device = Some(Device { child, stderr: Feed::new(stderr) });
        self.save_state()
    }

    fn wait_for_device(&mut self) -> Result<()> {
        let within = self.within(DEVICE_WITHIN);
        let deadline = Instant::now() + within;
        while !is_listening(&self.run_file(files::VHOST)) {
            match self.next(Instant::now() + LOOK_AGAIN)? {
                Event::Deadline if Instant::now() < deadline => {}
                Event::Deadline => {
                    let message = format!("vhost-device-vsock did not listen within {} s", within.as_secs_f32());
                    return Err(Error::new(Code::TimedOut, message).hint(format!("see {}", self.launch.log)));
                }
                other => return Err(self.not_expected(other)),
            }
        }
        // A script may have become the device since.
        if let Some(device) = &self.device {
            self.state.vsock_device = document(&device.child)?.or(self.state.vsock_device.take());
            self.save_state()?;
        }
        self.hide_vsock()
    }

    fn start_qemu(&mut self) -> Result<()> {
        let (qmp, monitor) = socket()?;
        let qmp = Qmp::new(qmp)?;
        let (console, serial) = socket()?;
        let (stderr, to_log) = pipe()?;
        let cmd = self.with_lock(qemu::command(&self.launch, self.tsc.and_then(|tsc| tsc.khz())));
        let argv = cmd.argv();
        let child = clean(cmd).spawn(Streams { stdin: monitor, stdout: serial, stderr: to_log })?;
        self.state.vmm = document(&child)?;
        let (console, stderr) = (Feed::new(console), Feed::new(stderr));
        let monitor = Monitor::Qemu { qmp, shutdown: None, disk_failed: false };
        self.vmm = Some(Vmm { child, argv, console, stderr, monitor });
        self.save_state()
    }

    /// QEMU answers `qmp_capabilities` in its main loop, which begins when the machine is made: it has read the initrd
    /// by then. `cont` lets the guest's processors run.
    fn wait_for_machine(&mut self) -> Result<()> {
        let deadline = self.vmm_deadline();
        self.expect(&Message::Greeting, deadline)?;
        if let Some(writer) = self.vmm.as_ref().and_then(Vmm::qmp).and_then(Qmp::writer) {
            self.check_vmm(writer)?;
        }
        self.execute("qmp_capabilities", deadline)?;
        self.remove_initrd()?;
        self.execute("cont", deadline)
    }

    fn execute(&mut self, command: &'static str, deadline: Instant) -> Result<()> {
        // Where QEMU has just ended, its end says more than a closed monitor.
        let sent = match self.vmm.as_mut().map(|vmm| &mut vmm.monitor) {
            Some(Monitor::Qemu { qmp, .. }) => qmp.execute(command),
            _ => Ok(()),
        };
        self.expect(&Message::Return, deadline).map_err(|e| match sent {
            Err(unsent) if e.code() == Code::TimedOut => unsent,
            _ => e,
        })
    }

    fn expect(&mut self, message: &Message, deadline: Instant) -> Result<()> {
        match self.next(deadline)? {
            Event::Qmp(got) if got == *message => Ok(()),
            Event::Qmp(Message::Refused(why)) => {
                Err(Error::new(Code::VmmFailed, "QEMU refused a command of its monitor").also(why))
            }
            other => Err(self.not_expected(other)),
        }
    }
}

/// Our end and the child's.
fn socket() -> Result<(File, Stream)> {
    let (ours, theirs) = UnixStream::pair()?;
    Ok((File::from(OwnedFd::from(ours)), Stream::Fd(theirs.into())))
}
