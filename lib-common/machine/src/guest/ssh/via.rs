//! Which way a connection to a guest's sshd goes: by vsock, or by TCP to the VM's network card. The host key is checked
//! alike on both, by whoever speaks SSH over it.

use super::unreachable;
use crate::guest::card::Card;
use crate::guest::live::Live;
use crate::guest::vsock;
use lib_common::doc::{Document, SSH_PORT, Via};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::poll;
use lib_common::timing::monotonic_ms;
use nix::sys::socket::{MsgFlags, recv};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
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

/// The first of the connections that has a byte, which stays where it is; `None` at `by`, or when all have closed. The
/// agent accepts before sshd does, and then closes: only a byte proves that somebody is there. An SSH server speaks
/// first (RFC 4253, section 4.2). Those that have closed are taken out.
pub fn first_to_speak(open: &mut Vec<OwnedFd>, by: Instant) -> Result<Option<OwnedFd>> {
    while !open.is_empty() {
        let asked: Vec<_> = open.iter().map(AsFd::as_fd).collect();
        let Some(&ready) = poll::readable(&asked, by)?.first() else { return Ok(None) };
        let fd = open.remove(ready);
        if matches!(recv(fd.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT), Ok(1..)) {
            return Ok(Some(fd));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
