//! SSH into guests: keys, the command line of the system's `ssh`, and the relay that it speaks through. Starts nothing
//! itself.
//!
//! The host made the guest's host key, so the first connection is checked like every other; there is no file of the
//! user's own that takes part.

mod client_config;
mod heard;
pub mod keys;
mod relay;
pub mod session;
mod via;

pub use client_config::{ClientConfig, client_config, host_key_lines};
pub use heard::{End, SshLog};
pub use relay::relay;
pub(crate) use via::first_to_speak;
pub use via::{Via, Ways, wait_for_sshd};

use super::unreachable;
use crate::doc::{Guest, MAX_BYTES, Name};
use crate::error::{Code, Error, Result};
use crate::store::MachineDir;
use crate::sys::cmd::{Cmd, quote};
use crate::sys::fs::save;
use crate::sys::owned;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long sshd may take for its greeting at least, once it has begun.
const LEAST_GREETING: Duration = Duration::from_secs(10);

/// Of ssh's log, where a guest's requests on a channel are said: `exit-status` is one (RFC 4254, section 6.10).
const REQUESTS: &str = "clientloop.c:client_input_channel_req():*";

/// Where a connection leads and what it is checked against.
#[derive(Clone, Debug)]
pub struct SshTarget {
    /// The VM.
    pub name: Name,
    /// The user in the guest.
    pub user: String,
    /// The program `bg-ssh`, which makes the connection.
    pub connector: PathBuf,
    /// Which way.
    pub via: Via,
    /// How long it waits for a guest that boots.
    pub connect_timeout: Duration,
    /// A file to which ssh and the connector append what goes wrong, instead of saying it on stderr.
    pub log: Option<PathBuf>,
    /// Since when the login is waited for, by the host's CLOCK_MONOTONIC in milliseconds, where it is to be noted.
    pub login_since_ms: Option<u64>,
    /// The store, as it has to find it.
    pub state_dir: PathBuf,
    /// The sockets, as it has to find them.
    pub runtime_dir: PathBuf,
    /// The host key that is expected: [`known_hosts`].
    pub known_hosts: PathBuf,
    /// The private key that logs in: [`keys::private_key`].
    pub identity: PathBuf,
}

/// What is to run in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session<'a> {
    /// A command line for the user's shell; without it, a login shell.
    pub command: Option<&'a str>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Ports that lead to the guest, each as ssh's `-L` takes it.
    pub forwards: &'a [String],
}

/// The `ssh` that opens a session (options: ssh_config(5)). No configuration file is read, and nobody is asked.
///
/// Whichever way it goes, the connection is made by `bg-ssh --fdpass`, which hands the socket to ssh and ends: one way of
/// waiting and choosing for both, and no process in between that would copy each byte.
///
/// # Errors
/// [`Code::BadConfig`] for paths that ssh_config has no way to write.
pub fn command(target: &SshTarget, session: Session<'_>) -> Result<Cmd> {
    let SshTarget { name, via, connect_timeout, .. } = target;
    let (program, via, seconds) = (quote(plain(&target.connector)?), via.as_str(), connect_timeout.as_secs_f64());
    let told = match &target.log {
        Some(log) => format!(" --error-file {}", quote(plain(log)?)),
        None => String::new(),
    };
    let connector =
        format!("{program} --fdpass{told} --via {via} --connect-timeout {seconds} {name}").replace('%', "%%");
    let mut options = vec![format!("ProxyCommand={connector}"), "ProxyUseFdpass=yes".into()];
    if target.log.is_some() {
        // What the guest said of the command's end; an ssh before 8.5 does not know how to say so.
        options.extend(["IgnoreUnknown=LogVerbose".into(), format!("LogVerbose={REQUESTS}")]);
    }
    // The connector waits for sshd's first byte alone: for the rest of its greeting and for the exchange of keys ssh
    // waits no longer than that did.
    let greeting = connect_timeout.max(&LEAST_GREETING).as_secs_f64().ceil();
    options.push(format!("ConnectTimeout={greeting}"));
    options.extend(checks(&target.known_hosts, &target.identity, name)?);
    if let Some(since) = target.login_since_ms {
        // ssh runs it as soon as it has logged in, and goes on when it has ended.
        let note = format!("{program} --logged-in {since} {name}").replace('%', "%%");
        options.extend(["PermitLocalCommand=yes".into(), format!("LocalCommand={note}")]);
    }
    let log = target.log.iter().flat_map(|log| [OsStr::new("-E"), log.as_os_str()]);
    let cmd = Cmd::new("ssh").args(["-F", "none"]).args(log).args(options.iter().flat_map(|o| ["-o", o]));
    let cmd = cmd.args(session.forwards.iter().flat_map(|forward| ["-L".to_owned(), on_one_address(forward)]));
    let cmd = cmd.args(["-l", &target.user, if session.tty { "-t" } else { "-T" }, name.as_str()]);
    // Without `--`, ssh would take a command that begins with `-` for more of its own options.
    let cmd = cmd.args(session.command.iter().flat_map(|c| ["--", c]));
    // ssh gives the connector's command line to $SHELL, which need not quote as sh does.
    let cmd = cmd.env("SHELL", "/bin/sh");
    Ok(cmd.env("BG_STATE_DIR", &target.state_dir).env("BG_RUNTIME_DIR", &target.runtime_dir))
}

