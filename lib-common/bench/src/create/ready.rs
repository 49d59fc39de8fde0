//! Ready is: `ssh true` has exited 0, its host key verified. One poller for every side, whatever it runs on.
//!
//! Each 50 ms it tries to connect as the side's guests are reached, and waits for sshd's first bytes; a connection that is
//! silent for a second gets another one beside it. The one that spoke becomes that of the system's `ssh`, through a port of the
//! loopback interface, so no guest forks an sshd that nobody uses.

use lib_common::doc::{Name, SSH_PORT};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::{Cmd, Streams};
use lib_common::sys::fs::save;
use lib_common::sys::host::children_cpu_s;
use lib_common::sys::poll::{readable, wait};
use lib_common::sys::thread;
use lib_common::timing::millis;
use lib_machine::guest::ssh::{checks, first_to_speak, relay};
use lib_machine::guest::vsock;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a connection may be silent until another is tried beside it.
const SILENT: Duration = Duration::from_secs(1);
/// So many are open at most.
const MOST_OPEN: usize = 4;
/// How long a TCP connection may take: the other end is on this host.
const TCP_CONNECT: Duration = Duration::from_millis(200);
/// How long `ssh true` may take; under emulation on a busy host that is seconds.
const SSH_WITHIN: Duration = Duration::from_secs(60);

/// How a guest's sshd is reached.
pub(super) enum Way {
    /// By the Unix socket of its vsock. `up`: where the guest says that it is up, before which nobody may connect.
    Vsock { socket: PathBuf, up: Option<UnixListener> },
    /// By TCP.
    Tcp(SocketAddr),
}

/// A guest that is waited for.
pub(super) struct Guest<'a> {
    pub(super) name: &'a Name,
    pub(super) way: Way,
    /// `ssh-ed25519 …`, known before the first connection.
    pub(super) host_key: &'a str,
    /// The private key that logs in.
    pub(super) identity: &'a Path,
    /// A directory for its known_hosts.
    pub(super) dir: &'a Path,
}

/// How it went.
pub(super) struct Ready {
    /// When `ssh` ended.
    pub(super) at: Instant,
    /// How long `ssh true` took, of that which succeeded.
    pub(super) ssh_ms: f64,
    /// How often a connection was tried.
    pub(super) tries: u32,
    /// The processor time of the `ssh`s.
    pub(super) cpu_s: f64,
}

impl Guest<'_> {
    /// Waits until it is ready; `alive` gives an error as soon as it never will be.
    ///
    /// # Errors
    /// [`Code::TimedOut`] at `deadline`, with what went wrong last; a signal's.
    pub(super) fn wait(&self, deadline: Instant, mut alive: impl FnMut() -> Result<()>) -> Result<Ready> {
        let known_hosts = self.dir.join("known_hosts");
        save(&known_hosts, format!("{} {}\n", self.name, self.host_key).as_bytes(), 0o600)?;
        let cpu_before = children_cpu_s()?;
        let mut open: Vec<OwnedFd> = vec![];
        let (mut tries, mut again, mut last) = (0, Instant::now(), None);
        if let Way::Vsock { up: Some(up), .. } = &self.way {
            while readable(&[up.as_fd()], (Instant::now() + SILENT).min(deadline))?.is_empty() {
                alive()?;
                if Instant::now() >= deadline {
                    return Err(self.late(None));
                }
            }
        }
        loop {
            alive()?;
            if Instant::now() >= deadline {
                return Err(self.late(last));
            }
            if open.is_empty() || Instant::now() >= again {
                tries += 1;
                again = Instant::now() + SILENT;
                match self.connect(deadline) {
                    Ok(fd) => open.push(fd),
                    Err(e) if e.code() == Code::GuestUnreachable => last = Some(e),
                    Err(e) => return Err(e),
                }
                if open.len() > MOST_OPEN {
                    open.remove(0);
                }
            }
            if let Some(spoke) = first_to_speak(&mut open, (Instant::now() + PAUSE).min(deadline))? {
                let begun = Instant::now();
                match self.ssh_true(&known_hosts, spoke) {
                    Ok(at) => {
                        return Ok(Ready {
                            at,
                            ssh_ms: millis(at - begun),
                            tries,
                            cpu_s: children_cpu_s()? - cpu_before,
                        });
                    }
                    Err(e) if e.code() == Code::CommandFailed => last = Some(e),
                    Err(e) => return Err(e),
                }
            } else if open.is_empty() {
                wait(&[], Some(Instant::now() + PAUSE))?;
            }
        }
    }

    fn late(&self, last: Option<Error>) -> Error {
        let error = Error::new(Code::TimedOut, format!("the guest `{}` was not ready in time", self.name));
        let error = error.hint("BG_BOOT_TIMEOUT lets a guest take longer");
        last.map_or(error.clone(), |e| error.also(e.with_causes()))
    }

    fn connect(&self, deadline: Instant) -> Result<OwnedFd> {
        match &self.way {
            Way::Vsock { socket, .. } => {
                vsock::connect(socket, SSH_PORT, (Instant::now() + SILENT).min(deadline)).map(OwnedFd::from)
            }
            Way::Tcp(address) => TcpStream::connect_timeout(address, TCP_CONNECT)
                .map(OwnedFd::from)
                .map_err(|e| Error::new(Code::GuestUnreachable, format!("nobody answers on {address}")).because(&e)),
        }
    }

    /// `ssh true` over a connection on which an SSH server has begun to speak; when it ended.
    fn ssh_true(&self, known_hosts: &Path, guest: OwnedFd) -> Result<Instant> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let options = checks(known_hosts, self.identity, self.name)?;
        let cmd = Cmd::new("ssh").args(["-F", "none"]).args(options.iter().flat_map(|o| ["-o", o]));
        let port = listener.local_addr()?.port().to_string();
        let cmd = cmd.args(["-p", &port, "-l", "root", "-T", "127.0.0.1", "--", "true"]);
        let mut ssh = cmd.spawn(Streams::default())?;
        let by = Instant::now() + SSH_WITHIN;
        if readable(&[listener.as_fd(), ssh.pidfd().as_fd()], by)?.first() != Some(&0) {
            return Err(ssh.wait().map(|status| ssh.failure(status))?);
        }
        let (stream, _) = listener.accept()?;
        std::thread::scope(|scope| {
            let relayed = &stream;
            thread::scoped(scope, move || relay(relayed.as_fd(), relayed.as_fd(), guest))?;
            let ended = ssh.pidfd().wait(by.saturating_duration_since(Instant::now()));
            let at = Instant::now();
            // How ssh ended says how it went; the relay ends with the connection.
            let _ = stream.shutdown(Shutdown::Both);
            if !ended? {
                return Err(Error::new(
                    Code::CommandFailed,
                    format!("ssh did not end within {} s", SSH_WITHIN.as_secs()),
                ));
            }
            ssh.finish().map(|()| at)
        })
    }
}
