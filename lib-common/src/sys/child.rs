//! A running child and its one owner. Only [`super::cmd`] makes children.

#![allow(clippy::disallowed_types)]

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
        let pidfd = PidFd::of_child(pid_of(&inner))?;
        let keep = cmd.stderr_tail;
        let pipe = inner.stderr.take();
        // Dropped, it is ended.
        let mut child = Child { cmd: cmd.clone(), inner, pidfd, stderr: None, status: None };
        child.stderr = pipe.map(|pipe| thread::spawn(move || tail(pipe, keep))).transpose()?;
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

    /// The reading end of its stdout, once, where that is a pipe.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.inner.stdout.take()
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

    /// The error for a child that ended with `status`.
    pub fn failure(&mut self, status: ExitStatus) -> Error {
        let stderr = self.stderr.take().and_then(|t| t.join().ok()).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        let status = describe(status);
        let mut error = Error::new(Code::CommandFailed, format!("{} failed ({status})", self.cmd.name()));
        if let Some(line) = stderr.lines().rev().find(|l| !l.trim().is_empty()) {
            error = error.also(line.trim().to_owned());
        }
        error.child(ChildFailure { argv: self.cmd.argv(), status, stderr })
    }

    fn reap(&mut self) -> Result<ExitStatus> {
        if self.status.is_none() {
            self.status = Some(self.inner.wait()?);
        }
        Ok(self.status.expect("set above"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.status.is_some() {
            return;
        }
        let _shield = signal::shield();
        let group = Pid::from_raw(self.pid());
        // Not reaped yet, so neither the pid nor the group's id can belong to anybody else.
        let _ = killpg(group, Signal::SIGTERM);
        if !self.pidfd.wait(self.cmd.grace).unwrap_or(false) {
            let _ = killpg(group, Signal::SIGKILL);
        }
        let _ = self.inner.wait();
    }
}

pub(super) fn pid_of(child: &std::process::Child) -> i32 {
    i32::try_from(child.id()).expect("a pid fits")
}
