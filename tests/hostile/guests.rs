//! A guest whose agent and sshd do everything but what they should. It is no reason for a tool to wait longer than it was
//! told, to grow, or to fail otherwise than with "unreachable".

use super::{bounded, started};
use crate::running::World;
use crate::support::Done;
use lib_common::error::Code;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a guest does with a connection on which `CONNECT PORT` has come.
pub type Behaviour = fn(UnixStream);

/// The guest behind a VM's vsock, in place of the VMM's.
pub struct Guest {
    behaviour: Arc<Mutex<Behaviour>>,
}

impl Guest {
    /// Takes the place of the guest whose sockets are in that directory.
    pub fn at(run: &Path, behaviour: Behaviour) -> Self {
        let vsock = run.join("vm.vsock");
        std::fs::remove_file(&vsock).unwrap();
        let listener = UnixListener::bind(vsock).unwrap();
        let behaviour = Arc::new(Mutex::new(behaviour));
        let current = Arc::clone(&behaviour);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let behave = *current.lock().unwrap();
                std::thread::spawn(move || behave(after_connect(stream)));
            }
        });
        Guest { behaviour }
    }

    /// From the next connection on.
    pub fn behaves(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }
}

fn after_connect(mut stream: UnixStream) -> UnixStream {
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|n| n == 1) && byte != *b"\n" {}
    stream
}

/// Accepts, says that, and then `chunk` again and again.
fn accepts(mut stream: UnixStream, head: &str, chunk: &[u8], pause: Duration) {
    let mut sent = stream.write_all(format!("OK 7\n{head}").as_bytes());
    while sent.is_ok() && !chunk.is_empty() {
        sent = stream.write_all(chunk);
        std::thread::sleep(pause);
    }
}

/// Accepts, reads a request, and answers it.
pub fn answers(mut stream: UnixStream, status: &str, body: &str) {
    let _ = stream.write_all(b"OK 7\n");
    let (mut request, mut byte) = (vec![], [0]);
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        request.push(byte[0]);
    }
    let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
}

/// Reads until the other side goes.
fn is_silent(mut stream: UnixStream) {
    let mut buffer = [0; 256];
    while matches!(stream.read(&mut buffer), Ok(1..)) {}
}

const AT_ONCE: Duration = Duration::ZERO;
const SLOWLY: Duration = Duration::from_millis(20);

/// Those of which every tool has to say that they do not answer.
const HOSTILE: &[(&str, Behaviour)] = &[
    ("closes", drop),
    ("accepts nobody", is_silent),
    ("accepts without end", |mut stream| while stream.write_all(&[b'O'; 4096]).is_ok() {}),
    ("accepts and is silent", |mut stream| {
        let _ = stream.write_all(b"OK 7\n");
        is_silent(stream);
    }),
    ("accepts and closes", |stream| accepts(stream, "", b"", AT_ONCE)),
    ("garbage", |stream| accepts(stream, "", b"\x00\xff\x1b[2J\x9b\x07", AT_ONCE)),
    ("a head without end", |stream| accepts(stream, "HTTP/1.1 200 OK\r\nX: ", &[b'y'; 4096], AT_ONCE)),
    ("headers without end", |stream| accepts(stream, "HTTP/1.1 200 OK\r\n", b"X: y\r\n", AT_ONCE)),
    ("a body without end", |stream| accepts(stream, "HTTP/1.1 200 OK\r\n\r\n{", &[b' '; 4096], AT_ONCE)),
    ("a lying length", |stream| {
        accepts(stream, "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n{}", b"", AT_ONCE)
    }),
    ("a length that does not come", |stream| {
        let _ = (&stream).write_all(b"OK 7\nHTTP/1.1 202 Accepted\r\nContent-Length: 60000\r\n\r\n{}");
        is_silent(stream);
    }),
    ("an answer byte by byte", |stream| {
        accepts(stream, "HTTP/1.1 202 Accepted\r\nContent-Length: 60000\r\n\r\n", b" ", SLOWLY)
    }),
    ("a document as deep as it is long", |stream| {
        let body = "[".repeat(60_000);
        accepts(stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()), b"", AT_ONCE);
    }),
    ("words that steer a terminal", |stream| answers(stream, "500 \x1b]0;evil\x07", "{}")),
];

