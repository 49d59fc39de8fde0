//! A running child and its one owner. Only [`super::cmd`] makes children.

#![allow(clippy::disallowed_types)]

pub use super::child_pipe::ChildPipe;
use super::cmd::Cmd;
use super::ended::{describe, tail};
use super::process::PidFd;
use super::signal;
use crate::error::{ChildFailure, Code, Error, Result};
use crate::sys::thread;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::process::ExitStatus;
use std::thread::JoinHandle;
use std::time::Duration;

/// A running child and its only owner: dropped, it is ended (SIGTERM, after [`Cmd::grace`] SIGKILL) and reaped, with its
/// process group.
#[derive(Debug)]
pub struct Child {
    cmd: Cmd,
    inner: std::process::Child,
    pidfd: PidFd,
    stderr: Option<JoinHandle<Vec<u8>>>,
    status: Option<ExitStatus>,
}

impl Child {
    /// Takes over a child that was just started as the leader of its own process group.
    pub(super) fn new(cmd: &Cmd, mut inner: std::process::Child) -> Result<Self> {
        let pidfd = match PidFd::of_child(pid_of(&inner)) {
            Ok(pidfd) => pidfd,
            Err(e) => {
                let _ = inner.kill();
                let _ = inner.wait();
                return Err(e);
            }
        };
        let keep = cmd.stderr_tail;
        let pipe = inner.stderr.take();
        // Dropped, it is ended.
        let mut child = Child { cmd: cmd.clone(), inner, pidfd, stderr: None, status: None };
        if let Some(pipe) = pipe {
            let pipe = ChildPipe::new(pipe, &child.pidfd)?.deaf();
            child.stderr = Some(thread::spawn(move || tail(pipe, keep))?);
        }
        Ok(child)
    }

    /// Its pid; good as long as this guard lives.
    pub fn pid(&self) -> i32 {
        pid_of(&self.inner)
    }

    /// Becomes readable when it has ended.
    pub fn pidfd(&self) -> &PidFd {
        &self.pidfd
    }

    /// The writing end of its stdin, once, where that is a pipe.
    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.inner.stdin.take()
    }

    /// The reading end of its stdout, once, where that is a pipe. It ends with the child, and with an error at a signal.
    pub fn stdout(&mut self) -> Result<Option<ChildPipe<std::process::ChildStdout>>> {
        Ok(self.inner.stdout.take().map(|pipe| ChildPipe::new(pipe, &self.pidfd)).transpose()?)
    }

    /// Sends a signal to it and to what it has started in its process group.
    pub fn signal_group(&self, signal: Signal) {
        // Not reaped yet, so the group's id cannot belong to another one.
        if self.status.is_none() {
            let _ = killpg(Pid::from_raw(self.pid()), signal);
        }
    }

    /// Waits for its end; a signal to us ends the wait with an error (and dropping the guard then ends the child).
    pub fn wait(&mut self) -> Result<ExitStatus> {
        while !self.pidfd.wait(Duration::from_secs(3600))? {}
        self.reap()
    }

    /// Its status if it has ended.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.pidfd.wait(Duration::ZERO)? { self.reap().map(Some) } else { Ok(None) }
    }

    /// Waits for its end; anything but success is an error with status and stderr.
    pub fn finish(mut self) -> Result<()> {
        let status = self.wait()?;
        if status.success() { Ok(()) } else { Err(self.failure(status)) }
    }

    /// The error for a child that has ended with `status`.
    pub fn failure(&mut self, status: ExitStatus) -> Error {
        // Its reader ends with the child.
        let stderr = self.stderr.take().and_then(|t| t.join().ok()).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        let status = describe(status);
        let mut error = Error::new(Code::CommandFailed, format!("{} failed ({status})", self.cmd.name()));
        if let Some(line) = stderr.lines().rev().find(|l| !l.trim().is_empty()) {
            error = error.also(line.trim().to_owned());
        }
        error.child(ChildFailure { argv: self.cmd.argv(), status, stderr })
    }

    /// Takes the status of a child that has ended, and kills what it has left in its process group.
    fn reap(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        // Not reaped yet, so neither the pid nor the group's id can belong to another program.
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
        let status = self.inner.wait()?;
        self.status = Some(status);
        Ok(status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.status.is_some() {
            return;
        }
        let _shield = signal::shield();
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGTERM);
        let _ = self.pidfd.wait(self.cmd.grace);
        let _ = self.reap();
    }
}

pub(super) fn pid_of(child: &std::process::Child) -> i32 {
    i32::try_from(child.id()).expect("a pid fits")
}
