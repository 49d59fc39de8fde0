//! How Firecracker is started: with one configuration file, upon which it boots at once. Its first line of metrics says when
//! the microVM is built, and its API what became of it. The API is asked nothing before that line: a Firecracker that fails
//! to build the microVM while a request is pending panics in place of saying why (`VMM disconnected: RecvError`).

use super::Shim;
use super::boot::{LOOK_AGAIN, Parts, clean, document, pipe};
use super::events::Event;
use super::halt::Halt;
use super::process::{Feed, Monitor, Vmm};
use crate::vmm::capped::Capped;
use crate::vmm::files;
use crate::vmm::firecracker::{self, client};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::{Stream, Streams};
use lib_common::sys::fs::replace;
use nix::sys::stat::Mode;
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long one answer of the API may take; then it is asked again. Meanwhile the console is not read.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// So many bytes of metrics are kept; a line has about 10 KiB.
const METRICS_BYTES: u64 = 128 << 10;

impl Shim {
    pub(super) fn boot_firecracker(&mut self, parts: &mut Parts) -> Result<()> {
        self.write_initrd()?;
        let config = firecracker::configuration(&self.launch)?;
        replace(&self.run_file(files::CONFIG), format!("{config}\n").as_bytes(), 0o600)?;
        parts.end("initrd");
        self.start_firecracker()?;
        let version = self.wait_until_running()?;
        self.say(&format!("Firecracker {version} runs"));
        // By now the kernel and the initrd are in the guest's memory.
        self.remove_initrd()?;
        self.hide_vsock()?;
        parts.end("vmm");
        Ok(())
    }

    fn start_firecracker(&mut self) -> Result<()> {
        let (log, metrics) =
            (named_pipe(&self.run_file(files::VMM_LOG))?, named_pipe(&self.run_file(files::METRICS_PIPE))?);
        let kept = Capped::open(&self.run_file(files::METRICS), METRICS_BYTES)?;
        let (serial_in, stdin) = std::io::pipe()?;
        let (console, stdout) = pipe()?;
        let (stderr, to_log) = pipe()?;
        let cmd = self.with_lock(firecracker::command(&self.launch));
        let argv = cmd.argv();
        let child = clean(cmd).spawn(Streams { stdin: Stream::Fd(serial_in.into()), stdout, stderr: to_log })?;
        self.state.vmm = document(&child)?;
        let monitor = Monitor::Firecracker {
            log: Feed::new(log),
            metrics: Feed::new(metrics),
            kept,
            halt: Halt::default(),
            _stdin: File::from(OwnedFd::from(stdin)),
        };
        let (console, stderr) = (Feed::new(console), Feed::new(stderr));
        self.vmm = Some(Vmm { child, argv, console, stderr, monitor });
        self.save_state()
    }

    /// Waits until the microVM is built, and asks until the guest's processors run. Gives the version that runs them.
    fn wait_until_running(&mut self) -> Result<String> {
        let (begun, deadline) = (Instant::now(), self.vmm_deadline());
        match self.next(deadline)? {
            Event::Built => {}
            Event::Deadline => {
                return Err(self.is_late(begun, Some("it has not built the microVM: no line of metrics came".into())));
            }
            other => return Err(self.not_expected(other)),
        }
        let api = self.run_file(files::API);
        // The last answer has its time, too: what is wrong with it is what the error says.
        let answer_within = self.within(ANSWER_WITHIN).max(ANSWER_WITHIN);
        loop {
            let why = match client::ask(&api, Instant::now() + answer_within) {
                Ok(answer) => {
                    self.check_vmm(answer.pid)?;
                    match answer.running {
                        Some(version) => return Ok(version),
                        None => None,
                    }
                }
                Err(e) if e.code() == Code::GuestUnreachable => Some(e),
                Err(e) => return Err(e.hint(format!("what it said is in {}", self.launch.log))),
            };
            // Its end says more than an API that does not answer.
            match self.next(Instant::now() + LOOK_AGAIN)? {
                Event::Deadline if Instant::now() < deadline => {}
                Event::Deadline => return Err(self.is_late(begun, why.map(|e| e.with_causes()))),
                other => return Err(self.not_expected(other)),
            }
        }
    }

    fn is_late(&self, begun: Instant, why: Option<String>) -> Error {
        let message = format!("Firecracker's guest does not run after {:.1} s", begun.elapsed().as_secs_f32());
        let error = why.into_iter().fold(Error::new(Code::TimedOut, message), Error::also);
        error.hint(format!("what it said is in {}; --boot-timeout gives it more time", self.launch.log))
    }
}

/// Makes a named pipe and opens it. Opened to write, too, so that it neither waits for a writer nor ends with one.
fn named_pipe(path: &Path) -> Result<File> {
    let cannot = |e: &std::io::Error| Error::io("make the named pipe", path, e);
    nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|e| cannot(&e.into()))?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK);
    options.open(path).map_err(|e| cannot(&e))
}
