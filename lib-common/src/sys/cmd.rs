//! Starting programs: a command is plain data ([`Cmd`]), made by pure functions and compared in tests; running it is
//! here alone. Every child has one owner ([`Child`]) that ends and reaps it, and dies with this process.

#![allow(unsafe_code, clippy::disallowed_types)]

use super::child::pid_of;
pub use super::child::{Child, ChildPipe};
pub use super::ended::describe;
use super::poll::readable;
use super::process::PidFd;
use super::signal;
use crate::error::{Code, Error, Result};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How much of a child's stderr is kept unless [`Cmd::stderr_tail`] says otherwise, in bytes: its end.
const STDERR_TAIL: usize = 1024;

/// More than this is no version, in bytes.
const SAID_MAX: usize = 64 << 10;

/// No wait is as long as this; `Instant` can hold it.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// How often the caller of a program in the foreground is called meanwhile.
const MEANWHILE: Duration = Duration::from_secs(1);
/// How long a child may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// A program, its arguments and what is added to its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cmd {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    only_env: bool,
    dir: Option<PathBuf>,
    death_signal: Option<i32>,
    inherited: Option<RawFd>,
    pub(super) grace: Duration,
    pub(super) stderr_tail: usize,
}

/// Where a standard stream of a child leads.
#[derive(Debug)]
pub enum Stream {
    /// /dev/null.
    Null,
    /// Ours.
    Inherit,
    /// A pipe: [`Child::stdin`], [`Child::stdout`].
    Pipe,
    /// An open file or socket.
    Fd(OwnedFd),
}

impl From<File> for Stream {
    fn from(file: File) -> Self {
        Stream::Fd(file.into())
    }
}

/// A child's three standard streams. `stderr: Pipe` keeps its last 1 KiB for the error; `Inherit` shows it.
#[derive(Debug)]
pub struct Streams {
    /// Standard input.
    pub stdin: Stream,
    /// Standard output.
    pub stdout: Stream,
    /// Standard error.
    pub stderr: Stream,
}

impl Default for Streams {
    /// Nothing in, nothing out, stderr kept for the error.
    fn default() -> Self {
        Streams { stdin: Stream::Null, stdout: Stream::Null, stderr: Stream::Pipe }
    }
}

