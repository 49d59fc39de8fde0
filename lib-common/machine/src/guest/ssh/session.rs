//! A session with a guest's sshd inside this process (libssh2), for work that streams: scripts, files, package managers.
//! Knows neither what it runs nor whom it shows the output to.
//!
//! Nothing here blocks: each wait has the session's deadline and an ear for signals. The guest's host key is compared
//! before anything is sent that could be abused.

mod allowance;
mod pump;

use self::allowance::Allowance;
use self::pump::Pump;
use super::keys;
use lib_common::error::{Code, Error, Result};
use lib_common::sys::{limits, poll, signal};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, recv};
use ssh2::{BlockDirections, Channel, ErrorCode, MethodType};
use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// libssh2's word for "not yet" (libssh2.h).
const EAGAIN: ErrorCode = ErrorCode::Session(-37);

/// How much is read of a command's output at once, in bytes: the largest packet that SSH promises to carry
/// (RFC 4253, section 6.1).
const CHUNK: usize = 32 << 10;

/// The longest first line of an sshd, in bytes (RFC 4253, section 4.2).
const GREETING: usize = 255;

/// Between two looks whether the rest of that line has come.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Who logs in, and where.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// The user in the guest.
    pub user: &'a str,
    /// The only host key that is taken: `ssh-ed25519 …`.
    pub host_key: &'a str,
    /// The private key: an OpenSSH file.
    pub private_key: &'a Path,
}

/// Which of a command's streams a piece of output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Gets a command's output as it comes.
pub type Sink<'a> = dyn FnMut(Stream, &[u8]) + 'a;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit status, 0 where a signal ended it.
    pub status: i32,
    /// The signal that ended it, without `SIG`.
    pub signal: Option<String>,
}

impl Outcome {
    /// Whether it ended as it should.
    pub fn is_success(&self) -> bool {
        self.status == 0 && self.signal.is_none()
    }

    /// `exit 3`, `signal KILL`.
    pub fn in_words(&self) -> String {
        match &self.signal {
            Some(signal) => format!("signal {signal}"),
            None => format!("exit {}", self.status),
        }
    }
}

/// A session that is logged in.
pub struct Session {
    ssh: ssh2::Session,
    /// That of libssh2, to be waited for.
    socket: UnixStream,
    pump: RefCell<Pump>,
    deadline: Instant,
}

impl Session {
    /// Logs in over a stream on which sshd is about to speak. Whatever this session does has to be done by `deadline`.
    ///
    /// # Errors
    /// [`Code::GuestUnreachable`] for another host key, a login that is refused, a connection that breaks, and a guest that
    /// sends what nobody asked for; [`Code::TimedOut`] at the deadline; a signal's.
    pub fn open(stream: UnixStream, login: Login<'_>, deadline: Instant) -> Result<Self> {
        let session = Session::greeted(stream, deadline)?;
        if !session.has_host_key(login.host_key)? {
            return Err(Error::new(
                Code::GuestUnreachable,
                "the guest's sshd has another host key than the guest was given",
            ));
        }
        // libssh2 would give up where a signal comes while it opens the file.
        limits::hide_memory()?;
        let key = keys::read_private(login.private_key)?.ok_or_else(|| {
            Error::new(Code::MissingFile, format!("the private key {} is not there", login.private_key.display()))
        })?;
        let login_with_key = || session.ssh.userauth_pubkey_memory(login.user, None, &key, None);
        session.again(login_with_key).map_err(|e| e.within("the guest's sshd refuses the key"))?;
        Ok(session)
    }

    /// A session in which nobody has logged in, and nobody may before the host key was compared.
    ///
    /// # Errors
    /// As those of [`Session::open`].
    pub fn greeted(stream: UnixStream, deadline: Instant) -> Result<Self> {
        stream.set_nonblocking(true)?;
        wait_for_greeting(&stream, deadline)?;
        let mut ssh = ssh2::Session::new().map_err(|e| failed(&e))?;
        let (socket, other_end) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        other_end.set_nonblocking(true)?;
        ssh.set_tcp_stream(socket.try_clone()?);
        ssh.set_blocking(false);
        ssh.method_pref(MethodType::HostKey, "ssh-ed25519").map_err(|e| failed(&e))?;
        let pump = RefCell::new(Pump::new(stream, other_end, Allowance::new()));
        let mut session = Session { ssh, socket, pump, deadline };
        loop {
            match session.ssh.handshake() {
                Ok(()) => break,
                Err(e) if e.code() == EAGAIN => session.wait()?,
                Err(e) => return Err(failed(&e).within("the guest's sshd does not speak as it should")),
            }
        }
        Ok(session)
    }

