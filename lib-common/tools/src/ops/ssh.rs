//! `bg-ssh`: a shell or a command in a guest, and what `ssh` needs for it.

mod connector;

pub use connector::{Connection, config, fdpass, known_hosts, logged_in, stdio};

use crate::cli::{Answer, Context, Source};
use crate::ops::machine::not_made;
use lib_common::doc::{Document, Guest, HealthStatus, Kind, Name, Paused, Via};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::Stream;
use lib_common::sys::signal;
use lib_machine::guest::http::get_health;
use lib_machine::guest::live::Live;
use lib_machine::guest::ssh::session::Session as Greeted;
use lib_machine::guest::ssh::{self, End, Session, SshLog, SshTarget, Ways, keys};
use lib_machine::store::{MachineDir, boot, id_of};
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// How long the reminder after a session waits for the guest.
const REMINDER: Duration = Duration::from_secs(2);

/// How long a guest has to show its host key once more.
const KEY_CHECK: Duration = Duration::from_secs(5);

/// How long a shell in a guest that has been logged in to already waits for another connection.
const CONNECT: Duration = Duration::from_secs(60);

/// What ssh(1) ends with when it is its own failure, and not the command's.
const SSH_FAILED: i32 = 255;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// A VM of the store; else the document in `file` or on stdin says which.
    pub name: Option<Name>,
    /// A file with a document.
    pub file: Option<PathBuf>,
    /// The command's words; none for a login shell.
    pub command: Vec<String>,
    /// Give a command a terminal too.
    pub tty: bool,
    /// Ports that lead to the guest, each as ssh's `-L` takes it.
    pub forwards: Vec<String>,
    /// Which way; without it, as configured.
    pub via: Option<Via>,
    /// How long a guest that boots is waited for.
    pub connect_timeout: Duration,
}

/// Runs a session and gives the remote command's status.
///
/// # Errors
/// [`Code::NotRunning`]; those of [`Ways::of`]; [`Code::Usage`] without a terminal for a shell; [`Code::SshFailed`] where
/// ssh failed, and not the command; [`Code::Interrupted`] and [`Code::Terminated`] where a signal ended the session.
pub fn run(request: &Request, cx: &mut Context<'_>) -> Result<Answer> {
    let line = ssh::command_line(&request.command)?;
    let from_stdin = request.name.is_none() && request.file.is_none();
    let machine = machine(request, cx)?;
    let (live, doc) = Live::in_store(&machine)?;
    let mut told = None;
    tell_pause(&live, &mut told, cx);
    let (stdin, tty) = input(line.is_some(), from_stdin, cx)?;
    let via = request.via.unwrap_or(cx.config.ssh_via);
    // Said here, before ssh starts: it would only say that there is no connection.
    let ways = Ways::of(via, &doc)?;
    let login_since_ms = boot::lacks_login(live.runtime_dir()).then(|| cx.stages.begun_ms().round() as u64);
    let mut log = SshLog::new()?;
    let target =
        SshTarget { via, login_since_ms, log: log.path(), ..target(&machine, &doc, request.connect_timeout, cx)? };
    let tty = tty && (line.is_none() || request.tty);
    let session = Session { command: line.as_deref(), tty, forwards: &request.forwards };
    let cmd = ssh::command(&target, session)?;
    cx.stages.begin("session");
    cx.stages.hide();
    let status = cmd.run_foreground(stdin, Stream::Inherit, || {
        tell_pause(&live, &mut told, cx);
        // Read again at the end, where a failure to is told.
        let _ = log.collect();
    })?;
    signal::check()?;
    // It may have gone on and the session ended between two looks.
    tell_pause(&live, &mut told, cx);
    log.collect()?;
    if status.code() == Some(SSH_FAILED) && log.end().is_none() {
        return Err(why(&log, ways, (&live, &doc), cx)?);
    }
    after(&log, &live, cx);
    if line.is_some() {
        note_command(&live, login_since_ms);
    } else if tty {
        remind(&live, cx);
    }
    Ok(Answer::Status(exit_status(status)))
}

/// Says what ssh complained of in a session that has worked, and that a signal ended its command: no status says so.
fn after(log: &SshLog, live: &Live, cx: &mut Context<'_>) {
    for line in log.lines() {
        cx.remark(&format!("ssh: {line}"));
    }
    if log.end() == Some(End::Signal) {
        cx.remark(&format!("a signal ended the command in the VM `{}`", live.name));
    }
}

/// Why ssh failed. What it says of another host key names a file to edit, which would not help.
fn why(log: &SshLog, ways: Ways, (live, doc): (&Live, &Document), cx: &mut Context<'_>) -> Result<Error> {
    let (error, name) = (log.failure(&live.name), &live.name);
    if live.has_ended()? {
        let ended = error.within(format!("the VM `{name}` has ended"));
        return Ok(ended.hint(format!("`bg-vm logs {name}` shows why; `bg-vm start {name}` starts it")));
    }
    if has_another_key(ways, live, doc, cx) {
        let what = "the guest's sshd has another host key than the guest was given, and got nothing";
        return Ok(error.within(what).hint(format!("`bg-vm restart {name}` gives `{name}` its own key again")));
    }
    Ok(error)
}

/// Says once that the VM is paused, and once that it goes on: a session in it stands still meanwhile. One that ended while it
/// was paused did not go on.
fn tell_pause(live: &Live, told: &mut Option<Paused>, cx: &mut Context<'_>) {
    let now = live.paused();
    match (&now, &told) {
        (Some(paused), None) => cx.remark(&format!("{} is paused: {paused}", live.name)),
        (None, Some(_)) if !live.has_ended().unwrap_or(true) => cx.remark(&format!("{} goes on", live.name)),
        _ => {}
    }
    *told = now;
}