impl Cmd {
    /// A command; a program without `/` is looked up in `PATH`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Cmd {
            program: program.into(),
            args: vec![],
            env: vec![],
            only_env: false,
            dir: None,
            death_signal: None,
            inherited: None,
            grace: GRACE,
            stderr_tail: STDERR_TAIL,
        }
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// With more arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.into(), value.as_ref().to_owned()));
        self
    }

    /// Without our environment: with what [`Cmd::env`] adds and nothing else.
    #[must_use]
    pub fn only_env(mut self) -> Self {
        self.only_env = true;
        self
    }

    /// In that working directory.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Gets this signal instead of SIGTERM when its owner is killed.
    #[must_use]
    pub fn death_signal(mut self, signal: Signal) -> Self {
        self.death_signal = Some(signal as i32);
        self
    }

    /// Inherits this descriptor, too, under its number. It must be open when the program is started.
    #[must_use]
    pub fn inherit(mut self, fd: BorrowedFd<'_>) -> Self {
        self.inherited = Some(fd.as_raw_fd());
        self
    }

    /// May take this long to end after SIGTERM, instead of two seconds, before it gets SIGKILL: for a program that has
    /// much to clean up.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Of its stderr so many bytes are kept, instead of 1 KiB: for a program whose first error is not its last line.
    #[must_use]
    pub fn stderr_tail(mut self, bytes: usize) -> Self {
        self.stderr_tail = bytes;
        self
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Program and arguments.
    pub fn argv(&self) -> Vec<String> {
        let words = std::iter::once(self.program.as_os_str()).chain(self.args.iter().map(OsString::as_os_str));
        words.map(|w| w.to_string_lossy().into_owned()).collect()
    }

    /// As a line that can be pasted into a shell.
    pub fn to_shell(&self) -> String {
        let env = self.env.iter().map(|(k, v)| format!("{}={}", k.to_string_lossy(), quote(&v.to_string_lossy())));
        env.chain(self.argv().iter().map(|a| quote(a))).collect::<Vec<_>>().join(" ")
    }

    /// Starts it, in a process group of its own and with a death signal, so that it cannot outlive its owner.
    pub fn spawn(&self, streams: Streams) -> Result<Child> {
        let mut command = self.command()?;
        command.process_group(0);
        let parent = nix::unistd::getpid();
        let death_signal = self.death_signal.and_then(|s| Signal::try_from(s).ok()).unwrap_or(Signal::SIGTERM);
        let inherited = self.inherited;
        let before_exec = move || {
            if let Some(fd) = inherited {
                // SAFETY: fcntl only changes a flag of a number, which may belong to no descriptor.
                Errno::result(unsafe { nix::libc::fcntl(fd, nix::libc::F_SETFD, 0) })?;
            }
            nix::sys::prctl::set_pdeathsig(death_signal)?;
            // The parent may have died before the line above; then nobody would ever send it.
            if nix::unistd::getppid() != parent {
                return Err(std::io::Error::other("the parent is gone"));
            }
            Ok(())
        };
        // SAFETY: fcntl, prctl and getppid are async-signal-safe and nothing is allocated on the way that succeeds.
        unsafe { command.pre_exec(before_exec) };
        command.stdin(stdio(streams.stdin)).stdout(stdio(streams.stdout)).stderr(stdio(streams.stderr));
        let inner = command.spawn().map_err(|e| self.not_started(&e))?;
        // Dropping `command` closes our copies of descriptors that went to the child.
        drop(command);
        Child::new(self, inner)
    }

    /// Runs it to its end; a failure is an error with the child's status and the end of its stderr.
    pub fn run(&self) -> Result<()> {
        self.spawn(Streams::default())?.finish()
    }

    /// Runs it to its end and gives its standard output, at most `limit` bytes.
    pub fn output(&self, limit: u64) -> Result<Vec<u8>> {
        let mut child = self.spawn(Streams { stdout: Stream::Pipe, ..Streams::default() })?;
        let mut out = vec![];
        if let Some(pipe) = child.stdout()? {
            let read = pipe.take(limit + 1).read_to_end(&mut out);
            signal::check()?;
            read.map_err(|e| self.failed_with("cannot read from", &e))?;
        }
        if out.len() as u64 > limit {
            let limit = crate::size::bytes(limit);
            return Err(Error::new(Code::CommandFailed, format!("{} printed more than {limit}", self.name())));
        }
        child.finish()?;
        Ok(out)
    }

    /// Runs it to its end and gives what it printed on both streams, for programs that say their version on either. It
    /// has `within` for that.
    ///
    /// Errors: [`Code::TimedOut`], and those of [`Cmd::output`].
    pub fn said(&self, within: Duration) -> Result<String> {
        let deadline = Instant::now() + within;
        let late = || Error::new(Code::TimedOut, format!("{} did not end within {} s", self.name(), within.as_secs()));
        let (mut ours, theirs) = std::io::pipe()?;
        let (stdout, stderr) = (Stream::Fd(theirs.try_clone()?.into()), Stream::Fd(theirs.into()));
        let mut child = self.spawn(Streams { stdin: Stream::Null, stdout, stderr })?;
        let (mut said, mut buffer) = (vec![], [0; 4096]);
        loop {
            match readable(&[ours.as_fd(), child.pidfd().as_fd()], deadline)?.first() {
                Some(0) => {}
                // It has ended, and what still holds the pipe is not waited for.
                Some(_) => break,
                None => return Err(late()),
            }
            match ours.read(&mut buffer)? {
                0 => break,
                n => said.extend_from_slice(&buffer[..n]),
            }
            if said.len() > SAID_MAX {
                return Err(Error::new(Code::CommandFailed, format!("{} printed without end", self.name())));
            }
        }
        if !child.pidfd().wait(deadline.saturating_duration_since(Instant::now()))? {
            return Err(late());
        }
        let (status, said) = (child.wait()?, String::from_utf8_lossy(&said).into_owned());
        if status.success() {
            return Ok(said);
        }
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned());
        Err(last.into_iter().fold(child.failure(status), Error::also))
    }

    /// Runs it in our process group, with our own standard error, and gives its status. The terminal's signals reach it
    /// by themselves, SIGTERM is handed on, and neither ends the wait: the program decides. Ask [`signal::check`] after.
    /// `meanwhile` is called every second until a signal has come.
    pub fn run_foreground(&self, stdin: Stream, stdout: Stream, mut meanwhile: impl FnMut()) -> Result<ExitStatus> {
        let mut command = self.command()?;
        let before_exec = || Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGHUP)?);
        // SAFETY: prctl is async-signal-safe.
        unsafe { command.pre_exec(before_exec) };
        command.stdin(stdio(stdin)).stdout(stdio(stdout));
        let mut child = command.spawn().map_err(|e| self.not_started(&e))?;
        drop(command);
        let pidfd = PidFd::of_child(pid_of(&child))?;
        let mut waited = pidfd.wait(MEANWHILE);
        while let Ok(false) = waited {
            meanwhile();
            waited = pidfd.wait(MEANWHILE);
        }
        if let Err(e) = waited {
            if e.code() == Code::Terminated {
                pidfd.signal(Signal::SIGTERM)?;
            }
            let _shield = signal::shield();
            pidfd.wait(FOREVER)?;
        }
        Ok(child.wait()?)
    }

    /// Starts it as a process that stays: own session, no descriptors but its streams and `keep` (which becomes
    /// descriptor 3), not ended with us. Gives its pid. Its parent is whoever reaps orphans once we are gone.
    pub fn spawn_detached(&self, streams: Streams, keep: OwnedFd) -> Result<i32> {
        let mut command = self.command()?;
        let fd = keep.as_raw_fd();
        // Takes 3 where that is free, so that the pipe by which `spawn` learns of a failed exec cannot get it: dup2
        // below would replace it.
        let _takes_three = File::open("/dev/null");
        let before_exec = move || {
            nix::unistd::setsid()?;
            // SAFETY: dup2 onto 3 clears close-on-exec there; 3 is either free or a descriptor of ours that is
            // close-on-exec anyway. When `fd` is 3 already, dup2 does nothing and the flag is cleared below.
            unsafe {
                if fd == 3 {
                    nix::libc::fcntl(3, nix::libc::F_SETFD, 0)
                } else {
                    nix::libc::dup2(fd, 3)
                };
                // Everything above 3 goes on exec, whoever opened it, also without close-on-exec.
                nix::libc::syscall(nix::libc::SYS_close_range, 4, u32::MAX, nix::libc::CLOSE_RANGE_CLOEXEC);
            }
            Ok(())
        };
        // SAFETY: setsid, dup2, fcntl and close_range are async-signal-safe.
        unsafe { command.pre_exec(before_exec) };
        command.stdin(stdio(streams.stdin)).stdout(stdio(streams.stdout)).stderr(stdio(streams.stderr));
        let child = command.spawn().map_err(|e| self.not_started(&e))?;
        Ok(pid_of(&child))
    }

    fn command(&self) -> Result<Command> {
        // execvp(3) would also look where a relative entry of PATH leads from here.
        let is_name = self.program.components().count() == 1;
        let found = is_name.then(|| super::program::find(&self.program)).transpose()?;
        let mut command = Command::new(found.as_ref().unwrap_or(&self.program));
        if self.only_env {
            command.env_clear();
        } else if let Some(path) = super::program::path_of_children() {
            command.env("PATH", path);
        }
        command.args(&self.args).envs(self.env.iter().map(|(k, v)| (k, v)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        Ok(command)
    }

    pub(super) fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned()
    }

    fn not_started(&self, e: &std::io::Error) -> Error {
        if e.kind() != std::io::ErrorKind::NotFound {
            return self.failed_with("cannot start", e);
        }
        super::program::missing(&self.program)
    }

    fn failed_with(&self, what: &str, e: &std::io::Error) -> Error {
        Error::new(Code::Os, format!("{what} {}", self.name())).because(e).detail("command", self.to_shell())
    }
}

fn stdio(stream: Stream) -> Stdio {
    match stream {
        Stream::Null => Stdio::null(),
        Stream::Inherit => Stdio::inherit(),
        Stream::Pipe => Stdio::piped(),
        Stream::Fd(fd) => Stdio::from(fd),
    }
}

/// A command for root, as this user types it.
pub fn typed_by_root(command: &str) -> String {
    by_root(nix::unistd::geteuid().is_root(), command)
}

/// The same of one who is root, or is not.
pub fn by_root(root: bool, command: &str) -> String {
    if root { command.to_owned() } else { format!("sudo {command}") }
}

/// One word as a shell reads it.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests;
