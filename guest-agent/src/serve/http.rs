//! The agent's HTTP server: one request a connection, over any stream socket, every wait and size bounded.

use super::accept::{self, Accept, Slot, Slots};
use super::io;
use super::request::{self, MAX_BODY_BYTES, MAX_HEAD_BYTES, Request};
use super::sshd;
use lib_common::doc::{Health, HealthStatus, Listeners};
use nix::sys::socket::{Shutdown, shutdown};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much of what follows the request is read and ignored before the connection is closed, in bytes.
const DRAIN_BYTES: usize = 64 * 1024;

/// What the server is about.
pub trait Service: Send + Sync + 'static {
    /// Looks at the guest, as it is asked for.
    fn health(&self, asked: Asked) -> Health;
    /// Looks at what listens in the guest.
    fn listeners(&self) -> Listeners;
    /// Starts a clean shutdown and returns.
    fn shut_down(&self);
}

/// What a query of `/healthz` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The time that sshd has for its banner: `sshd_ms=5000`.
    pub sshd_within: Duration,
    /// The host's clock, in milliseconds since 1970 UTC: `unix_ms=1700000000000`.
    pub host_unix_ms: Option<u64>,
}

/// How long a client may take. Tests are less patient.
#[derive(Clone, Copy)]
pub struct Limits {
    /// From the connection to the request's last byte.
    pub request: Duration,
    /// For taking the response.
    pub response: Duration,
    /// For a client to stop writing and read why its request was refused.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (request, response) = (Duration::from_secs(5), Duration::from_secs(5));
        Limits { request, response, linger: Duration::from_millis(250) }
    }
}

/// The statuses that this server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    Accepted,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    LengthRequired,
    BodyTooLarge,
    HeadTooLarge,
    Unavailable,
}

impl Status {
    /// Its code and reason phrase (RFC 9110, RFC 6585).
    const fn line(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::Accepted => "202 Accepted",
            Status::BadRequest => "400 Bad Request",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::RequestTimeout => "408 Request Timeout",
            Status::LengthRequired => "411 Length Required",
            Status::BodyTooLarge => "413 Content Too Large",
            Status::HeadTooLarge => "431 Request Header Fields Too Large",
            Status::Unavailable => "503 Service Unavailable",
        }
    }
}

/// One answer, and what follows it.
struct Response {
    status: Status,
    headers: &'static str,
    body: String,
    with_body: bool,
    then_shut_down: bool,
}

impl Response {
    fn new(status: Status, body: String) -> Self {
        Response { status, headers: "", body, with_body: true, then_shut_down: false }
    }

    /// A document. Our types have nothing that JSON cannot express.
    fn json(status: Status, document: serde_json::Result<String>) -> Self {
        Response::new(status, document.unwrap_or_default() + "\n")
    }

    /// An error: `{"error":"Not Found"}`.
    fn error(status: Status) -> Self {
        let reason = status.line().split_once(' ').map_or("", |(_, reason)| reason);
        Response::new(status, format!("{{\"error\":\"{reason}\"}}\n"))
    }

    fn header(mut self, headers: &'static str) -> Self {
        self.headers = headers;
        self
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!(
            "HTTP/1.1 {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n",
            self.status.line(),
            self.body.len(),
            self.headers
        );
        if self.with_body {
            text.push_str(&self.body);
        }
        text.into_bytes()
    }
}

/// Serves for ever.
pub fn serve<L: Accept>(listener: &L, slots: &Arc<Slots>, limits: Limits, service: Arc<dyn Service>) -> ! {
    accept::serve(listener, (slots, 0), refuse, move |conn, slot| handle(conn.as_fd(), slot, limits, service.as_ref()))
}

/// Answers one connection too many with what the socket takes at once; a client that cannot take it is not waited for.
fn refuse(conn: impl AsFd) {
    let fd = conn.as_fd();
    let response = Response::error(Status::Unavailable).header("Retry-After: 1\r\n");
    let now = Instant::now();
    if io::set_nonblocking(fd).is_ok() && io::write_all_by(fd, &response.to_bytes(), now).is_ok() {
        finish(fd, now);
    }
}

