//! The builder's package proxy: what a guest without a network card reaches its mirrors by.
//!
//! The guest's agent relays a loopback port to vsock port [`PROXY_PORT`] of the host, and the vsock device hands each
//! connection to the Unix socket `<vsock>_3128` (Firecracker's docs/vsock.md, "Guest-Initiated Connections"; the same in
//! vhost-device-vsock). There it is an HTTP/1.1 proxy (RFC 9110, RFC 9112): `GET` and `HEAD` of `http://` addresses, and
//! `CONNECT` for TLS, to admitted hosts alone. The guest is hostile: connections, sizes and waits are bounded.

mod admitted;
mod body;
mod cache;
mod conn;
mod head;
mod session;
mod tunnel;
mod upstream;

pub use admitted::Admitted;

use crate::guest::vsock::{listen_at, served_at};
use cache::Cache;
use conn::{Conn, Stop};
use lib_common::doc::PROXY_PORT;
use lib_common::error::Result;
use nix::poll::PollFlags;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use upstream::{Resolver, Via};

/// How long its threads have to end.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// A connection's thread needs little.
const STACK_BYTES: usize = 256 << 10;

/// After an error such as no descriptors left. The listener stays readable meanwhile.
const BACK_OFF: Duration = Duration::from_millis(100);

/// At most so many refused hosts, and so many failures, are remembered.
const MAX_REMEMBERED: usize = 64;

/// A proxy that serves until it is dropped; then its socket and threads are gone.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    socket: PathBuf,
    thread: Option<JoinHandle<()>>,
}

/// What a proxy has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Answers that a server gave, of any status.
    pub fetched: u64,
    /// Their bodies' bytes, and what came through tunnels.
    pub fetched_bytes: u64,
    /// Answers that were stored on the host.
    pub from_cache: u64,
    /// Their bodies' bytes.
    pub from_cache_bytes: u64,
    /// Tunnels that have ended in order.
    pub tunnels: u64,
}

/// What a guest may make a proxy hold and wait for.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Connections at once.
    connections: usize,
    /// For a request's head, an answer's head, and for anything to move.
    idle: Duration,
    /// For finding a server and connecting to it.
    connect: Duration,
    /// The longest body, and the most a tunnel carries a way.
    response_bytes: u64,
    /// What the cache is cut down to at the start; afterwards it grows to a quarter more at most.
    cache_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 32,
            idle: Duration::from_secs(60),
            connect: Duration::from_secs(20),
            response_bytes: 4 << 30,
            cache_bytes: 4 << 30,
        }
    }
}

/// What its threads share.
#[derive(Debug)]
struct Shared {
    admitted: Admitted,
    cache: Option<Cache>,
    limits: Limits,
    via: Via,
    resolver: Resolver,
    stop: Arc<Stop>,
    record: Mutex<Record>,
    /// How many connections are being served.
    active: Mutex<usize>,
    one_less: Condvar,
}

#[derive(Debug, Default)]
struct Record {
    stats: Stats,
    refused: Vec<String>,
    failed: Vec<String>,
}

impl Proxy {
    /// Listens on `<vsock>_3128`, mode 0600, for the guest behind the vsock socket `vsock`. Downloads that never change
    /// are kept in `<cache>/downloads`, of which at most 4 GiB survive this call, the least recently used going first; it
    /// does not grow beyond 5 GiB by what this proxy stores.
    /// Servers are reached through the proxies that this process's `http_proxy`, `https_proxy` and `no_proxy` name. These
    /// are not asked for a host of a source that this host finds at an address where it would not connect to it itself.
    ///
    /// # Errors
    /// [`lib_common::Code::Io`] where the socket is there already or its path is too long, [`lib_common::Code::BadConfig`] for a
    /// proxy in the environment that cannot be used, or the cache's.
    pub fn start(vsock: &Path, admitted: Admitted, cache: Option<&Path>) -> Result<Proxy> {
        let via = Via::from_env(|name| std::env::var(name).ok())?;
        Self::start_with(vsock, (admitted, via, Resolver::default()), cache, Limits::default())
    }

