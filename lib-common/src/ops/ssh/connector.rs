//! What `ssh` calls `bg-ssh` for: a connection to the guest's sshd and the guest's host key; and the configuration by
//! which it does.

use crate::cli::{Answer, Context};
use crate::doc::{ErrorDoc, Guest, Name, to_json};
use crate::error::{Code, Error, Result};
use crate::guest::live::Live;
use crate::guest::ssh::{self, ClientConfig, Via, Ways, keys};
use crate::sys::{limits, plain, poll, program, socket};
use nix::poll::PollFlags;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// A connection that is wanted.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The VM.
    pub name: Name,
    /// Which way; without it, as configured.
    pub via: Option<Via>,
    /// How long a guest that boots is waited for.
    pub connect_timeout: Duration,
}

/// Relays stdin and stdout to the guest's sshd, once that speaks.
///
/// # Errors
/// [`crate::Code::NotRunning`] as soon as the VM has ended, [`crate::Code::TimedOut`] at the end of `connect_timeout`;
/// those of [`Ways::of`].
pub fn stdio(wanted: &Connection, cx: &mut Context<'_>) -> Result<Answer> {
    end_with_ssh(cx)?;
    let guest = connect(wanted, cx)?;
    cx.stages.begin("relay");
    let (stdin, stdout) = cx.standard_streams();
    ssh::relay(stdin.as_fd(), stdout.as_fd(), guest)?;
    Ok(Answer::Done)
}

/// Hands such a connection to ssh, which reads the socket that stdout is (ProxyUseFdpass). An error goes to `error_file`, if there
/// is one, for the tool that has started ssh: ssh complains, too, and that tool says both when ssh has ended.
///
/// # Errors
/// As those of [`stdio`].
pub fn fdpass(wanted: &Connection, error_file: Option<&Path>, cx: &mut Context<'_>) -> Result<Answer> {
    let (error, path) = match (hand_over(wanted, cx), error_file) {
        (Err(error), Some(path)) => (error, path),
        (done, _) => return done,
    };
    let line = to_json(&ErrorDoc::new(cx.tool, &error)) + "\n";
    match plain::append_named(path).map(|mut file| file.write_all(line.as_bytes())) {
        Ok(Ok(())) => Ok(Answer::Status(error.code().exit())),
        _ => Err(error),
    }
}

fn hand_over(wanted: &Connection, cx: &mut Context<'_>) -> Result<Answer> {
    end_with_ssh(cx)?;
    let guest = connect(wanted, cx)?;
    let (_, stdout) = cx.standard_streams();
    socket::hand_on(stdout.as_fd(), guest.as_fd())
        .map_err(|e| e.hint("--fdpass is for ssh's ProxyCommand with ProxyUseFdpass; else there is --stdio"))?;
    Ok(Answer::Done)
}

/// Ends this process with the ssh that has started it: one that is killed would leave it waiting for the guest.
///
/// # Errors
/// [`Code::ClosedStdout`] where ssh is gone already.
fn end_with_ssh(cx: &Context<'_>) -> Result<()> {
    limits::end_with_parent()?;
    let (_, stdout) = cx.standard_streams();
    let asked = [(stdout.as_fd(), PollFlags::empty())];
    match poll::wait(&asked, Some(Instant::now()))?[0].is_empty() {
        true => Ok(()),
        false => Err(Error::new(Code::ClosedStdout, "ssh has ended")),
    }
}

fn connect(wanted: &Connection, cx: &mut Context<'_>) -> Result<OwnedFd> {
    let (live, doc) = Live::in_store(&cx.store().machine(&wanted.name)?)?;
    let ways = Ways::of(wanted.via.unwrap_or(cx.config.ssh_via), &doc)?;
    cx.stages.begin("connect");
    let guest = ways.connect(&live, Instant::now() + wanted.connect_timeout)?;
    cx.stages.hide();
    Ok(guest)
}

/// Notes that a login has worked that was waited for since then (the host's CLOCK_MONOTONIC, in milliseconds).
///
/// What keeps it from being noted is not said: it would stand in the middle of somebody's session.
pub fn logged_in(name: &Name, since_ms: u64, cx: &mut Context<'_>) -> Result<Answer> {
    cx.stages.begin("note");
    let live = cx.store().machine(name).and_then(|machine| Live::in_store(&machine));
    if let Some(booted) = live.ok().and_then(|(live, _)| live.booted()) {
        let _ = booted.note_login(since_ms as f64);
    }
    Ok(Answer::Done)
}

/// Prints the VM's host key as lines of known_hosts, whether it runs or not.
pub fn known_hosts(name: &Name, cx: &mut Context<'_>) -> Result<Answer> {
    cx.stages.begin("known_hosts");
    let guest: Guest = cx.store().machine(name)?.document()?.require()?;
    cx.emit_text(&ssh::host_key_lines(name, &guest)?);
    Ok(Answer::Done)
}

/// Prints what a user's ssh_config includes. It names no VM, and needs none.
pub fn config(via: Option<Via>, cx: &mut Context<'_>) -> Result<Answer> {
    cx.stages.begin("config");
    let store = cx.store();
    let text = ssh::client_config(&ClientConfig {
        env: program::find(Path::new("env"))?,
        tool: cx.config.tool("bg-ssh")?,
        state_dir: store.state_dir().to_owned(),
        runtime_dir: store.runtime_dir().to_owned(),
        identity: keys::private_key(&store),
        via,
    })?;
    cx.emit_text(&text);
    Ok(Answer::Done)
}
