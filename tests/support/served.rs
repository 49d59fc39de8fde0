//! Files over HTTP, on a port of this host's loopback: what a mirror is to the tools and to guests.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A server that runs until the test's process ends, or its own [`Served::end`] comes.
pub struct Served {
    pub port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    gone: Arc<AtomicBool>,
}

impl Served {
    /// Answers with what `find` has for a path, which begins with a slash.
    pub fn start(find: impl Fn(&str) -> Option<Vec<u8>> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, asked) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(vec![])));
        let gone = Arc::new(AtomicBool::new(false));
        let (noted, ended) = (Arc::clone(&asked), Arc::clone(&gone));
        std::thread::spawn(move || {
            for stream in listener.incoming().take_while(|_| !ended.load(Ordering::SeqCst)) {
                let _ = answer(stream.unwrap(), &find, &noted);
            }
        });
        Served { port, asked, gone }
    }

    /// The files of a directory.
    pub fn directory(dir: &Path) -> Self {
        let dir = dir.to_owned();
        Served::start(move |path| std::fs::read(dir.join(&path[1..])).ok())
    }

    /// Takes it from the network. Gives the port where it was.
    pub fn end(self) -> u16 {
        self.gone.store(true, Ordering::SeqCst);
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            std::thread::yield_now();
        }
        self.port
    }

    /// How often files were asked for whose name ends so.
    pub fn asked(&self, suffix: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|path| path.ends_with(suffix)).count()
    }
}

/// One request a connection.
fn answer(
    mut stream: TcpStream,
    find: &impl Fn(&str) -> Option<Vec<u8>>,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default().replace("/./", "/");
    let found = if path.starts_with('/') { find(&path) } else { None };
    let (status, body) = match found {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", vec![]),
    };
    asked.lock().unwrap().push(path);
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(&body)
}
