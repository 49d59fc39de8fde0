//! The relay between Unix sockets and a TCP server on the loopback interface.

use super::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

const PATIENCE: Duration = Duration::from_secs(20);

fn patient() -> Patience {
    Patience { client: PATIENCE, server: None }
}

/// A relay to `server`, and where to connect to it.
fn relay_to(server: SocketAddr, slots: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("ssh")).unwrap();
    thread::spawn(move || {
        serve(&listener, (&Arc::new(Slots::new(8 + slots)), 8), Patience::default(), move || TcpStream::connect(server))
    });
    dir
}

fn connect(dir: &tempfile::TempDir) -> UnixStream {
    let stream = UnixStream::connect(dir.path().join("ssh")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A server that answers with all that it was sent, once the client is done.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut all = vec![];
                let _ = stream.read_to_end(&mut all);
                let _ = stream.write_all(&all);
            });
        }
    });
    address
}

#[test]
fn the_end_of_one_way_leaves_the_other_open() {
    let dir = relay_to(echo_server(), 8);
    let mut stream = connect(&dir);
    // More than every buffer on the way.
    let sent: Vec<u8> = (0..5_000_000_u32).map(|i| (i % 251) as u8).collect();
    stream.write_all(&sent).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut received = vec![];
    stream.read_to_end(&mut received).unwrap();
    assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
}

#[test]
fn a_server_that_is_done_first_is_heard_to_the_end() {
    let ((mut client, a), (b, mut server)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let running = thread::spawn(move || relay(a.as_fd(), b.as_fd(), patient()).unwrap());
    server.write_all(b"SSH-2.0-x\r\n").unwrap();
    server.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "SSH-2.0-x\r\n");
    client.write_all(b"still here").unwrap();
    drop(client);
    text.clear();
    server.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
    running.join().unwrap();
}

#[test]
fn a_tcp_client_reaches_a_server_on_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host");
    let host = UnixListener::bind(&path).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        serve(&listener, (&Arc::new(Slots::new(2)), 1), Patience::default(), move || UnixStream::connect(&path))
    });
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"GET").unwrap();
    let (mut server, _) = host.accept().unwrap();
    let mut request = [0; 3];
    server.read_exact(&mut request).unwrap();
    assert_eq!(&request, b"GET");
    let mut second = TcpStream::connect(address).unwrap();
    assert_eq!(second.read(&mut [0]).unwrap(), 0, "the other slot is reserved");
    server.write_all(b"200").unwrap();
    drop(server);
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "200");
}

#[test]
fn a_client_that_stays_after_the_server_has_ended_is_let_go() {
    let ((mut client, a), (b, server)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    drop(server);
    relay(a.as_fd(), b.as_fd(), Patience { client: Duration::from_millis(10), server: None }).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_server_that_falls_silent_after_the_client_has_ended_is_let_go() {
    let silence = Duration::from_secs(1);
    let ((mut client, a), (b, mut server)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let running = thread::spawn(move || {
        relay(a.as_fd(), b.as_fd(), Patience { client: PATIENCE, server: Some(silence) }).unwrap();
        cpu_time()
    });
    client.write_all(b"GET").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).unwrap();
    // Each byte earns it as much again.
    for _ in 0..6 {
        thread::park_timeout(silence / 4);
        server.write_all(b"x").unwrap();
    }
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "GETxxxxxx");
    assert!(running.join().unwrap() < silence / 4, "it was busy while idle");
}

#[test]
fn without_a_server_the_connection_is_closed() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dir = relay_to(unused, 8);
    assert_eq!(connect(&dir).read(&mut [0]).unwrap(), 0);
}

#[test]
fn one_connection_too_many_is_closed_and_a_vanished_client_frees_its_slot() {
    let dir = relay_to(echo_server(), 1);
    let held = connect(&dir);
    assert_eq!(connect(&dir).read(&mut [0]).unwrap(), 0);
    drop(held);
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let mut stream = connect(&dir);
        let mut text = String::new();
        // A connection that is refused may be closed before the write, or after it.
        let sent = stream.write_all(b"hello").is_ok() && stream.shutdown(std::net::Shutdown::Write).is_ok();
        if sent && stream.read_to_string(&mut text).is_ok() && text == "hello" {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "the slot did not come back");
    }
}

/// What this process has used of the processor.
fn cpu_time() -> Duration {
    let t = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    Duration::new(t.tv_sec() as u64, t.tv_nsec() as u32)
}

#[test]
fn a_half_closed_connection_is_idle_without_spinning() {
    let (mut client, a) = UnixStream::pair().unwrap();
    let (b, server) = UnixStream::pair().unwrap();
    let used = thread::spawn(move || {
        relay(a.as_fd(), b.as_fd(), patient()).unwrap();
        cpu_time()
    });
    client.write_all(b"x").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    (&server).take(2).read_to_string(&mut text).unwrap();
    assert_eq!(text, "x", "the end is passed on");
    // The client has hung up its half; until the server's end comes there is nothing to do.
    let idle = Duration::from_millis(200);
    server.set_read_timeout(Some(idle)).unwrap();
    let (_, nothing) = (client.set_read_timeout(Some(idle)), client.read(&mut [0]));
    assert!(nothing.is_err());
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert!(used.join().unwrap() < idle / 4, "it was busy while idle");
}