/// A port for ssh's `-L` at 127.0.0.1 where no other address is named: `localhost` is two addresses to ssh, and it is content
/// with one of them.
fn on_one_address(forward: &str) -> String {
    let mut in_brackets = false;
    let is_colon = |c: char| {
        in_brackets = (in_brackets || c == '[') && c != ']';
        c == ':' && !in_brackets
    };
    let fields = forward.split(is_colon).count();
    let first = forward.split(':').next().unwrap_or_default();
    match forward.strip_prefix("localhost:") {
        // `localhost:PORT:HOST:HOSTPORT`, or with a socket of the guest behind the port.
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => format!("127.0.0.1:{rest}"),
        // `PORT:HOST:HOSTPORT`, or `PORT:SOCKET`.
        _ if fields <= 3 && !first.is_empty() && first.bytes().all(|b| b.is_ascii_digit()) => {
            format!("127.0.0.1:{forward}")
        }
        _ => forward.to_owned(),
    }
}

/// What makes ssh check the host key that `known_hosts` has under `alias`, log in by the key `identity` alone, and ask nobody.
///
/// # Errors
/// As those of [`command`].
pub(crate) fn checks(known_hosts: &Path, identity: &Path, alias: &Name) -> Result<Vec<String>> {
    Ok(vec![
        format!("UserKnownHostsFile={}", config_word(known_hosts)?),
        "GlobalKnownHostsFile=/dev/null".into(),
        format!("HostKeyAlias={alias}"),
        "HostKeyAlgorithms=ssh-ed25519".into(),
        // What is said does not leave the host, and an emulated guest takes a fifth of a second longer for the other kind.
        "KexAlgorithms=^curve25519-sha256".into(),
        "StrictHostKeyChecking=yes".into(),
        "CheckHostIP=no".into(),
        "UpdateHostKeys=no".into(),
        format!("IdentityFile={}", config_word(identity)?),
        "IdentitiesOnly=yes".into(),
        "IdentityAgent=none".into(),
        "PreferredAuthentications=publickey".into(),
        "PasswordAuthentication=no".into(),
        "BatchMode=yes".into(),
        "ControlMaster=no".into(),
        "ControlPath=none".into(),
        // A port that is taken is an error, and not a line to be overlooked. Without ports it says nothing.
        "ExitOnForwardFailure=yes".into(),
        "LogLevel=ERROR".into(),
    ])
}

/// The command line for the remote shell: one word is one already, several are an argv that it keeps as it is.
pub fn command_line(words: &[String]) -> Result<Option<String>> {
    let line = match words {
        [] => return Ok(None),
        [line] => line.clone(),
        words => words.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" "),
    };
    if line.trim().is_empty() {
        return Err(Error::new(Code::Usage, "the command is empty").hint("leave `--` out for a shell"));
    }
    Ok(Some(line))
}

/// The VM's own known_hosts, with the key that `guest` says and no other; written only where it is not so already.
pub fn known_hosts(machine: &MachineDir, guest: &Guest) -> Result<PathBuf> {
    let line = known_hosts_line(machine.name(), guest)?;
    let path = machine.known_hosts();
    if owned::read(&path, MAX_BYTES as u64)?.is_some_and(|old| old == line.as_bytes()) {
        return Ok(path);
    }
    save(&path, line.as_bytes(), 0o600)?;
    Ok(path)
}

/// What the known_hosts of the VM `name` has.
pub fn known_hosts_line(name: &Name, guest: &Guest) -> Result<String> {
    Ok(format!("{name} {}\n", keys::checked(&guest.host_key)?))
}

/// A path as a word of ssh_config(5): in double quotes, and `%` is no token there.
fn config_word(path: &Path) -> Result<String> {
    let text = plain(path)?;
    // ssh would put a variable of the environment there, and nothing makes it plain text.
    if text.contains("${") {
        return Err(unwritable(path));
    }
    Ok(format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\"").replace('%', "%%")))
}

fn plain(path: &Path) -> Result<&str> {
    path.to_str().filter(|text| !text.contains(char::is_control)).ok_or_else(|| unwritable(path))
}

fn unwritable(path: &Path) -> Error {
    Error::new(Code::BadConfig, format!("ssh cannot be given the path {}", path.display()))
        .hint("choose a state directory without control characters and `${`")
}

#[cfg(test)]
mod tests;
