//! Which way a connection to a guest's sshd goes: by vsock, or by TCP to the VM's network card. The host key is checked
//! alike on both, by whoever speaks SSH over it.

use super::unreachable;
use crate::doc::{Document, SSH_PORT};
use crate::error::{Code, Error, Result};
use crate::guest::card::Card;
use crate::guest::live::Live;
use crate::guest::vsock;
use crate::sys::poll;
use crate::timing::monotonic_ms;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, recv};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long one connection may take to bring sshd's first byte before another is tried: forking an sshd takes seconds
/// under emulation on a busy host.
const FIRST_BYTE: Duration = Duration::from_secs(20);

/// How long a TCP connection may take. The guest is on this host: it is there at once, or has no card yet.
const TCP_CONNECT: Duration = Duration::from_millis(200);

/// How long an sshd that accepted by TCP is waited for before vsock is tried beside it. Each try is another sshd that the
/// guest forks.
const HEAD_START: Duration = Duration::from_secs(2);

/// What `--via` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Whichever answers first.
    Auto,
    /// TCP to the network card.
    Tap,
    /// The guest's vsock.
    Vsock,
}

impl Via {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Via::Auto => "auto",
            Via::Tap => "tap",
            Via::Vsock => "vsock",
        }
    }
}

impl std::str::FromStr for Via {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Via::Auto, Via::Tap, Via::Vsock];
        let found = known.into_iter().find(|via| via.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is no way to a guest; known: auto, tap, vsock"))
    }
}

/// The ways that lead to a VM from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ways {
    tap: Option<SocketAddrV4>,
    vsock: bool,
}

impl Ways {
    /// Vsock, which every VM has.
    pub const VSOCK: Ways = Ways { tap: None, vsock: true };

    /// Those that `via` allows, for the running VM whose record this is.
    ///
    /// # Errors
    /// [`Code::GuestUnreachable`] where only the card is allowed and there is none, or none in this network namespace.
    pub fn of(via: Via, doc: &Document) -> Result<Self> {
        if via == Via::Vsock {
            return Ok(Self::VSOCK);
        }
        let name = doc.name()?;
        let refused = |what: &str, also: &str| {
            let error = Error::new(Code::GuestUnreachable, format!("the VM `{name}` {what}"));
            Err(error.hint(format!("`bg-ssh --via vsock {name}` works without it{also}")))
        };
        let vsock = via == Via::Auto;
        match Card::of(doc)? {
            Card::Here(address) => Ok(Ways { tap: Some(SocketAddrV4::new(address, SSH_PORT as u16)), vsock }),
            _ if vsock => Ok(Self::VSOCK),
            Card::None => refused("has no network card", ""),
            Card::Elsewhere => {
                refused("has its network card in another network namespace", ", and so does bg-ssh in that namespace")
            }
        }
    }

    /// A connection on which the guest's sshd has begun to speak, in blocking mode; while the guest boots it is tried
    /// again and again.
    ///
    /// # Errors
    /// [`Code::TimedOut`] at `deadline`, [`Code::NotRunning`] as soon as the VM has ended; a signal's.
    pub fn connect(self, live: &Live, deadline: Instant) -> Result<OwnedFd> {
        let since = monotonic_ms();
        let speaks = live.retry(deadline, || self.attempt(live, deadline.min(Instant::now() + FIRST_BYTE)))?;
        // A stage that could not be noted is no reason to be without a connection.
        let _ = live.booted().map(|booted| booted.note_banner(since));
        Ok(speaks)
    }

    fn attempt(self, live: &Live, by: Instant) -> Result<OwnedFd> {
        let mut open: Vec<OwnedFd> = vec![];
        match self.tap.map(|address| over_tcp(address, by)) {
            Some(Ok(stream)) => open.push(stream.into()),
            Some(Err(e)) if !self.vsock => return Err(e),
            _ => {}
        }
        if self.vsock {
            let head_start = by.min(Instant::now() + HEAD_START);
            if let Some(first) = first_to_speak(&mut open, head_start)? {
                return Ok(first);
            }
            match vsock::connect(&live.vsock, SSH_PORT, by) {
                Ok(stream) => open.push(stream.into()),
                Err(e) if open.is_empty() || e.code() != Code::GuestUnreachable => return Err(e),
                Err(_) => {}
            }
        }
        first_to_speak(&mut open, by)?.ok_or_else(|| unreachable("sshd does not answer yet"))
    }
}

