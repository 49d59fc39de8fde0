//! Heads of requests and responses, read strictly and written anew: what one side said about its connection is not
//! passed to the other.
//!
//! Sources: RFC 9110 (sections 7.2 to 7.6, 9.3), RFC 9112 (sections 3, 6 and 7).

use super::admitted::{HostPort, Scheme};
use std::fmt::Write as _;

/// The longest head, in bytes.
pub const MAX_HEAD: usize = 16 << 10;

/// The most header lines.
const MAX_HEADERS: usize = 64;

/// About one connection, and so never passed on (RFC 9110, section 7.6.1); beside them, those that `Connection` names.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
];

/// A header line as it came.
pub type Header = (String, Vec<u8>);

/// What a guest asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// GET, HEAD or CONNECT.
    pub method: Method,
    /// Whom to ask.
    pub host: HostPort,
    /// What to ask for, beginning with `/`; empty for a tunnel.
    pub path: String,
    /// What is passed on.
    pub headers: Vec<Header>,
    /// HTTP/1.1 or later: it understands chunks.
    pub is_1_1: bool,
    /// Whether it may send another request afterwards.
    pub keep: bool,
    /// Whether no stored answer will do (`Cache-Control: no-cache`).
    pub refetch: bool,
}

/// The methods that a package manager needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Connect,
}

/// How a request that is not answered otherwise is refused: a status line's end, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Code and reason phrase.
    pub status: &'static str,
    /// One line of text.
    pub text: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(status: &'static str, text: impl Into<String>) -> Self {
        Refusal { status, text: text.into() }
    }
}

/// What an upstream server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// The reason phrase.
    pub reason: String,
    /// What is passed on.
    pub headers: Vec<Header>,
    /// How its body ends.
    pub framing: Framing,
    /// Whether the connection can be used again afterwards.
    pub keep: bool,
    /// `Content-Length`, which a HEAD has without a body.
    pub length: Option<u64>,
}

/// How a body ends (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    Close,
}

/// A request's head and its length in bytes; `None` where it is not complete yet.
pub fn parse_request(bytes: &[u8]) -> Result<Option<(Request, usize)>, Refusal> {
    let mut storage = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut raw = httparse::Request::new(&mut storage);
    let size = match raw.parse(bytes) {
        Ok(httparse::Status::Complete(size)) if size <= MAX_HEAD => size,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            let text = format!("a head has at most {MAX_HEAD} bytes and {MAX_HEADERS} lines");
            return Err(Refusal::new("431 Request Header Fields Too Large", text));
        }
        Err(e) => return Err(Refusal::new("400 Bad Request", format!("this is no HTTP request: {e}"))),
    };
    let method = match raw.method.unwrap_or_default() {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "CONNECT" => Method::Connect,
        _ => return Err(Refusal::new("405 Method Not Allowed", "this proxy knows GET, HEAD and CONNECT")),
    };
    let (host, path) = parse_target(method, raw.path.unwrap_or_default())?;
    refuse_body(raw.headers)?;
    let is_1_1 = raw.version == Some(1);
    let request = Request {
        method,
        host,
        path,
        headers: end_to_end(raw.headers, &["host", "expect"]),
        is_1_1,
        keep: is_1_1
            && !has_token(raw.headers, "connection", "close")
            && !has_token(raw.headers, "proxy-connection", "close"),
        refetch: has_token(raw.headers, "cache-control", "no-cache") || has_token(raw.headers, "pragma", "no-cache"),
    };
    Ok(Some((request, size)))
}

/// The absolute form for GET and HEAD, the authority form for CONNECT (RFC 9112, section 3.2).
fn parse_target(method: Method, target: &str) -> Result<(HostPort, String), Refusal> {
    let bad = |text: &str| Refusal::new("400 Bad Request", text);
    if !target.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b'#') {
        return Err(bad("the target has characters that no address has"));
    }
    if method == Method::Connect {
        let host = HostPort::parse(target, None).ok_or_else(|| bad("CONNECT is for HOST:PORT"))?;
        return Ok((host, String::new()));
    }
    let is_http = target.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
    let rest = if is_http { &target[7..] } else { return Err(bad("this is a proxy: it is asked for http://HOST/…")) };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let host =
        HostPort::parse(&rest[..end], Some(Scheme::Http.port())).ok_or_else(|| bad("the address has no host"))?;
    let slash = if rest[end..].starts_with('/') { "" } else { "/" };
    Ok((host, format!("{slash}{}", &rest[end..])))
}

