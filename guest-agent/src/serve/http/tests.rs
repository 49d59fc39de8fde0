//! The HTTP server over Unix sockets: every status, and every way in which a client can misbehave.

use super::*;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Far more than anything here takes; a test that gets there has failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Fake {
    status: HealthStatus,
    shut_down: Mutex<Sender<()>>,
}

impl Service for Fake {
    fn health(&self, _: Asked) -> Health {
        serde_json::from_value(serde_json::json!({
            "status": self.status, "agent_version": "0.1.0", "boot_id": "b", "uptime_ms": 1, "hostname": "dev",
            "distro": "debian", "init": "systemd", "root_mounted": true, "work_mounted": true, "sshd_answers": true,
            "clock_unix_ms": 1, "root_used_bytes": 1, "work_used_bytes": 1, "memory_available_bytes": 1,
        }))
        .unwrap()
    }

    fn listeners(&self) -> Listeners {
        Listeners { listeners: vec![], omitted: 7 }
    }

    fn shut_down(&self) {
        self.shut_down.lock().unwrap().send(()).unwrap();
    }
}

/// A server with `slots` slots; it lives as long as the test process.
struct Server {
    dir: tempfile::TempDir,
    shut_down: Receiver<()>,
    slots: Arc<Slots>,
}

impl Server {
    fn start(status: HealthStatus, slots: usize, request: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("http")).unwrap();
        let (sender, shut_down) = channel();
        let service = Arc::new(Fake { status, shut_down: Mutex::new(sender) });
        let limits = Limits { request, response: PATIENCE, linger: Duration::from_millis(50) };
        let slots = Arc::new(Slots::new(slots));
        let used = Arc::clone(&slots);
        std::thread::spawn(move || serve(&listener, &used, limits, service));
        Server { dir, shut_down, slots }
    }

    fn patient() -> Self {
        Server::start(HealthStatus::Ok, 64, PATIENCE)
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.dir.path().join("http")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends `bytes`, keeps its half open, and reads the answer.
    fn ask(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // Who is one too many is answered and left without being read.
        if let Err(e) = stream.write_all(bytes) {
            assert_eq!(e.kind(), ErrorKind::BrokenPipe);
        }
        answer_of(stream)
    }
}

fn answer_of(mut stream: UnixStream) -> String {
    let mut bytes = vec![];
    match stream.read_to_end(&mut bytes) {
        // What the server did not read any more resets the connection, after the answer.
        Ok(_) => {}
        Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset, "after {} bytes", bytes.len()),
    }
    String::from_utf8(bytes).unwrap()
}

/// The code of an answer whose framing holds together.
fn code(answer: &str) -> &str {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    assert!(body.is_empty() || body.len().to_string() == length, "{answer:?}");
    assert!(head.contains("Content-Type: application/json\r\n") && head.contains("\r\nConnection: close"), "{head}");
    head.strip_prefix("HTTP/1.1 ").unwrap().split(' ').next().unwrap()
}

