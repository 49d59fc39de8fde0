//! An HTTP server on 127.0.0.1 that answers as the test says.

use super::PATIENCE;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// A server; its threads end with the test's process.
pub struct Server {
    port: u16,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The heads of all requests.
    requests: Mutex<Vec<String>>,
    connections: Mutex<usize>,
    changed: Condvar,
}

impl Server {
    /// Answers each request's head with these bytes, request after request on one connection; an answer that says
    /// `Connection: close`, or has no length, ends it.
    pub fn new(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::serve(move |stream, seen| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut stream = stream;
            loop {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if !matches!(reader.read_line(&mut head), Ok(1..)) {
                        return;
                    }
                }
                seen.requests.lock().unwrap().push(head.clone());
                let bytes = answer(&head);
                let text = String::from_utf8_lossy(&bytes);
                let lasts = ["Content-Length", "chunked", "304"].iter().any(|word| text.contains(word));
                if stream.write_all(&bytes).is_err() || !lasts || text.contains("Connection: close") {
                    return;
                }
            }
        })
    }

    /// Gives each connection away.
    pub fn raw(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::serve(move |stream, _| handle(stream))
    }

    fn serve(handle: impl Fn(TcpStream, &Seen) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, handle) = (Arc::new(Seen::default()), Arc::new(handle));
        let server = Server { port, seen: Arc::clone(&seen) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                *seen.connections.lock().unwrap() += 1;
                seen.changed.notify_all();
                let (seen, handle) = (Arc::clone(&seen), Arc::clone(&handle));
                std::thread::spawn(move || handle(stream.unwrap(), &seen));
            }
        });
        server
    }

    /// Reads and forgets, and never answers.
    pub fn hold(mut stream: TcpStream) {
        while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {}
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The address of `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host())
    }

    /// The heads that it was sent so far.
    pub fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// How often it was connected to.
    pub fn connections(&self) -> usize {
        *self.seen.connections.lock().unwrap()
    }

    /// Waits for so many connections.
    pub fn until_connected(&self, count: usize) {
        let connections = self.seen.connections.lock().unwrap();
        let few = |connections: &mut usize| *connections < count;
        let waited = self.seen.changed.wait_timeout_while(connections, PATIENCE, few).unwrap();
        assert!(!waited.1.timed_out());
    }
}
