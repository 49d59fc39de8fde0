//! The way to a server: its addresses, judged one by one, and the connection; or the way to the user's own proxy.

use super::admitted::{HostPort, Scheme, Trust, may_connect};
use super::conn::{Conn, Stop};
use lib_common::error::{Code, Error, Result};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, socket, sockopt};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the addresses of a name are good for.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// How long the user's own proxy is not asked for a name because this host is still looking for it: shorter than a package
/// manager waits for an answer.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

/// How often a wait for a name looks whether the proxy ends.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why there is no connection.
#[derive(Debug)]
pub enum NoWay {
    /// The name leads only where it may not.
    Forbidden(String),
    /// The server cannot be reached.
    Failed(io::Error),
}

/// Addresses of names. getaddrinfo(3) cannot be interrupted, so each name is looked up by a thread of its own, one at a
/// time for each; such a thread may outlive the proxy until the resolver gives up, and holds nothing of it.
#[derive(Debug)]
pub struct Resolver {
    names: Arc<Names>,
    find: Find,
    /// Names that this host did not find, and when: behind a proxy it need not know any, and may be slow to say so.
    missed: Mutex<BTreeMap<String, Instant>>,
}

/// What gives a name's addresses; a test has its own.
pub type Find = fn(&str) -> io::Result<Vec<IpAddr>>;

#[derive(Debug, Default)]
struct Names {
    known: Mutex<BTreeMap<String, Lookup>>,
    changed: Condvar,
}

#[derive(Clone, Debug)]
enum Lookup {
    UnderWay,
    Done(Instant, std::result::Result<Vec<IpAddr>, String>),
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new(|name| Ok((name, 0).to_socket_addrs()?.map(|a| a.ip()).collect()))
    }
}

impl Resolver {
    /// One that finds names so.
    pub fn new(find: Find) -> Self {
        Resolver { names: Arc::default(), find, missed: Mutex::default() }
    }

    /// Whether the user's own proxy may be asked for `host`. It reaches what this host does, so that a source must not lead
    /// through it to where it could not lead directly. A name that this host does not find passes: what it stands for, the
    /// proxy alone knows.
    pub fn judge(&self, host: &HostPort, trust: Trust, stop: &Stop) -> std::result::Result<(), NoWay> {
        if trust == Trust::Listed {
            return Ok(());
        }
        if host.is_disguised() {
            return Err(NoWay::Forbidden(format!("{} may stand for a local address", host.host)));
        }
        let all = match host.literal() {
            Some(ip) => vec![ip],
            None => self.addresses_here(&host.host, stop).map_err(NoWay::Failed)?,
        };
        match all.into_iter().find(|ip| !may_connect(trust, host, *ip)) {
            Some(ip) => Err(leads_to(host, ip)),
            None => Ok(()),
        }
    }

    /// The addresses that this host finds for a name, which may be none.
    fn addresses_here(&self, name: &str, stop: &Stop) -> io::Result<Vec<IpAddr>> {
        let missed = || self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        if missed().get(name).is_some_and(|at| at.elapsed() < GOOD_FOR) {
            return Ok(vec![]);
        }
        match self.addresses(name, stop, Instant::now() + KNOWN_WITHIN) {
            Err(e) if matches!(e.kind(), ErrorKind::Other | ErrorKind::TimedOut) => {
                missed().insert(name.to_owned(), Instant::now());
                Ok(vec![])
            }
            other => other,
        }
    }