    /// Whether that is the key of whom it speaks with: whoever has another is not the guest that was started.
    ///
    /// # Errors
    /// [`Code::BadDocument`] for a key that is none.
    pub fn has_host_key(&self, expected: &str) -> Result<bool> {
        let expected = super::keys::blob(expected)?;
        Ok(self.ssh.host_key().is_some_and(|(key, _)| key == expected))
    }

    /// Starts a command line in the user's shell. What it prints goes to `sink` while its input is written and while
    /// its end is waited for.
    ///
    /// # Errors
    /// As those of [`Session::open`].
    pub fn start<'s>(&'s self, command: &str, sink: &'s mut Sink<'s>) -> Result<Running<'s>> {
        self.pump.borrow_mut().allowance.command();
        let mut channel = self.again(|| self.ssh.channel_session())?;
        self.again(|| channel.exec(command))?;
        Ok(Running { session: self, channel, sink, broken: None })
    }

    /// Runs a command line in the user's shell, with `stdin`, to its end.
    ///
    /// # Errors
    /// As those of [`Session::open`]. A command that does not read its input to the end is none.
    pub fn run(&self, command: &str, stdin: &[u8], sink: &mut Sink<'_>) -> Result<Outcome> {
        let mut pass = |stream: Stream, bytes: &[u8]| sink(stream, bytes);
        let mut running = self.start(command, &mut pass)?;
        match running.write_all(stdin) {
            Ok(()) => running.finish(),
            Err(_) => running.end_of_broken(),
        }
    }

    fn again<T>(&self, mut call: impl FnMut() -> Result<T, ssh2::Error>) -> Result<T> {
        loop {
            match call() {
                Err(e) if e.code() == EAGAIN => self.wait()?,
                other => {
                    self.pump.borrow_mut().push();
                    return other.map_err(|e| failed(&e));
                }
            }
        }
    }

    /// To be asked wherever a guest could keep us busy: one that is never waited for sends faster than we read.
    fn may_go_on(&self) -> Result<()> {
        signal::check()?;
        if Instant::now() >= self.deadline {
            return Err(Error::new(Code::TimedOut, "the guest was not done in time"));
        }
        Ok(())
    }

    fn sends(&self) -> bool {
        matches!(self.ssh.block_directions(), BlockDirections::Outbound | BlockDirections::Both)
    }

    /// Waits until libssh2 can go on.
    fn wait(&self) -> Result<()> {
        let flags = match self.ssh.block_directions() {
            BlockDirections::Outbound => PollFlags::POLLOUT,
            BlockDirections::Both => PollFlags::POLLIN | PollFlags::POLLOUT,
            BlockDirections::Inbound | BlockDirections::None => PollFlags::POLLIN,
        };
        loop {
            self.may_go_on()?;
            let mut pump = self.pump.borrow_mut();
            pump.turn()?;
            let mut asked = vec![(self.socket.as_fd(), flags)];
            asked.extend(pump.waits_for());
            if !poll::wait(&asked, Some(self.deadline))?[0].is_empty() {
                return Ok(());
            }
        }
    }
}