/// Whether it was the host key that ssh has refused. A guest that does not answer has none.
fn has_another_key(ways: Ways, live: &Live, doc: &Document, cx: &mut Context<'_>) -> bool {
    cx.stages.begin("host_key");
    let deadline = Instant::now() + cx.config.guest_deadline(KEY_CHECK);
    let compare = || {
        // To the session a socket is a socket, whatever its family.
        let stream = UnixStream::from(ways.connect(live, deadline)?);
        Greeted::greeted(stream, deadline)?.has_host_key(&doc.require::<Guest>()?.host_key)
    };
    compare().is_ok_and(|same| !same)
}

/// Whoever looks at the stages up to a first login has run a command: the guest opens the session, which may take longer than
/// the login, runs it and closes. What keeps that from being noted is nobody's concern who has run it.
fn note_command(live: &Live, login_since_ms: Option<u64>) {
    if let (Some(since), Some(booted)) = (login_since_ms, live.booted()) {
        let _ = booted.note_command(since as f64);
    }
}

/// The VM in the store. A document says which one was meant: another VM that has its name by now is not.
fn machine(request: &Request, cx: &mut Context<'_>) -> Result<MachineDir> {
    if let Some(name) = &request.name {
        return cx.store().machine(name);
    }
    let source = Source { name: None, file: request.file.clone() };
    let given = cx.document(&source, Kind::Machine)?;
    let machine = cx.store().machine(&given.name()?).map_err(|e| not_made(&given, e))?;
    if id_of(&given)? == id_of(&machine.document()?)? {
        return Ok(machine);
    }
    Err(Error::new(Code::NotFound, format!("the VM `{}` is not the one of the document", machine.name()))
        .hint("it was removed and created again"))
}

/// A login shell on a terminal, whatever stdin and stdout are. The shell's own status says only what was typed last.
///
/// # Errors
/// [`Code::GuestUnreachable`] where ssh could not connect or lost its connection; [`Code::Interrupted`] and
/// [`Code::Terminated`].
pub(in crate::ops) fn shell(cx: &mut Context<'_>, machine: &MachineDir, doc: &Document, tty: &File) -> Result<()> {
    let target = target(machine, doc, cx.config.guest_deadline(CONNECT), cx)?;
    let cmd = ssh::command(&target, Session { command: None, tty: true, forwards: &[] })?;
    let status = cmd.run_foreground(tty.try_clone()?.into(), tty.try_clone()?.into(), || {})?;
    signal::check()?;
    if status.code() == Some(SSH_FAILED) {
        return Err(Error::new(Code::GuestUnreachable, format!("the session in the VM `{}` broke", machine.name())));
    }
    Ok(())
}

/// Where a session in that VM leads.
pub(in crate::ops) fn target(
    machine: &MachineDir,
    doc: &Document,
    connect_timeout: Duration,
    cx: &Context<'_>,
) -> Result<SshTarget> {
    let guest: Guest = doc.require()?;
    let store = cx.store();
    keys::ensure_user_key(&store)?;
    Ok(SshTarget {
        name: machine.name().clone(),
        known_hosts: ssh::known_hosts(machine, &guest)?,
        user: guest.user,
        connector: cx.config.tool("bg-ssh")?,
        via: cx.config.ssh_via,
        connect_timeout,
        log: None,
        login_since_ms: None,
        state_dir: store.state_dir().to_owned(),
        runtime_dir: store.runtime_dir().to_owned(),
        identity: keys::private_key(&store),
    })
}

/// The session's stdin, and whether that is a terminal. Where the document came in on stdin, a command gets nothing and
/// a shell the terminal.
fn input(has_command: bool, from_stdin: bool, cx: &Context<'_>) -> Result<(Stream, bool)> {
    if !from_stdin {
        return Ok((Stream::Inherit, cx.stdin_is_terminal));
    }
    if has_command {
        return Ok((Stream::Null, false));
    }
    let tty = terminal().map_err(|e| e.hint("give a command: bg-ssh -- COMMAND"))?;
    Ok((tty.into(), true))
}

/// The terminal, whatever the standard streams are.
///
/// # Errors
/// [`Code::Usage`] where there is none.
pub(in crate::ops) fn terminal() -> Result<File> {
    let tty = File::options().read(true).write(true).open("/dev/tty");
    tty.map_err(|e| Error::new(Code::Usage, "there is no terminal for a shell").because(&e))
}

/// Nothing stops a VM when its session ends; who leaves it should know.
fn remind(live: &Live, cx: &mut Context<'_>) {
    cx.stages.begin("reminder");
    let name = &live.name;
    let stop = format!("`bg-vm stop {name}` stops it");
    let text = match get_health(&live.vsock, REMINDER).map(|health| health.status) {
        Ok(HealthStatus::Ok) => format!("{name} still runs (healthy); {stop}"),
        Ok(HealthStatus::Degraded) => format!("{name} still runs (degraded: `bg-health {name}` says why); {stop}"),
        Err(_) if live.has_ended().unwrap_or(false) => format!("{name} has ended; `bg-vm start {name}` starts it"),
        // Whoever typed `poweroff` comes by here.
        Ok(HealthStatus::Starting) | Err(_) => {
            format!("{name} still runs, but does not answer: it may be shutting down; {stop}")
        }
    };
    cx.remark(&text);
}

/// As a shell says it: 128 and the signal's number for an ssh that was killed.
fn exit_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s));
    code.and_then(|c| u8::try_from(c).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests;