    fn start_with(
        vsock: &Path,
        (admitted, via, resolver): (Admitted, Via, Resolver),
        cache: Option<&Path>,
        limits: Limits,
    ) -> Result<Proxy> {
        let cache = cache.map(|dir| Cache::open(dir, limits.cache_bytes)).transpose()?;
        let shared = Arc::new(Shared {
            admitted,
            cache,
            limits,
            via,
            resolver,
            stop: Arc::new(Stop::new()?),
            record: Mutex::default(),
            active: Mutex::new(0),
            one_less: Condvar::new(),
        });
        let socket = served_at(vsock, PROXY_PORT);
        let listener = listen_at(&socket)?;
        // From here on its drop removes the socket.
        let mut proxy = Proxy { shared: Arc::clone(&shared), socket, thread: None };
        let thread = std::thread::Builder::new().name("proxy".into()).spawn(move || accept_all(&shared, &listener));
        proxy.thread = Some(thread?);
        Ok(proxy)
    }

    /// The hosts that the guest asked for and was refused, each once, `HOST:PORT`, in the order of their first time; at
    /// most 64.
    pub fn refused(&self) -> Vec<String> {
        self.shared.record().refused.clone()
    }

    /// What went wrong with admitted hosts, a line each, such as `deb.debian.org:80 does not serve: Connection refused`;
    /// at most 64.
    pub fn failed(&self) -> Vec<String> {
        self.shared.record().failed.clone()
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        self.shared.record().stats
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Its own file: nobody else could listen on it meanwhile.
        let _ = std::fs::remove_file(&self.socket);
        self.shared.stop.trigger();
        // The thread only ends early by a bug, which is its own to report.
        let _ = self.thread.take().map(JoinHandle::join);
        let deadline = Instant::now() + ENDS_WITHIN;
        let mut active = self.shared.active();
        while *active > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            active = self.shared.one_less.wait_timeout(active, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn active(&self) -> MutexGuard<'_, usize> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record());
    }
}

impl Record {
    fn refuse(&mut self, host: String) {
        remember(&mut self.refused, host);
    }

    fn fail(&mut self, text: String) {
        remember(&mut self.failed, text);
    }
}

fn remember(list: &mut Vec<String>, text: String) {
    if list.len() < MAX_REMEMBERED && !list.contains(&text) {
        list.push(text);
    }
}

/// Serves each connection in a thread of its own, until the proxy ends.
fn accept_all(shared: &Arc<Shared>, listener: &UnixListener) {
    loop {
        let far = Instant::now() + Duration::from_secs(3600);
        match shared.stop.wait(&[(listener.as_fd(), PollFlags::POLLIN)], far) {
            Err(e) if e.kind() == ErrorKind::TimedOut => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        let accepted = accept_one(shared, listener);
        let transient = |e: &std::io::Error| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted);
        if accepted.is_err_and(|e| !transient(&e)) {
            // Its end is seen by the next wait.
            let _ = shared.stop.wait(&[], Instant::now() + BACK_OFF);
        }
    }
}

fn accept_one(shared: &Arc<Shared>, listener: &UnixListener) -> std::io::Result<()> {
    let (stream, _) = listener.accept()?;
    let conn = Conn::new(stream.into(), Arc::clone(&shared.stop), shared.limits.idle)?;
    let Some(slot) = Slot::take(shared) else {
        session::turn_away(&conn, shared.limits.connections);
        return Ok(());
    };
    let serve = move || session::serve(&slot.0, conn);
    std::thread::Builder::new().name("proxied".into()).stack_size(STACK_BYTES).spawn(serve).map(drop)
}

/// One of the connections that may be served at once.
struct Slot(Arc<Shared>);

impl Slot {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let mut active = shared.active();
        if *active >= shared.limits.connections {
            return None;
        }
        *active += 1;
        Some(Slot(Arc::clone(shared)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.active() -= 1;
        self.0.one_less.notify_all();
    }
}

#[cfg(test)]
mod tests;