/// No package manager's request has a body.
fn refuse_body(headers: &[httparse::Header<'_>]) -> Result<(), Refusal> {
    if values(headers, "transfer-encoding").next().is_some() {
        return Err(Refusal::new("411 Length Required", "a request with a body is refused"));
    }
    match content_length(headers) {
        Ok(None | Some(0)) => Ok(()),
        Ok(Some(_)) => Err(Refusal::new("413 Content Too Large", "a request with a body is refused")),
        Err(text) => Err(Refusal::new("400 Bad Request", text)),
    }
}

/// A response's head and its length in bytes; `None` where it is not complete yet. `method`: what was asked.
pub fn parse_response(bytes: &[u8], method: Method) -> Result<Option<(Response, usize)>, String> {
    let mut storage = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut raw = httparse::Response::new(&mut storage);
    let size = match raw.parse(bytes) {
        Ok(httparse::Status::Complete(size)) if size <= MAX_HEAD => size,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err("the head of its answer is too long".into()),
        Err(e) => return Err(format!("its answer is not HTTP: {e}")),
    };
    let status = raw.code.unwrap_or_default();
    let length = content_length(raw.headers)?;
    let codings: Vec<_> = values(raw.headers, "transfer-encoding").collect();
    let framing = match (codings.as_slice(), length) {
        // A tunnel begins where its head ends.
        _ if method == Method::Connect && (200..300).contains(&status) => Framing::None,
        ([], _) | (_, None) if method == Method::Head || status < 200 || matches!(status, 204 | 304) => Framing::None,
        ([one], None) if one.eq_ignore_ascii_case("chunked") && raw.version == Some(1) => Framing::Chunked,
        // Both together is how one message is made to look like two.
        ([_, ..], _) => return Err("its answer has a transfer coding that is not understood".into()),
        ([], Some(length)) => Framing::Length(length),
        ([], None) => Framing::Close,
    };
    let keep = raw.version == Some(1) && framing != Framing::Close && !has_token(raw.headers, "connection", "close");
    let reason = raw.reason.unwrap_or_default().to_owned();
    let headers = end_to_end(raw.headers, &[]);
    Ok(Some((Response { status, reason, headers, framing, keep, length }, size)))
}

fn values<'a>(headers: &'a [httparse::Header<'_>], name: &'a str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name)).map(|h| {
        // What is not text is no value that is known here.
        std::str::from_utf8(h.value).unwrap_or("\u{fffd}").trim()
    })
}

/// Whether a list of words has this one.
fn has_token(headers: &[httparse::Header<'_>], name: &str, token: &str) -> bool {
    values(headers, name).flat_map(|v| v.split(',')).any(|word| word.trim().eq_ignore_ascii_case(token))
}

fn content_length(headers: &[httparse::Header<'_>]) -> Result<Option<u64>, String> {
    let mut found = None;
    for text in values(headers, "content-length") {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let length: u64 =
            digits.then(|| text.parse().ok()).flatten().ok_or_else(|| "Content-Length is no number".to_owned())?;
        if found.is_some_and(|other| other != length) {
            return Err("there are two lengths".into());
        }
        found = Some(length);
    }
    Ok(found)
}

/// The headers that are for the other side.
fn end_to_end(headers: &[httparse::Header<'_>], except: &[&str]) -> Vec<Header> {
    let ours = |h: &httparse::Header<'_>| {
        let name = h.name.to_ascii_lowercase();
        HOP_BY_HOP.contains(&name.as_str())
            || except.contains(&name.as_str())
            || has_token(headers, "connection", &name)
    };
    headers.iter().filter(|h| !ours(h)).map(|h| (h.name.to_owned(), h.value.to_vec())).collect()
}

/// The value of a header.
pub fn header<'a>(headers: &'a [Header], name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
}

/// Writes a head: the first line, these headers, and those that this proxy adds.
pub fn write_head(first_line: &str, headers: &[Header], own: &str) -> Vec<u8> {
    let mut head = format!("{first_line}\r\n").into_bytes();
    for (name, value) in headers {
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(own.as_bytes());
    head.extend_from_slice(b"\r\n");
    head
}

impl Request {
    /// The host as a `Host` header has it.
    fn host_header(&self) -> String {
        let text = self.host.to_string();
        let default = format!(":{}", Scheme::Http.port());
        text.strip_suffix(&default).map_or(text.clone(), str::to_owned)
    }

    /// The address that was asked for, with its port: what a stored answer is found by.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.host, self.path)
    }

    /// The head to send: to the server itself, or to another proxy before it.
    pub fn to_head(&self, to_proxy: bool) -> Vec<u8> {
        let host = self.host_header();
        let word = if self.method == Method::Head { "HEAD" } else { "GET" };
        let authority = if to_proxy { format!("http://{host}") } else { String::new() };
        let first = format!("{word} {authority}{} HTTP/1.1\r\nHost: {host}", self.path);
        write_head(&first, &self.headers, "Via: 1.1 banger\r\n")
    }

    /// The headers without those that ask for a part, for another coding, or for an answer that depends on what the guest
    /// has: one that is to be stored is asked for whole, and as it is.
    pub fn ask_for_all(&mut self) {
        self.headers.retain(|(name, _)| {
            let name = name.to_ascii_lowercase();
            !name.starts_with("if-") && name != "range" && name != "accept-encoding"
        });
    }
}

impl Response {
    /// The head to send to the guest, whether chunks follow, and whether the connection lasts.
    pub fn to_head(&self, request: &Request) -> (Vec<u8>, bool, bool) {
        let unknown = matches!(self.framing, Framing::Chunked | Framing::Close);
        let chunked = unknown && request.is_1_1;
        let keep = request.keep && (chunked || !unknown);
        let mut own = String::new();
        if chunked {
            own.push_str("Transfer-Encoding: chunked\r\n");
        } else if let Some(length) = self.length.filter(|_| !unknown) {
            // Writing to a string cannot fail.
            let _ = write!(own, "Content-Length: {length}\r\n");
        }
        let _ = write!(own, "Via: 1.1 banger\r\nConnection: {}\r\n", if keep { "keep-alive" } else { "close" });
        (write_head(&format!("HTTP/1.1 {} {}", self.status, self.reason), &self.headers, &own), chunked, keep)
    }
}

#[cfg(test)]
mod tests;