    /// The addresses of a name.
    fn addresses(&self, name: &str, stop: &Stop, deadline: Instant) -> io::Result<Vec<IpAddr>> {
        let asked = Instant::now();
        let mut known = self.names.lock();
        loop {
            match known.get(name) {
                Some(Lookup::Done(at, Ok(all))) if at.elapsed() < GOOD_FOR => return Ok(all.clone()),
                Some(Lookup::Done(at, Err(text))) if *at >= asked => return Err(io::Error::other(text.clone())),
                Some(Lookup::UnderWay) => {}
                _ => self.start(name, &mut known)?,
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(ErrorKind::TimedOut, "its name was not found in time"));
            }
            known =
                self.names.changed.wait_timeout(known, left.min(LOOK_EVERY)).unwrap_or_else(PoisonError::into_inner).0;
            stop.check()?;
        }
    }

    fn start(&self, name: &str, known: &mut BTreeMap<String, Lookup>) -> io::Result<()> {
        let (names, find, asked) = (Arc::clone(&self.names), self.find, name.to_owned());
        std::thread::Builder::new().name("resolve".into()).spawn(move || {
            let found = find(&asked).map_err(|e| e.to_string());
            names.lock().insert(asked, Lookup::Done(Instant::now(), found));
            names.changed.notify_all();
        })?;
        known.insert(name.to_owned(), Lookup::UnderWay);
        Ok(())
    }
}

impl Names {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Lookup>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The user's own proxies, as `http_proxy`, `https_proxy` and `no_proxy` name them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Via {
    http: Option<HostPort>,
    https: Option<HostPort>,
    except: Vec<String>,
}

impl Via {
    /// What the environment says. `HTTP_PROXY` in capitals is not asked for, as curl does not: in a CGI program it is a
    /// client's header.
    ///
    /// # Errors
    /// [`Code::BadConfig`] for a proxy that is spoken to by TLS, or asks for a login.
    pub fn from_env(var: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let proxy = |names: &[&str]| {
            let found = names.iter().find_map(|name| Some((*name, var(name).filter(|v| !v.is_empty())?)));
            found.map(|(name, value)| parse_proxy(name, &value)).transpose()
        };
        let except = ["no_proxy", "NO_PROXY"].iter().find_map(|name| var(name)).unwrap_or_default();
        let except = except.split([',', ' ']).filter(|e| !e.is_empty()).map(str::to_ascii_lowercase).collect();
        Ok(Via { http: proxy(&["http_proxy"])?, https: proxy(&["https_proxy", "HTTPS_PROXY"])?, except })
    }

    /// The proxy to reach `host` by. An address of this machine is reached directly.
    pub fn proxy_for(&self, host: &HostPort, scheme: Scheme) -> Option<&HostPort> {
        let excepted = self.except.iter().any(|e| {
            let domain = e.trim_start_matches("*.").trim_start_matches('.');
            e == "*" || host.host == domain || host.host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
        });
        let here = host.literal().is_some_and(|ip| ip.is_loopback());
        if excepted || here {
            return None;
        }
        match scheme {
            Scheme::Http => self.http.as_ref(),
            Scheme::Https => self.https.as_ref(),
        }
    }
}

fn parse_proxy(variable: &str, value: &str) -> Result<HostPort> {
    let rest = value.strip_prefix("http://").unwrap_or(value).trim_end_matches('/');
    HostPort::parse(rest, Some(Scheme::Http.port())).ok_or_else(|| {
        // The value may hold a password.
        Error::new(Code::BadConfig, format!("the proxy that {variable} names cannot be used"))
            .hint("http://HOST:PORT without a login can; the same host in no_proxy leaves it aside")
    })
}

/// Where a connection is to go.
#[derive(Debug)]
pub struct Way<'a> {
    /// Whom to connect to.
    pub host: &'a HostPort,
    /// Who named it; the user's own proxy (`None`) may be anywhere.
    pub trust: Option<Trust>,
    /// What may be waited for: name, connection.
    pub deadline: Instant,
    /// How long the connection's reads and writes may wait.
    pub idle: Duration,
}