/// Waits for sshd's first line, which stays to be read: libssh2 would read one without an end for ever.
fn wait_for_greeting(stream: &UnixStream, deadline: Instant) -> Result<()> {
    let strange = || Error::new(Code::GuestUnreachable, "the guest's sshd does not speak as it should");
    let mut line = [0; GREETING];
    while Instant::now() < deadline {
        match recv(stream.as_raw_fd(), &mut line, MsgFlags::MSG_PEEK) {
            Ok(0) => return Err(super::unreachable("the session with the guest broke")),
            Ok(n) => {
                let said = &line[..n];
                if said.contains(&b'\n') && said.starts_with(b"SSH-") {
                    return Ok(());
                }
                if n == GREETING || !said.iter().zip(b"SSH-").all(|(a, b)| a == b) {
                    return Err(strange());
                }
                // What is there already keeps the socket readable, so there is nothing to poll for.
                poll::wait(&[], Some(deadline.min(Instant::now() + LOOK_AGAIN)))?;
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {
                poll::wait(&[(stream.as_fd(), PollFlags::POLLIN)], Some(deadline))?;
            }
            Err(e) => return Err(super::unreachable("the session with the guest broke").because(&e)),
        }
    }
    Err(Error::new(Code::TimedOut, "the guest was not done in time"))
}

/// A command that runs. Written to, it gets that as its input; dropped, it is left to itself.
pub struct Running<'s> {
    session: &'s Session,
    channel: Channel,
    sink: &'s mut Sink<'s>,
    /// Why the last write failed, where it was not for the command's own end.
    broken: Option<Error>,
}

impl Running<'_> {
    /// Ends its input and waits for its end.
    ///
    /// # Errors
    /// As those of [`Session::open`].
    pub fn finish(mut self) -> Result<Outcome> {
        let session = self.session;
        let ended = session.again(|| self.channel.send_eof());
        // A command that has ended already has nobody to hear of the end of its input.
        if !self.channel.eof() {
            ended?;
        }
        loop {
            session.may_go_on()?;
            self.drain()?;
            if self.channel.eof() {
                break;
            }
            if self.channel.read_window().available == 0 {
                session.wait()?;
            }
        }
        session.again(|| self.channel.close())?;
        session.again(|| self.channel.wait_close())?;
        let signal = self.channel.exit_signal().map_err(|e| failed(&e))?.exit_signal;
        let status = self.channel.exit_status().map_err(|e| failed(&e))?;
        Ok(Outcome { status, signal })
    }

    /// After a write has failed: the outcome of a command that ended before it had read all, else why the write failed.
    pub fn end_of_broken(mut self) -> Result<Outcome> {
        match self.broken.take() {
            Some(e) => Err(e),
            None => self.finish(),
        }
    }

    /// Whether a write failed because of the session or the command, and not because of what was to be written.
    pub fn has_broken(&self) -> bool {
        self.broken.is_some() || self.channel.eof()
    }

    /// Gives all output that is there to the sink.
    fn drain(&mut self) -> Result<()> {
        let mut buffer = [0; CHUNK];
        for (id, which) in [(0, Stream::Stdout), (ssh2::EXTENDED_DATA_STDERR, Stream::Stderr)] {
            let mut stream = self.channel.stream(id);
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => {
                        self.session.pump.borrow_mut().allowance.handed(n);
                        (self.sink)(which, &buffer[..n]);
                        self.session.may_go_on()?;
                    }
                    // It was about to tell sshd that there is room again: that has to go out first.
                    Err(e) if e.kind() == ErrorKind::WouldBlock && self.session.sends() => self.session.wait()?,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => return Err(super::unreachable("the session with the guest broke").because(&e)),
                }
            }
        }
        Ok(())
    }

    fn write_some(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        let mut half_sent = false;
        loop {
            self.session.may_go_on()?;
            // A packet of which a part is sent has to be finished before libssh2 may send anything else.
            if !half_sent {
                self.drain()?;
            }
            match self.channel.write(bytes) {
                Ok(0) => {}
                Ok(n) => {
                    self.session.pump.borrow_mut().push();
                    return Ok(Some(n));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) if self.channel.eof() => return Ok(None),
                Err(e) => return Err(super::unreachable("the session with the guest broke").because(&e)),
            }
            half_sent = self.session.sends();
            // The write may have read output: nothing new need come before there is something to do.
            if half_sent || self.channel.read_window().available == 0 {
                if self.channel.eof() {
                    return Ok(None);
                }
                self.session.wait()?;
            }
        }
    }
}

impl Write for Running<'_> {
    /// An error's reason is kept for [`Running::end_of_broken`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.write_some(bytes) {
            Ok(Some(n)) => Ok(n),
            Ok(None) => Err(ErrorKind::BrokenPipe.into()),
            Err(e) => {
                let told = io::Error::other(e.to_string());
                self.broken = Some(e);
                Err(told)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn failed(e: &ssh2::Error) -> Error {
    super::unreachable("the session with the guest failed").because(e)
}