/// Longer than any of these may take, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// With deadlines that are a twentieth of the usual.
fn run(world: &World, tool: &str, args: &[&str]) -> Done {
    let begun = Instant::now();
    let mut command = world.command(tool, args);
    let done = bounded(&world.sandbox, command.env("BG_BOOT_TIMEOUT", "3"), b"");
    assert!(begun.elapsed() < PATIENCE, "{tool} {args:?}");
    done
}

#[test]
fn whatever_a_guest_does_each_tool_ends_in_its_time_and_is_small() {
    let world = World::new(&["dev"]);
    let guest = Guest::at(&started(&world), drop);
    for (n, (what, behaviour)) in HOSTILE.iter().enumerate() {
        guest.behaves(*behaviour);
        let asked = run(&world, "bg-health", &["--timeout", "0.2", "dev"]).failed();
        assert_eq!(asked.code, Code::GuestUnreachable.as_str(), "{what}: {asked:?}");
        assert!(asked.hint.is_some(), "{what}: {asked:?}");
        let waited = run(&world, "bg-health", &["--timeout", "0.2", "--wait", "0.3", "dev"]).failed();
        assert_eq!(waited.code, Code::TimedOut.as_str(), "{what}: {waited:?}");
        // They wait for seconds, as they do for any guest.
        if !super::full() && n % 4 != 0 {
            continue;
        }
        run(&world, "bg-vm", &["ports", "dev"]);
        let stats = run(&world, "bg-vm", &["stats", "dev"]).json();
        assert_eq!(stats["stats"].get("guest_uptime_ms"), None, "{what}: {stats}");
    }
}

#[test]
fn whatever_a_guest_does_a_session_ends_as_one_that_failed() {
    let world = World::new(&["dev"]);
    let guest = Guest::at(&started(&world), drop);
    // Those that begin to speak have as long as ssh gives them, which is ten seconds.
    let slow = ["a length that does not come", "an answer byte by byte"];
    for (what, behaviour) in HOSTILE.iter().filter(|(what, _)| super::full() || !slow.contains(what)) {
        guest.behaves(*behaviour);
        let done = run(&world, "bg-ssh", &["--connect-timeout", "0.3", "dev", "--", "true"]);
        assert_eq!((done.exit, done.stdout.len()), (255, 0), "{what}: {done:?}");
        let raw = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
        assert!(!done.stderr.contains(raw), "{what}: {done:?}");
    }
    guest.behaves(|stream| {
        let _ = (&stream).write_all(b"OK 7\nSSH-2.0-x");
        is_silent(stream);
    });
    let done = run(&world, "bg-ssh", &["--connect-timeout", "0.3", "dev", "--", "true"]);
    assert_eq!(done.exit, 255, "half a greeting: {done:?}");
    guest.behaves(|mut stream| {
        let _ = stream.write_all(b"OK 7\n");
        super::sessions::sends_what_nobody_asked_for(stream);
    });
    let done = run(&world, "bg-ssh", &["--connect-timeout", "0.3", "dev", "--", "true"]);
    assert_eq!(done.exit, 255, "packets of no use: {done:?}");
}

#[test]
fn whatever_a_guest_does_its_vm_is_stopped() {
    let world = World::new(&["dev"]);
    for (what, behaviour) in HOSTILE {
        let _guest = Guest::at(&started(&world), *behaviour);
        let done = run(&world, "bg-vm", &["stop", "--timeout", "0.2", "dev"]);
        assert_eq!(done.json()["status"]["exit"]["reason"], "killed", "{what}: {done:?}");
        assert!(done.stderr.contains("did not shut down"), "{what}: {done:?}");
        assert!(!done.stderr.contains(|c: char| c.is_control() && c != '\n'), "{what}: {done:?}");
        assert_eq!(world.state_of("dev"), "stopped", "{what}");
    }
    // One that accepts, and lives on.
    let _guest = Guest::at(&started(&world), |stream| answers(stream, "202 Accepted", "{}"));
    let done = run(&world, "bg-vm", &["stop", "--timeout", "0.2", "dev"]);
    assert!(done.stderr.contains("it had 0.2 s"), "{done:?}");
    assert_eq!(world.sandbox.findings(&["--now"]), Vec::<serde_json::Value>::new());
}