/// One request and its answer. Errors on the connection are the client's loss alone.
fn handle(fd: BorrowedFd<'_>, slot: &Slot, limits: Limits, service: &dyn Service) {
    if io::set_nonblocking(fd).is_err() {
        return;
    }
    // A client whose request was read whole has nothing more to say. One that was cut short may still be writing.
    let waiting = slot.waits(fd);
    let request = read_request(fd, Instant::now() + limits.request);
    let makes_room = waiting.is_ended();
    drop(waiting);
    let (response, linger) = match request {
        Ok(Some(request)) => (answer(&request, service), Duration::ZERO),
        // Its client took longer than others who wait.
        _ if makes_room => (Response::error(Status::RequestTimeout), Duration::ZERO),
        Ok(None) => return,
        Err(status) => (Response::error(status), limits.linger),
    };
    let sent = io::write_all_by(fd, &response.to_bytes(), Instant::now() + limits.response);
    if response.then_shut_down {
        service.shut_down();
    }
    if sent.is_ok() {
        finish(fd, Instant::now() + linger);
    }
}

/// Reads one request and its body; `None` where the client went away without one.
fn read_request(fd: BorrowedFd<'_>, deadline: Instant) -> Result<Option<Request>, Status> {
    let mut buffer = [0; MAX_HEAD_BYTES + MAX_BODY_BYTES];
    let mut filled = 0;
    let mut request: Option<Request> = None;
    loop {
        if request.is_none() && filled > 0 {
            request = request::parse(&buffer[..filled])?;
        }
        if let Some(found) = request.take_if(|r| filled >= r.head_bytes + r.body_bytes) {
            return Ok(Some(found));
        }
        match io::read_by(fd, &mut buffer[filled..], deadline) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(Status::BadRequest),
            Ok(n) => filled += n,
            Err(e) if e.kind() == ErrorKind::TimedOut => return Err(Status::RequestTimeout),
            Err(_) => return Ok(None),
        }
    }
}

fn answer(request: &Request, service: &dyn Service) -> Response {
    match (request.path.as_str(), request.method.as_str()) {
        ("/healthz", method @ ("GET" | "HEAD")) => {
            let health = service.health(asked(&request.query));
            let status = if health.status == HealthStatus::Ok { Status::Ok } else { Status::Unavailable };
            Response { with_body: method == "GET", ..Response::json(status, serde_json::to_string(&health)) }
        }
        ("/listeners", method @ ("GET" | "HEAD")) => {
            let listeners = serde_json::to_string(&service.listeners());
            Response { with_body: method == "GET", ..Response::json(Status::Ok, listeners) }
        }
        ("/healthz" | "/listeners", _) => Response::error(Status::MethodNotAllowed).header("Allow: GET, HEAD\r\n"),
        ("/shutdown", "POST") => {
            let body = "{\"shutting_down\":true}\n".to_owned();
            Response { then_shut_down: true, ..Response::new(Status::Accepted, body) }
        }
        ("/shutdown", _) => Response::error(Status::MethodNotAllowed).header("Allow: POST\r\n"),
        (_, method) => {
            let response = Response::error(Status::NotFound);
            Response { with_body: method != "HEAD", ..response }
        }
    }
}

fn asked(query: &str) -> Asked {
    let number = |key: &str| -> Option<u64> {
        query.split('&').find_map(|part| part.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
    };
    let within = number("sshd_ms").map_or(sshd::LEAST_WITHIN, Duration::from_millis);
    Asked { sshd_within: within.clamp(sshd::LEAST_WITHIN, sshd::MOST_WITHIN), host_unix_ms: number("unix_ms") }
}

/// Ends our half and reads what the client still sends, so that it gets the answer. A VMM's vsock device may not pass the
/// end of one half on, so whoever reads to the end waits until `deadline`.
fn finish(fd: BorrowedFd<'_>, deadline: Instant) {
    if shutdown(fd.as_raw_fd(), Shutdown::Write).is_ok() {
        io::drain(fd, DRAIN_BYTES, deadline);
    }
}

#[cfg(test)]
mod tests;
