//! The agent's HTTP server as a client sees it: `GET /healthz`, `GET /listeners` and `POST /shutdown` on vsock port 52.
//!
//! One request a connection, HTTP/1.1 (RFC 9112). The guest is hostile: one deadline for everything, a bounded head and
//! body, no transfer codings, strict JSON, and text without control characters.

use super::timed::Timed;
use super::{unreachable, vsock};
use crate::doc::{HEALTH_PORT, Health, Listeners};
use crate::error::{Code, Result};
use serde::de::DeserializeOwned;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The longest head of a reply, in bytes.
const MAX_HEAD: usize = 8 << 10;

/// The longest body of a reply, in bytes.
const MAX_BODY: usize = 64 << 10;

/// More header lines than this are none of our agent's.
const MAX_HEADERS: usize = 32;

/// Of the time that an answer on the guest's health may take, sshd gets one part of so many for its banner: a check that is
/// under way may have to end before another begins, and the answer takes time, too.
const SSHD_PART: u32 = 3;

/// Asks the guest's agent for the guest's health, and tells it the host's time, by which it sets a clock that is seconds off.
/// An unhealthy guest is an answer as good as a healthy one. An agent that is older than the query gives sshd one second.
///
/// # Errors
/// [`Code::GuestUnreachable`] with what was seen, for everything that is no such answer within `timeout`; a signal's.
pub fn get_health(socket: &Path, timeout: Duration) -> Result<Health> {
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let sshd_ms = (timeout / SSHD_PART).as_millis();
    let reply = exchange(socket, &format!("GET /healthz?sshd_ms={sshd_ms}&unix_ms={unix_ms}"), timeout)?;
    if !matches!(reply.status, 200 | 503) {
        return Err(unreachable(format!("the guest's agent answers HTTP status {} to GET /healthz", reply.status)));
    }
    let mut health: Health = document(&reply, "health")?;
    let Health { agent_version, boot_id, hostname, distro, init, problems, notes, .. } = &mut health;
    [agent_version, boot_id, hostname, distro, init].into_iter().chain(problems).chain(notes).for_each(sanitize);
    Ok(health)
}

/// Asks the guest's agent what listens in the guest; `None` from an agent that is too old to know.
///
/// # Errors
/// As those of [`get_health`].
pub fn get_listeners(socket: &Path, timeout: Duration) -> Result<Option<Listeners>> {
    let reply = exchange(socket, "GET /listeners", timeout)?;
    match reply.status {
        200 => {}
        404 => return Ok(None),
        status => {
            return Err(unreachable(format!("the guest's agent answers HTTP status {status} to GET /listeners")));
        }
    }
    let mut found: Listeners = document(&reply, "list of listeners")?;
    found.listeners.iter_mut().filter_map(|listener| listener.process.as_mut()).for_each(sanitize);
    Ok(Some(found))
}

/// Asks the guest to shut down cleanly; it has begun to when this returns.
///
/// # Errors
/// As those of [`get_health`].
pub fn post_shutdown(socket: &Path, timeout: Duration) -> Result<()> {
    match exchange(socket, "POST /shutdown", timeout)?.status {
        202 => Ok(()),
        status => Err(unreachable(format!("the guest's agent answers HTTP status {status} to POST /shutdown"))),
    }
}

/// A reply, whole.
pub(crate) struct Reply {
    /// Its HTTP status.
    pub status: u16,
    /// At most 64 KiB.
    pub body: Vec<u8>,
}

/// The head of a reply.
struct Head {
    status: u16,
    /// Where the body begins.
    bytes: usize,
    /// How long the body is; without it, it lasts until the connection's end.
    body: Option<usize>,
}