#[test]
fn every_request_has_its_status() {
    let server = Server::patient();
    let body = |n: usize| format!("POST /healthz HTTP/1.1\r\nContent-Length: {n}\r\n\r\n{}", "x".repeat(n));
    let (largest_body, larger_body) = (body(MAX_BODY_BYTES), body(MAX_BODY_BYTES + 1));
    let large_head = format!("GET /healthz HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(MAX_HEAD_BYTES));
    let cases: [(&str, &str); 23] = [
        ("GET /healthz HTTP/1.1\r\nHost: guest\r\n\r\n", "200"),
        ("GET /healthz HTTP/1.0\r\n\r\n", "200"),
        ("GET /healthz?verbose HTTP/1.1\r\n\r\n", "200"),
        ("HEAD /healthz HTTP/1.1\r\n\r\n", "200"),
        ("GET /healthz HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", "200"),
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("HEAD /health HTTP/1.1\r\n\r\n", "404"),
        ("GET /healthz/ HTTP/1.1\r\n\r\n", "404"),
        ("GET /../etc/shadow HTTP/1.1\r\n\r\n", "404"),
        ("PUT /healthz HTTP/1.1\r\n\r\n", "405"),
        ("get /healthz HTTP/1.1\r\n\r\n", "405"),
        ("GET /listeners HTTP/1.1\r\n\r\n", "200"),
        ("HEAD /listeners HTTP/1.1\r\n\r\n", "200"),
        ("GET /listeners/ HTTP/1.1\r\n\r\n", "404"),
        ("POST /listeners HTTP/1.1\r\n\r\n", "405"),
        ("GET /shutdown HTTP/1.1\r\n\r\n", "405"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "400"),
        ("GET /healthz HTTP/1.1\r\nContent-Length: x\r\n\r\n", "400"),
        ("POST /shutdown HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "411"),
        ("GET /healthz HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", "413"),
        (&larger_body, "413"),
        (&largest_body, "405"),
        (&large_head, "431"),
    ];
    for (request, expected) in cases {
        let answer = server.ask(request.as_bytes());
        assert_eq!(code(&answer), expected, "{request:?}: {answer:?}");
    }
    assert!(server.shut_down.try_recv().is_err(), "nothing here asks for a shutdown");
}

#[test]
fn sshd_has_the_time_that_the_query_says_within_bounds() {
    for (query, seconds) in [
        ("sshd_ms=5000", 5),
        ("x=1&sshd_ms=2000", 2),
        ("sshd_ms=1", 1),
        ("sshd_ms=99999999999", 300),
        ("", 1),
        ("sshd_ms=", 1),
        ("sshd_ms=-1", 1),
        ("sshd_ms=99999999999999999999999", 1),
    ] {
        assert_eq!(asked(query).sshd_within, Duration::from_secs(seconds), "{query}");
    }
}

#[test]
fn the_hosts_time_is_what_the_query_says() {
    for (query, time) in [
        ("sshd_ms=5000&unix_ms=1700000000000", Some(1_700_000_000_000)),
        ("unix_ms=-1", None),
        ("unix_ms", None),
        ("", None),
    ] {
        assert_eq!(asked(query).host_unix_ms, time, "{query}");
    }
}

#[test]
fn health_is_one_line_and_its_status_is_the_answers() {
    for (status, expected) in
        [(HealthStatus::Ok, "200"), (HealthStatus::Starting, "503"), (HealthStatus::Degraded, "503")]
    {
        let server = Server::start(status, 64, PATIENCE);
        let answer = server.ask(b"GET /healthz HTTP/1.1\r\n\r\n");
        assert_eq!(code(&answer), expected);
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        assert!(body.ends_with("}\n") && body.lines().count() == 1);
        assert_eq!(serde_json::from_str::<Health>(body).unwrap().status, status);
        assert!(server.ask(b"HEAD /healthz HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
    }
}

#[test]
fn listeners_are_one_line_too() {
    let server = Server::start(HealthStatus::Degraded, 64, PATIENCE);
    let answer = server.ask(b"GET /listeners HTTP/1.1\r\n\r\n");
    assert_eq!(code(&answer), "200");
    assert!(answer.ends_with("\r\n\r\n{\"listeners\":[],\"omitted\":7}\n"), "{answer:?}");
    assert!(server.ask(b"HEAD /listeners HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
}

#[test]
fn a_wrong_method_is_told_the_right_one() {
    let server = Server::patient();
    assert!(server.ask(b"DELETE /healthz HTTP/1.1\r\n\r\n").contains("\r\nAllow: GET, HEAD\r\n"));
    assert!(server.ask(b"GET /shutdown HTTP/1.1\r\n\r\n").contains("\r\nAllow: POST\r\n"));
}

#[test]
fn a_shutdown_is_accepted_before_it_begins() {
    let server = Server::patient();
    for body in ["Content-Length: 2\r\n\r\n{}", "\r\n"] {
        let answer = server.ask(format!("POST /shutdown HTTP/1.1\r\n{body}").as_bytes());
        assert_eq!(code(&answer), "202");
        assert!(answer.ends_with("{\"shutting_down\":true}\n"));
        server.shut_down.recv_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn an_incomplete_request_is_timed_out_or_refused() {
    let server = Server::start(HealthStatus::Ok, 64, Duration::from_millis(30));
    for request in ["", "GET /hea", "POST /shutdown HTTP/1.1\r\nContent-Length: 5\r\n\r\nab"] {
        assert_eq!(code(&server.ask(request.as_bytes())), "408", "{request:?}");
    }
    let server = Server::patient();
    for (request, expected) in [("GET /hea", Some("400")), ("", None)] {
        let mut stream = server.connect();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = answer_of(stream);
        assert_eq!((!answer.is_empty()).then(|| code(&answer)), expected, "{request:?}");
    }
    assert!(server.shut_down.try_recv().is_err());
}

#[test]
fn a_slow_client_has_one_deadline_for_all_its_bytes() {
    let server = Server::start(HealthStatus::Ok, 64, Duration::from_millis(100));
    let mut slow = server.connect();
    slow.write_all(b"GET /healthz?").unwrap();
    // A byte every few milliseconds: if each one renewed the deadline, this would end with a 431 after half a minute.
    slow.set_read_timeout(Some(Duration::from_millis(4))).unwrap();
    let mut answer = vec![0; 12];
    while slow.read_exact(&mut answer).is_err() {
        slow.write_all(b"x").unwrap();
    }
    assert_eq!(answer, b"HTTP/1.1 408");
}

#[test]
fn slow_clients_do_not_disturb_others() {
    let server = Server::patient();
    let idle: Vec<_> = (0..63).map(|_| server.connect()).collect();
    for mut slow in &idle {
        slow.write_all(b"GET /healthz HT").unwrap();
    }
    assert_eq!(code(&server.ask(b"GET /healthz HTTP/1.1\r\n\r\n")), "200");
}

#[test]
fn one_connection_too_many_is_told_so_at_once_and_a_freed_slot_is_used() {
    let server = Server::patient();
    let mut held: Vec<_> = (0..64).map(|_| server.slots.take(0).unwrap()).collect();
    let answer = answer_of(server.connect());
    assert_eq!(code(&answer), "503");
    assert!(answer.contains("\r\nRetry-After: 1\r\n"));
    held.pop();
    assert_eq!(code(&server.ask(b"GET /healthz HTTP/1.1\r\n\r\n")), "200");
}

#[test]
fn whoever_takes_longest_makes_room_and_is_told_so() {
    let server = Server::patient();
    let mut held: Vec<_> = (0..64).map(|_| server.connect()).collect();
    // The server accepts in order, so all of the 64 have their slots before this one asks for one.
    assert_eq!(code(&server.ask(b"GET /healthz HTTP/1.1\r\n\r\n")), "200");
    let mut later = held.split_off(1);
    assert_eq!(code(&answer_of(held.pop().unwrap())), "408");
    for stream in &mut later {
        stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    }
    for stream in later {
        assert_eq!(code(&answer_of(stream)), "200");
    }
}

#[test]
fn what_follows_a_request_is_ignored() {
    let server = Server::patient();
    let twice = b"GET /healthz HTTP/1.1\r\n\r\nPOST /shutdown HTTP/1.1\r\n\r\n";
    let answer = server.ask(twice);
    assert_eq!(code(&answer), "200");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1);
    let mut junk = b"GET /healthz HTTP/1.1\r\n\r\n".to_vec();
    junk.extend([0xff; 4000]);
    assert_eq!(code(&server.ask(&junk)), "200");
    assert!(server.shut_down.try_recv().is_err());
}

#[test]
fn a_client_that_is_done_writing_gets_its_answer() {
    let server = Server::patient();
    let mut stream = server.connect();
    stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(code(&answer_of(stream)), "200");
}

#[test]
fn a_body_of_100_megabytes_is_refused_unread() {
    let server = Server::patient();
    let mut stream = server.connect();
    stream.write_all(b"POST /shutdown HTTP/1.1\r\nContent-Length: 104857600\r\n\r\n").unwrap();
    let chunk = [b'x'; 65536];
    let sent = (0..1600).take_while(|_| stream.write_all(&chunk).is_ok()).count();
    assert!(sent < 100, "{sent} chunks of 64 KiB were taken");
    assert_eq!(code(&answer_of(stream)), "413");
    assert!(server.shut_down.try_recv().is_err());
}

/// The memory of this process that is there, in KiB: VmRSS of proc_pid_status(5).
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
#[allow(clippy::disallowed_types, reason = "it starts itself")]
fn of_256_slow_clients_none_keeps_others_out_and_all_of_them_take_little() {
    // Its memory is that of the whole process, so it has one of its own.
    if std::env::var_os("BG_ALONE").is_none() {
        let name = "serve::http::tests::of_256_slow_clients_none_keeps_others_out_and_all_of_them_take_little";
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let alone = alone.args(["--exact", name, "--nocapture"]).env("BG_ALONE", "1").output().unwrap();
        assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stderr));
        return;
    }
    let server = Server::patient();
    let before = resident_kib();
    let slow: Vec<_> = (0..256).map(|_| server.connect()).collect();
    for mut stream in &slow {
        // Who had to make room may have been left by now.
        let _ = stream.write_all(b"GET /healthz HT");
    }
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(code(&server.ask(b"GET /healthz HTTP/1.1\r\n\r\n")), "200");
    }
    println!("ten answers beside 256 slow clients: {} us each", begun.elapsed().as_micros() / 10);
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB");
    drop(slow);
}
