//! A guest for tests: a Unix socket as a VMM's, and a thread that answers as the test says.

use lib_common::doc::{Health, HealthStatus};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A listening fake; its thread ends with the test's process.
pub struct Fake {
    _dir: tempfile::TempDir,
    socket: PathBuf,
}

impl Fake {
    /// Gives each connection and its first line to `answer`.
    pub fn raw(answer: impl Fn(UnixStream, &str) + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("vm.vsock");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let mut line = String::new();
                // One byte a time, so that nothing of what follows the line is lost in a buffer.
                let reader = BufReader::with_capacity(1, stream.try_clone().unwrap());
                let _ = reader.take(1024).read_line(&mut line);
                answer(stream, &line);
            }
        });
        Fake { _dir: dir, socket }
    }

    /// Accepts every port, then gives the stream to `answer`.
    pub fn open(answer: impl Fn(UnixStream) + Send + 'static) -> Self {
        Fake::raw(move |mut stream, _| {
            if stream.write_all(b"OK 7\n").is_ok() {
                answer(stream);
            }
        })
    }

    /// Answers every HTTP request with these bytes and closes.
    pub fn http(reply: impl Into<Vec<u8>>) -> Self {
        let reply = reply.into();
        Fake::open(move |mut stream| {
            read_head(&stream);
            let _ = stream.write_all(&reply);
        })
    }

    /// The Unix socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Reads and forgets until the other side closes.
    pub fn until_closed(mut stream: UnixStream) {
        let mut buffer = [0; 256];
        while matches!(stream.read(&mut buffer), Ok(1..)) {}
    }
}

/// Reads a request's head and gives its first line.
pub fn read_head(stream: &UnixStream) -> String {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let _ = lines.find(String::is_empty);
    first
}

/// A guest's health; `problems` are empty where it is `Ok`.
pub fn health(status: HealthStatus) -> Health {
    let fine = status == HealthStatus::Ok;
    Health {
        status,
        agent_version: "0.1.0".into(),
        boot_id: "b".into(),
        uptime_ms: 1,
        hostname: "dev".into(),
        distro: "debian".into(),
        init: "systemd".into(),
        root_mounted: true,
        work_mounted: true,
        sshd_answers: fine,
        clock_unix_ms: 1,
        root_used_bytes: 1,
        root_total_bytes: None,
        work_used_bytes: 1,
        work_total_bytes: None,
        memory_available_bytes: 1,
        problems: if fine { vec![] } else { vec!["sshd does not answer yet".into()] },
        notes: vec![],
    }
}

/// An HTTP reply with a body.
pub fn reply(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
