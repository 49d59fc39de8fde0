//! Understanding the head of an HTTP/1.1 request (RFC 9112), from untrusted bytes.

use super::http::Status;
use httparse::{EMPTY_HEADER, Error, Header};

/// The largest head, request line and headers, in bytes.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;

/// The largest body that is taken (and ignored), in bytes.
pub const MAX_BODY_BYTES: usize = 1024;

const MAX_HEADERS: usize = 64;

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// The method, as it was sent.
    pub method: String,
    /// The target without its query.
    pub path: String,
    /// The target's query, empty without one.
    pub query: String,
    /// How long the head is.
    pub head_bytes: usize,
    /// How long the body is said to be, at most [`MAX_BODY_BYTES`].
    pub body_bytes: usize,
}

/// The request that `bytes` begin with, `None` while its head is incomplete.
///
/// # Errors
/// The status that answers a request that is malformed, too large, or framed in a way that is not spoken here.
pub fn parse(bytes: &[u8]) -> Result<Option<Request>, Status> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(bytes) {
        Ok(httparse::Status::Complete(n)) if n <= MAX_HEAD_BYTES => n,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Ok(None),
        Ok(_) | Err(Error::TooManyHeaders) => return Err(Status::HeadTooLarge),
        Err(_) => return Err(Status::BadRequest),
    };
    let method = request.method.unwrap_or_default().to_owned();
    let target = request.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    let body_bytes = body_bytes(request.headers)?;
    // Only POST has a use for a body.
    if body_bytes > MAX_BODY_BYTES || (body_bytes > 0 && method != "POST") {
        return Err(Status::BodyTooLarge);
    }
    Ok(Some(Request { method, path, query, head_bytes, body_bytes }))
}

/// The length of the body. Two lengths, or a length beside an encoding, are how requests are smuggled.
fn body_bytes(headers: &[Header<'_>]) -> Result<usize, Status> {
    let named = |name: &'static str| headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name));
    let mut lengths = named("content-length");
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(Status::BadRequest);
    }
    match (length, named("transfer-encoding").next()) {
        (Some(_), Some(_)) => Err(Status::BadRequest),
        (None, Some(_)) => Err(Status::LengthRequired),
        (None, None) => Ok(0),
        (Some(length), None) => {
            let digits = length.value.trim_ascii();
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return Err(Status::BadRequest);
            }
            // Digits that do not fit are a number all the same, and too large.
            Ok(std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).unwrap_or(usize::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_heads_are_understood() {
        let ask = |text: &str| parse(text.as_bytes());
        let request = ask("GET /healthz?x=1 HTTP/1.1\r\nHost: a\r\n\r\njunk").unwrap().unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/healthz"));
        assert_eq!(request.query, "x=1");
        assert_eq!((request.head_bytes, request.body_bytes), (38, 0));
        assert_eq!(ask("POST / HTTP/1.0\r\ncontent-LENGTH: 1024\r\n\r\n").unwrap().unwrap().body_bytes, 1024);
        for cut in 0..request.head_bytes {
            let head = &"GET /healthz?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"[..cut];
            assert_eq!(ask(head), Ok(None), "{head:?}");
        }
    }

    #[test]
    fn bad_heads_have_their_status() {
        let long = format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(MAX_HEAD_BYTES));
        let long_but_whole = format!("{long}\r\n\r\n");
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_HEADERS + 1));
        let cases: [(&str, Status); 14] = [
            ("\u{1}\u{2}\u{3}", Status::BadRequest),
            ("GET\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/9.9\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nno colon\r\n\r\n", Status::BadRequest),
            ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", Status::BadRequest),
            ("POST / HTTP/1.1\r\nContent-Length: 1, 2\r\n\r\n", Status::BadRequest),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Status::BadRequest),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Status::BadRequest),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", Status::LengthRequired),
            ("POST / HTTP/1.1\r\nContent-Length: 1025\r\n\r\n", Status::BodyTooLarge),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", Status::BodyTooLarge),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\n", Status::BodyTooLarge),
            (&long_but_whole, Status::HeadTooLarge),
            (&many, Status::HeadTooLarge),
        ];
        assert_eq!(parse(long.as_bytes()), Err(Status::HeadTooLarge));
        for (text, status) in cases {
            assert_eq!(parse(text.as_bytes()), Err(status), "{text:?}");
        }
    }
}