fn exchange(socket: &Path, request: &str, timeout: Duration) -> Result<Reply> {
    let deadline = Instant::now() + timeout;
    let stream = vsock::connect(socket, HEALTH_PORT, deadline)?;
    let text = format!("{request} HTTP/1.1\r\nHost: guest\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let within = |e: crate::Error| match e.code() {
        Code::GuestUnreachable => {
            let request = request.split('?').next().unwrap_or_default();
            e.within(format!("the guest's agent gives no answer to {request}"))
        }
        _ => e,
    };
    exchange_on(stream, &text, deadline).map_err(within)
}

/// Sends a request, which is all of `text`, and reads the reply.
///
/// # Errors
/// [`Code::GuestUnreachable`] with what was seen, for everything that is no whole reply before `deadline`; a signal's.
pub(crate) fn exchange_on(stream: UnixStream, text: &str, deadline: Instant) -> Result<Reply> {
    let mut stream = Timed::new(stream, deadline)?;
    stream.write_all(text.as_bytes())?;
    read_reply(&mut stream)
}

fn read_reply(stream: &mut Timed) -> Result<Reply> {
    let mut bytes = vec![];
    let head = loop {
        if let Some(head) = parse_head(&bytes)? {
            break head;
        }
        if bytes.len() > MAX_HEAD {
            return Err(unreachable(format!("the head of its reply is longer than {MAX_HEAD} bytes")));
        }
        if !read_more(stream, &mut bytes)? {
            return Err(unreachable(format!("the connection ended {} bytes into the head of its reply", bytes.len())));
        }
    };
    let mut body = bytes.split_off(head.bytes);
    let wanted = head.body.unwrap_or(MAX_BODY + 1);
    while body.len() < wanted && read_more(stream, &mut body)? {}
    if let Some(promised) = head.body.filter(|promised| body.len() < *promised) {
        return Err(unreachable(format!("the connection ended after {} of {promised} bytes of its reply", body.len())));
    }
    body.truncate(wanted);
    if body.len() > MAX_BODY {
        return Err(too_long());
    }
    Ok(Reply { status: head.status, body })
}

/// Appends what comes next; `false` at the end.
fn read_more(stream: &mut Timed, bytes: &mut Vec<u8>) -> Result<bool> {
    let mut buffer = [0; 4096];
    let n = stream.read(&mut buffer)?;
    bytes.extend_from_slice(&buffer[..n]);
    Ok(n > 0)
}

/// The head, or `None` where it has not come to its end yet.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(|e| unreachable("its reply is not HTTP").because(&e))?;
    let httparse::Status::Complete(end) = parsed else { return Ok(None) };
    let mut body = None;
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(unreachable("its reply has a transfer coding, which was not asked for"));
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = std::str::from_utf8(header.value).ok().filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
            let length: usize = length
                .and_then(|v| v.parse().ok())
                .ok_or_else(|| unreachable("the Content-Length of its reply is no number"))?;
            if body.is_some_and(|other| other != length) {
                return Err(unreachable("its reply has two lengths"));
            }
            body = Some(length);
        }
    }
    let status = response.code.unwrap_or(0);
    // RFC 9112, section 6.3: it has none, whatever its head says.
    let body = if status == 204 { Some(0) } else { body };
    if body.is_some_and(|length| length > MAX_BODY) {
        return Err(too_long());
    }
    Ok(Some(Head { status, bytes: end, body }))
}

fn too_long() -> crate::Error {
    unreachable(format!("its reply is longer than {MAX_BODY} bytes"))
}

/// The document that a reply is.
fn document<T: DeserializeOwned>(reply: &Reply, what: &str) -> Result<T> {
    let text = std::str::from_utf8(&reply.body)
        .map_err(|e| unreachable(format!("the guest's {what} is not UTF-8")).because(&e))?;
    crate::doc::strict(text)
        .map_err(|e| e.with_code(Code::GuestUnreachable).within(format!("the guest's {what} is not as it should be")))
}

/// JSON may carry any character; a terminal must not get those that steer it.
fn sanitize(text: &mut String) {
    if text.contains(char::is_control) {
        *text = text.replace(char::is_control, "\u{fffd}");
    }
}

#[cfg(test)]
mod tests;