impl Resolver {
    /// Connects to the first address that may be connected to and can be.
    pub fn connect(&self, way: &Way<'_>, stop: &Arc<Stop>) -> std::result::Result<Conn, NoWay> {
        let all = match way.host.literal() {
            Some(ip) => vec![ip],
            None => self.addresses(&way.host.host, stop, way.deadline).map_err(NoWay::Failed)?,
        };
        let allowed = |ip: &&IpAddr| way.trust.is_none_or(|trust| may_connect(trust, way.host, **ip));
        let mut error = None;
        for ip in all.iter().filter(allowed) {
            match dial(SocketAddr::new(*ip, way.host.port), stop, way.deadline) {
                Ok(fd) => return Conn::new(fd, Arc::clone(stop), way.idle).map_err(NoWay::Failed),
                Err(e) => error = Some(e),
            }
        }
        Err(match (error, all.first()) {
            (Some(e), _) => NoWay::Failed(e),
            (None, Some(ip)) => leads_to(way.host, *ip),
            (None, None) => NoWay::Failed(io::Error::other("its name has no address")),
        })
    }
}

fn leads_to(host: &HostPort, ip: IpAddr) -> NoWay {
    NoWay::Forbidden(format!("{} leads to {ip}, a local address", host.host))
}

/// A TCP connection, not waiting longer than told.
fn dial(address: SocketAddr, stop: &Stop, deadline: Instant) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) => return Ok(fd),
        Err(Errno::EINPROGRESS | Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    stop.wait(&[(fd.as_fd(), PollFlags::POLLOUT)], deadline)?;
    match getsockopt(&fd, sockopt::SocketError)? {
        0 => Ok(fd),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn via(vars: &[(&str, &str)]) -> Result<Via> {
        Via::from_env(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn the_users_proxy_is_taken_from_the_environment_but_for_what_it_excepts() {
        let host = |text| HostPort::parse(text, Some(80)).unwrap();
        assert_eq!(via(&[]).unwrap(), Via::default());
        assert_eq!(via(&[("HTTP_PROXY", "http://h:1")]).unwrap(), Via::default());
        let via = via(&[("http_proxy", "http://p:3128/"), ("HTTPS_PROXY", "q"), ("no_proxy", "intra, .corp,10.0.0.1")]);
        let via = via.unwrap();
        let found = |text| via.proxy_for(&host(text), Scheme::Http).map(ToString::to_string);
        for (text, proxied) in [
            ("deb.debian.org", true),
            ("intra", false),
            ("a.intra", false),
            ("xintra", true),
            ("a.corp", false),
            ("corp", false),
            ("10.0.0.1", false),
            ("10.0.0.2", true),
            ("127.0.0.1", false),
            ("[::1]", false),
        ] {
            assert_eq!(found(text), proxied.then(|| "p:3128".to_owned()), "{text}");
        }
        assert_eq!(via.proxy_for(&host("h"), Scheme::Https).unwrap().to_string(), "q:80");
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error_without_its_password() {
        for value in ["https://p:1", "http://me:secret@p:1", "socks5://p"] {
            let e = via(&[("https_proxy", value)]).unwrap_err();
            assert_eq!(e.code(), Code::BadConfig);
            assert!(e.message().contains("https_proxy") && !e.message().contains("secret"));
        }
    }

    #[test]
    fn a_name_for_this_machine_is_not_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stop = Arc::new(Stop::new().unwrap());
        let connect = |host: &str, trust| {
            let host = HostPort { host: host.into(), port: listener.local_addr().unwrap().port() };
            let deadline = Instant::now() + Duration::from_secs(10);
            Resolver::default().connect(&Way { host: &host, trust, deadline, idle: Duration::from_secs(1) }, &stop)
        };
        for trust in [Trust::Source, Trust::Listed] {
            assert!(
                matches!(connect("localhost", Some(trust)).unwrap_err(), NoWay::Forbidden(text) if text.contains("localhost"))
            );
        }
        connect("127.0.0.1", Some(Trust::Listed)).unwrap();
        assert!(matches!(connect("127.0.0.1", Some(Trust::Source)).unwrap_err(), NoWay::Forbidden(_)));
        connect("localhost", None).unwrap();
    }
}