/// [`Ways::connect`] by vsock alone.
///
/// # Errors
/// As there.
pub fn wait_for_sshd(live: &Live, deadline: Instant) -> Result<UnixStream> {
    Ways::VSOCK.connect(live, deadline).map(UnixStream::from)
}

fn over_tcp(address: SocketAddrV4, by: Instant) -> Result<TcpStream> {
    let left = by.saturating_duration_since(Instant::now());
    // Zero would be an error, and one attempt there is at least.
    let wait = left.clamp(Duration::from_millis(1), TCP_CONNECT);
    let stream = TcpStream::connect_timeout(&SocketAddr::V4(address), wait)
        .map_err(|e| unreachable(format!("the guest does not answer on {address}")).because(&e))?;
    // Keystrokes must not wait for each other; without it they are slower, no more.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// The first connection on which an SSH server greets; its bytes stay to be read. `None` at `by`, or when all have closed.
///
/// The agent accepts before sshd does, and then closes: only a greeting proves that sshd is there (RFC 4253, section 4.2).
/// An sshd with too many logins under way says so in a line of its own and closes; it is tried again as one that only
/// closes. Connections that have closed are taken out.
pub(crate) fn first_to_speak(open: &mut Vec<OwnedFd>, by: Instant) -> Result<Option<OwnedFd>> {
    while !open.is_empty() {
        let asked: Vec<_> = open.iter().map(|fd| (fd.as_fd(), PollFlags::POLLIN)).collect();
        let ready = poll::wait(&asked, Some(by))?;
        if ready.iter().all(|flags| flags.is_empty()) {
            return Ok(None);
        }
        let mut only_a_part = true;
        for index in (0..ready.len()).rev().filter(|index| !ready[*index].is_empty()) {
            let has_ended = ready[index].intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
            match heard(open[index].as_fd(), has_ended) {
                Heard::Greeting => return Ok(Some(open.remove(index))),
                Heard::Refusal => {
                    open.remove(index);
                    only_a_part = false;
                }
                Heard::Part => {}
            }
        }
        if only_a_part {
            if Instant::now() >= by {
                return Ok(None);
            }
            // What was heard stays to be read, so these connections are ready all the time.
            poll::wait(&[], Some(by.min(Instant::now() + REST)))?;
        }
    }
    Ok(None)
}

/// Between two looks at a connection whose server has begun a line and not ended it.
const REST: Duration = Duration::from_millis(5);

/// The longest line before a greeting, in bytes.
const LONGEST_LINE: usize = 1024;

/// What a connection has brought so far.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// An SSH server's greeting.
    Greeting,
    /// The end, or what no SSH server says.
    Refusal,
    /// Too little to say.
    Part,
}

/// Looks at what a connection has brought, and leaves a greeting there. Whole lines before it, which an SSH client ignores
/// (RFC 4253, section 4.2), are taken, so that the end behind them shows. `has_ended`: nothing more comes.
fn heard(fd: BorrowedFd<'_>, has_ended: bool) -> Heard {
    let mut text = [0; LONGEST_LINE];
    loop {
        let n = match recv(fd.as_raw_fd(), &mut text, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Heard::Refusal,
            Ok(n) => n,
            Err(Errno::EAGAIN | Errno::EINTR) if !has_ended => return Heard::Part,
            Err(_) => return Heard::Refusal,
        };
        if text[..n].starts_with(b"SSH-") {
            return Heard::Greeting;
        }
        let Some(end) = text[..n].iter().position(|byte| *byte == b'\n') else {
            return if has_ended || n == LONGEST_LINE { Heard::Refusal } else { Heard::Part };
        };
        if recv(fd.as_raw_fd(), &mut text[..=end], MsgFlags::MSG_DONTWAIT).is_err() {
            return Heard::Refusal;
        }
    }
}

#[cfg(test)]
mod tests;
