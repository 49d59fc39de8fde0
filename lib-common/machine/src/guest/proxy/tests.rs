//! The proxy as a guest sees it, with servers on 127.0.0.1, the only address that is ever contacted.

mod bounds;
mod downloads;
mod parent;
mod requests;
mod server;

use super::*;
use server::Server;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// What no test should ever wait for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy, and where its socket and cache are.
struct Fixture {
    proxy: Option<Proxy>,
    dir: tempfile::TempDir,
}

impl Fixture {
    /// A proxy that admits these servers.
    fn new(servers: &[&Server]) -> Self {
        Self::with(servers, Limits::default(), Via::default())
    }

    fn with(servers: &[&Server], limits: Limits, via: Via) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut fixture = Fixture { proxy: None, dir };
        fixture.restart(servers, limits, via);
        fixture
    }

    /// Another proxy with the same cache.
    fn restart(&mut self, servers: &[&Server], limits: Limits, via: Via) {
        self.proxy = None;
        let mut admitted = Admitted::default();
        for server in servers {
            admitted.add_host(&server.host()).unwrap();
        }
        let (vsock, cache) = (self.dir.path().join("vm.vsock"), self.dir.path().join("cache"));
        self.proxy =
            Some(Proxy::start_with(&vsock, (admitted, via, Resolver::default()), Some(&cache), limits).unwrap());
    }

    fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("vm.vsock_3128")
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// All that comes back for these bytes, the guest's half being open.
    fn send(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect();
        // Whoever is refused early may be cut off while still writing.
        let _ = stream.write_all(bytes.as_ref());
        let mut all = vec![];
        match stream.read_to_end(&mut all) {
            Err(e) if e.kind() != ErrorKind::ConnectionReset => panic!("{e}"),
            _ => String::from_utf8(all).unwrap(),
        }
    }

    /// The answer to one GET, on a connection of its own.
    fn get(&self, url: &str) -> Answer {
        Answer::parse(&self.send(format!("GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")))
    }

    /// Waits until the statistics are so: they are noted after the guest has its answer.
    fn until(&self, holds: impl Fn(Stats) -> bool) -> Stats {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stats = self.proxy().stats();
            if holds(stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "{stats:?}");
            std::thread::yield_now();
        }
    }
}

/// An answer with a length.
#[derive(Debug, PartialEq)]
struct Answer {
    status: String,
    head: String,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.lines().next().unwrap_or_default().strip_prefix("HTTP/1.1 ").unwrap_or_default().to_owned();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }
}

/// A head and a body that end with the connection's or with their length.
fn reply(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn its_socket_is_private_and_goes_with_it() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::new(|_| reply("200 OK", "", "x").into());
    let mut fixture = Fixture::new(&[&server]);
    let socket = fixture.socket();
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let e = Proxy::start(&fixture.dir.path().join("vm.vsock"), Admitted::default(), None).unwrap_err();
    assert!(e.message().contains("vm.vsock_3128"), "another proxy's socket is left alone: {e}");
    assert_eq!(fixture.get(&server.url("/x")).status, "200 OK");
    fixture.proxy = None;
    assert!(!socket.exists());
    let long = fixture.dir.path().join("x".repeat(120));
    Proxy::start(&long, Admitted::default(), None).unwrap_err();
}

#[test]
fn dropping_it_ends_every_wait() {
    let silent = Server::raw(Server::hold);
    let mut fixture = Fixture::new(&[&silent]);
    let shared = Arc::clone(&fixture.proxy().shared);
    let mut idle = fixture.connect();
    let mut half = fixture.connect();
    half.write_all(b"GET http").unwrap();
    let mut waiting = fixture.connect();
    waiting.write_all(format!("GET {} HTTP/1.1\r\n\r\n", silent.url("/")).as_bytes()).unwrap();
    let mut tunnel = fixture.connect();
    tunnel.write_all(format!("CONNECT {} HTTP/1.1\r\n\r\n", silent.host()).as_bytes()).unwrap();
    let mut first = [0; 12];
    tunnel.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    silent.until_connected(2);
    let begun = Instant::now();
    fixture.proxy = None;
    assert!(begun.elapsed() < ENDS_WITHIN, "{:?}", begun.elapsed());
    assert_eq!(*shared.active(), 0);
    // The last thread says that it is done a moment before it lets go.
    while Arc::strong_count(&shared) > 1 {
        assert!(begun.elapsed() < ENDS_WITHIN, "a thread still holds it");
        std::thread::yield_now();
    }
    for stream in [&mut idle, &mut half, &mut waiting] {
        assert_eq!(stream.read(&mut [0]).unwrap_or_default(), 0);
    }
}
