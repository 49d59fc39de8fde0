//! One boot: the initrd, the vsock device, the VMM, up to the moment at which the guest's processors run. The same
//! for the first boot and for each that a guest's reset asks for.

use super::Shim;
use super::events::{Device, Event, Feed, Vmm};
use crate::build::kernel::initrd;
use crate::doc::{ProcessDoc, Timing, UP_PORT};
use crate::error::{Code, Context, Error, Result};
use crate::guest::vsock::served_at;
use crate::sys::cmd::{Child, Cmd, Stream, Streams};
use crate::sys::fs::remove_file;
use crate::sys::process::ProcessId;
use crate::sys::socket::is_listening;
use crate::timing::millis;
use crate::vmm::bootcheck::refuse_unpadded;
use crate::vmm::qemu_qmp::{Message, Qmp};
use crate::vmm::{files, qemu};
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// How long vhost-device-vsock may take to listen. Usually it takes 5 ms.
const DEVICE_WITHIN: Duration = Duration::from_secs(10);

/// How long QEMU may take to make the machine. Usually it takes 0.1 s.
const VMM_WITHIN: Duration = Duration::from_secs(30);

/// Between two looks whether vhost-device-vsock listens.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

impl Shim {
    /// Boots; gives how long its parts took.
    pub(super) fn boot(&mut self) -> Result<Vec<Timing>> {
        let mut timings = vec![];
        let mut since = Instant::now();
        let mut part = |stage: &str| {
            timings.push(Timing { tool: "bg-shim".into(), stage: stage.into(), ms: millis(since.elapsed()) });
            since = Instant::now();
        };
        self.start_device()?;
        self.write_initrd()?;
        part("initrd");
        self.wait_for_device()?;
        part("vsock_device");
        self.start_vmm()?;
        self.wait_for_machine()?;
        part("vmm");
        Ok(timings)
    }

    /// A device of its own for each boot: a used one has connections of the guest that was.
    fn start_device(&mut self) -> Result<()> {
        (self.device, self.up) = (None, None);
        (self.state.vmm, self.state.vsock_device) = (None, None);
        let up = served_at(&self.run_file(files::VSOCK), UP_PORT);
        for socket in [files::VSOCK, files::VSOCK_EARLY, files::VHOST] {
            remove_file(&self.run_file(socket))?;
        }
        remove_file(&up)?;
        let listener = UnixListener::bind(&up).and_then(|up| up.set_nonblocking(true).map(|()| up));
        self.up = Some(listener.map_err(|e| Error::io("listen on", &up, &e))?);
        let (stderr, to_log) = pipe()?;
        let streams = Streams { stdin: Stream::Null, stdout: Stream::Null, stderr: to_log };
        let child = clean(qemu::vsock_device(&self.launch)).spawn(streams)?;
        // One that has ended already has none; its end is the event that says so.
        self.state.vsock_device = document(&child).ok();
        self.device = Some(Device { child, stderr: Feed::new(stderr) });
        self.save_state()
    }

    fn wait_for_device(&mut self) -> Result<()> {
        let deadline = Instant::now() + DEVICE_WITHIN;
        while !is_listening(&self.run_file(files::VHOST)) {
            match self.next(Instant::now() + LOOK_AGAIN)? {
                Event::Deadline if Instant::now() < deadline => {}
                Event::Deadline => {
                    let message = format!("vhost-device-vsock did not listen within {} s", DEVICE_WITHIN.as_secs());
                    return Err(Error::new(Code::TimedOut, message).hint(format!("see {}", self.launch.log)));
                }
                other => return Err(self.not_expected(other)),
            }
        }
        // By that name nobody finds it before the guest is up.
        let (socket, early) = (self.run_file(files::VSOCK), self.run_file(files::VSOCK_EARLY));
        std::fs::rename(&socket, &early).map_err(|e| Error::io("rename to", &early, &e))
    }

    /// The kernel's base and this VM's identity, for this boot alone: it holds the guest's secrets.
    fn write_initrd(&mut self) -> Result<()> {
        let path = self.run_file(files::INITRD);
        let _ = std::fs::remove_file(&path);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Error::io("make", &path, &e))?;
        let assembled = initrd::assemble(&self.launch.initrd, &self.identity, &mut file);
        refuse_unpadded(self.launch.kind, assembled.context("cannot assemble the initrd")?)
    }

    fn start_vmm(&mut self) -> Result<()> {
        let (qmp, monitor) = socket()?;
        let (console, serial) = socket()?;
        let (stderr, to_log) = pipe()?;
        let cmd = qemu::command(&self.launch, self.tsc.and_then(|tsc| tsc.khz()));
        let argv = cmd.argv();
        let child = clean(cmd).spawn(Streams { stdin: monitor, stdout: serial, stderr: to_log })?;
        self.state.vmm = document(&child).ok();
        let (console, stderr) = (Feed::new(console), Feed::new(stderr));
        self.vmm = Some(Vmm { child, argv, qmp: Qmp::new(qmp), console, stderr, shutdown: None, disk_failed: false });
        self.save_state()
    }

    /// QEMU answers `qmp_capabilities` in its main loop, which begins when the machine is made: it has read the initrd
    /// by then. `cont` lets the guest's processors run.
    fn wait_for_machine(&mut self) -> Result<()> {
        let deadline = Instant::now() + VMM_WITHIN;
        self.expect(&Message::Greeting, deadline)?;
        self.execute("qmp_capabilities", deadline)?;
        let initrd = self.run_file(files::INITRD);
        std::fs::remove_file(&initrd).map_err(|e| Error::io("remove", &initrd, &e))?;
        self.execute("cont", deadline)
    }

    fn execute(&mut self, command: &'static str, deadline: Instant) -> Result<()> {
        // Where QEMU has just ended, its end says more than a closed monitor.
        let sent = self.vmm.as_mut().map(|vmm| vmm.qmp.execute(command));
        self.expect(&Message::Return, deadline).map_err(|e| match sent {
            Some(Err(unsent)) if e.code() == Code::TimedOut => unsent,
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

/// With an environment that does not depend on who started the VM, and messages in English.
fn clean(cmd: Cmd) -> Cmd {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    cmd.only_env().env("PATH", path).env("LC_ALL", "C")
}

fn document(child: &Child) -> Result<ProcessDoc> {
    ProcessId::of(child.pid())?.try_into()
}

/// Our end and the child's.
fn socket() -> Result<(File, Stream)> {
    let (ours, theirs) = UnixStream::pair()?;
    Ok((File::from(OwnedFd::from(ours)), Stream::Fd(theirs.into())))
}

fn pipe() -> Result<(File, Stream)> {
    let (ours, theirs) = std::io::pipe()?;
    Ok((File::from(OwnedFd::from(ours)), Stream::Fd(theirs.into())))
}
