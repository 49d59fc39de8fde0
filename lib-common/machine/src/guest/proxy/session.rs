//! One connection of the guest: its requests, one after the other.

use super::Shared;
use super::admitted::{HostPort, Scheme, Trust};
use super::body::Body;
use super::cache::{self, Cache, Hit, Saving};
use super::conn::Conn;
use super::head::{self, Framing, Method, Refusal, Request, Response, parse_request, parse_response};
use super::tunnel;
use super::upstream::{NoWay, Way};
use std::io::{self, ErrorKind, Read};
use std::time::Instant;

/// Interim responses (1xx) that a server may send before its answer.
const MAX_INTERIM: usize = 8;

/// What a request comes to.
enum End {
    /// The connection can take another one.
    Again,
    /// It cannot.
    Close,
}

/// Why a request failed.
enum Failure {
    /// Nothing has been sent: the guest can be told, and may go on.
    Refused(Refusal),
    /// The answer has begun, or the guest is gone: all that is left is to close.
    Broken,
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Failure::Broken
    }
}

/// A connection of the guest, and the one to a server that its last request left open.
struct Session<'a> {
    shared: &'a Shared,
    guest: Conn,
    server: Option<(HostPort, Conn)>,
}

/// Serves all requests of a connection.
pub fn serve(shared: &Shared, guest: Conn) {
    let mut session = Session { shared, guest, server: None };
    while let Some(End::Again) = session.turn() {}
    session.guest.finish();
}

impl<'a> Session<'a> {
    /// One request; `None` where the connection is of no more use.
    fn turn(&mut self) -> Option<End> {
        let request = match self.read_request() {
            Ok(request) => request?,
            Err(refusal) => {
                let _ = self.refuse(&refusal, Method::Get, false);
                return None;
            }
        };
        match self.answer(&request) {
            Ok(end) => Some(end),
            Err(Failure::Refused(refusal)) => {
                let keep = request.keep && request.method != Method::Connect;
                self.refuse(&refusal, request.method, keep).ok()?;
                keep.then_some(End::Again)
            }
            Err(Failure::Broken) => None,
        }
    }

    /// `None` at the end of the connection, or where it was idle too long.
    fn read_request(&mut self) -> Result<Option<Request>, Refusal> {
        let deadline = self.guest.patience();
        loop {
            if let Some((request, size)) = parse_request(self.guest.buffered())? {
                self.guest.consume(size);
                return Ok(Some(request));
            }
            match self.guest.fill(deadline) {
                Ok(n) if n > 0 => {}
                Err(e) if e.kind() == ErrorKind::TimedOut && !self.guest.buffered().is_empty() => {
                    return Err(Refusal::new("408 Request Timeout", "the request did not come to its end"));
                }
                _ => return Ok(None),
            }
        }
    }

    fn refuse(&self, refusal: &Refusal, method: Method, keep: bool) -> io::Result<()> {
        let connection = if keep { "keep-alive" } else { "close" };
        self.guest.write_all(&refusal_bytes(refusal, method, connection))
    }

    fn answer(&mut self, request: &Request) -> Result<End, Failure> {
        let scheme = if request.method == Method::Connect { Scheme::Https } else { Scheme::Http };
        let Some(trust) = self.shared.admitted.trust(&request.host, scheme) else {
            return Err(self.forbid(&request.host, "it is not among the guest's package sources"));
        };
        if request.method == Method::Connect {
            return self.tunnel(&request.host, trust);
        }
        let cache = self.shared.cache.as_ref().filter(|_| request.method == Method::Get);
        match cache.filter(|_| cache::is_immutable(&request.path)) {
            Some(cache) => self.answer_immutable(cache, request, trust),
            None => self.exchange(request, trust, None),
        }
    }

    fn answer_immutable(&mut self, cache: &Cache, request: &Request, trust: Trust) -> Result<End, Failure> {
        let url = request.url();
        if !request.refetch
            && let Some(hit) = cache.lookup(&url, self.guest.stop())?
        {
            return self.send_stored(request, hit);
        }
        let mut whole = request.clone();
        whole.ask_for_all();
        self.exchange(&whole, trust, cache.save(&url))
    }

    fn send_stored(&mut self, request: &Request, mut hit: Hit) -> Result<End, Failure> {
        let (framing, length) = (Framing::Length(hit.size), Some(hit.size));
        let headers = std::mem::take(&mut hit.headers);
        let response = Response { status: 200, reason: "OK".into(), headers, framing, keep: true, length };
        let (head, _, keep) = response.to_head(request);
        self.guest.write_all(&head)?;
        let mut buffer = vec![0; 64 << 10];
        let mut left = hit.size;
        while left > 0 {
            let n = hit.file.read(&mut buffer)?;
            if n == 0 {
                return Err(Failure::Broken);
            }
            self.guest.write_all(&buffer[..n])?;
            left = left.saturating_sub(n as u64);
        }
        self.shared.note(|record| {
            record.stats.from_cache += 1;
            record.stats.from_cache_bytes += hit.size;
        });
        Ok(if keep { End::Again } else { End::Close })
    }

    /// Asks the server and passes its answer on, storing it where that is wanted.
    fn exchange(&mut self, request: &Request, trust: Trust, saving: Option<Saving<'_>>) -> Result<End, Failure> {
        let (mut server, response) = self.ask(request, trust)?;
        let most = self.shared.limits.response_bytes;
        if response.length.is_some_and(|length| length > most) && response.framing != Framing::None {
            return Err(self.fail(&request.host, &format!("its answer is longer than {most} bytes")));
        }
        let (head, chunked, keep) = response.to_head(request);
        self.guest.write_all(&head)?;
        let mut saving = saving.filter(|_| can_be_stored(&response));
        let mut body = Body::new(response.framing, most);
        let mut bytes = 0;
        loop {
            let n = match body.next(&mut server) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) => return Err(self.broken_answer(&request.host, &e)),
            };
            let piece = &server.buffered()[..n];
            // A full disk, or cache, is no reason to fetch less.
            saving = saving.and_then(|mut s| s.write(piece).is_ok().then_some(s));
            if chunked {
                self.guest.write_all(&[format!("{n:x}\r\n").as_bytes(), piece, b"\r\n"].concat())?;
            } else {
                self.guest.write_all(piece)?;
            }
            bytes += n as u64;
            if let Err(e) = body.take(&mut server, n) {
                return Err(self.broken_answer(&request.host, &e));
            }
        }
        // Whoever asks next may have to fetch it again, no more.
        let _ = saving.map(|s| s.finish(&response.headers));
        if chunked {
            self.guest.write_all(b"0\r\n\r\n")?;
        }
        self.shared.note(|record| {
            record.stats.fetched += 1;
            record.stats.fetched_bytes += bytes;
        });
        if response.keep && server.buffered().is_empty() {
            self.server = Some((request.host.clone(), server));
        }
        Ok(if keep { End::Again } else { End::Close })
    }

    /// Sends a request, over the connection that is open already if it still serves, and reads the answer's head.
    fn ask(&mut self, request: &Request, trust: Trust) -> Result<(Conn, Response), Failure> {
        let proxy = self.proxy_for(&request.host, Scheme::Http, trust)?;
        let bytes = request.to_head(proxy.is_some());
        if let Some((_, mut server)) = self.server.take_if(|(host, _)| *host == request.host)
            && let Ok(response) = ask_once(&mut server, &bytes, request.method)
        {
            // A server may close an idle connection at any time, so this is no failure yet (RFC 9112, section 9.3.1).
            return Ok((server, response));
        }
        self.server = None;
        let mut server = self.connect(&request.host, trust, proxy)?;
        match ask_once(&mut server, &bytes, request.method) {
            Ok(response) => Ok((server, response)),
            Err(e) => Err(self.fail(&request.host, &e.to_string())),
        }
    }

    /// The user's own proxy, where an admitted host is to be reached by one. It connects to whatever it is asked for, so the
    /// host is judged here, at each request: a connection to it may be older than what its name stands for.
    fn proxy_for(&self, host: &HostPort, scheme: Scheme, trust: Trust) -> Result<Option<&'a HostPort>, Failure> {
        let proxy = self.shared.via.proxy_for(host, scheme);
        if proxy.is_some() {
            let judged = self.shared.resolver.judge(host, trust, &self.shared.stop);
            judged.map_err(|e| self.no_way(host, host, e))?;
        }
        Ok(proxy)
    }

    fn connect(&self, host: &HostPort, trust: Trust, proxy: Option<&HostPort>) -> Result<Conn, Failure> {
        let limits = &self.shared.limits;
        let way = Way {
            host: proxy.unwrap_or(host),
            trust: proxy.is_none().then_some(trust),
            deadline: Instant::now() + limits.connect,
            idle: limits.idle,
        };
        self.shared.resolver.connect(&way, &self.shared.stop).map_err(|e| self.no_way(host, way.host, e))
    }

    /// Why there is no connection to `host`; `asked` is who does not serve, where it is not a refusal.
    fn no_way(&self, host: &HostPort, asked: &HostPort, e: NoWay) -> Failure {
        match e {
            NoWay::Forbidden(why) => self.forbid(host, &why),
            NoWay::Failed(e) => self.fail(asked, &e.to_string()),
        }
    }

    fn tunnel(&mut self, host: &HostPort, trust: Trust) -> Result<End, Failure> {
        let proxy = self.proxy_for(host, Scheme::Https, trust)?;
        let mut server = self.connect(host, trust, proxy)?;
        if proxy.is_some() {
            let request = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\nVia: 1.1 banger\r\n\r\n");
            match ask_once(&mut server, request.as_bytes(), Method::Connect) {
                Ok(response) if (200..300).contains(&response.status) => {}
                Ok(response) => return Err(self.fail(host, &format!("the proxy answers {}", response.status))),
                Err(e) => return Err(self.fail(host, &e.to_string())),
            }
        }
        self.guest.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        let bytes = tunnel::run(&mut self.guest, &mut server, self.shared.limits.response_bytes)?;
        self.shared.note(|record| {
            record.stats.tunnels += 1;
            record.stats.fetched_bytes += bytes;
        });
        Ok(End::Close)
    }

    /// A refusal that the builder is to name.
    fn forbid(&self, host: &HostPort, why: &str) -> Failure {
        self.shared.note(|record| record.refuse(host.to_string()));
        let admitted = self.shared.admitted.list().join(", ");
        let text = format!("banger refuses a connection to {host}: {why}; admitted: {admitted}");
        Failure::Refused(Refusal::new("403 Forbidden", text))
    }

    /// A server that does not serve; an end of the proxy itself is not its fault.
    fn fail(&self, host: &HostPort, why: &str) -> Failure {
        if self.shared.stop.check().is_err() {
            return Failure::Broken;
        }
        let text = format!("{host} does not serve: {why}");
        self.shared.note(|record| record.fail(text.clone()));
        Failure::Refused(Refusal::new("502 Bad Gateway", text))
    }

    fn broken_answer(&self, host: &HostPort, e: &io::Error) -> Failure {
        let _ = self.fail(host, &e.to_string());
        Failure::Broken
    }
}

/// Whether an answer is what anybody who asks for its address is to get. Where a body ends with the connection, nobody knows
/// whether it is whole; one that is coded for who asked for it is something else to the next.
fn can_be_stored(response: &Response) -> bool {
    let is_coded = head::header(&response.headers, "Content-Encoding").is_some();
    response.status == 200 && response.framing != Framing::Close && !is_coded
}

/// One request and the head of its answer.
fn ask_once(server: &mut Conn, request: &[u8], method: Method) -> io::Result<Response> {
    server.write_all(request)?;
    let deadline = server.patience();
    for _ in 0..=MAX_INTERIM {
        let response = read_head(server, method, deadline)?;
        match response.status {
            101 => break,
            100..200 => {}
            _ => return Ok(response),
        }
    }
    Err(io::Error::new(ErrorKind::InvalidData, "its answer never begins"))
}

fn read_head(server: &mut Conn, method: Method, deadline: Instant) -> io::Result<Response> {
    loop {
        let parsed = parse_response(server.buffered(), method);
        if let Some((response, size)) = parsed.map_err(|text| io::Error::new(ErrorKind::InvalidData, text))? {
            server.consume(size);
            return Ok(response);
        }
        if server.fill(deadline)? == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "it closed the connection without an answer"));
        }
    }
}

/// A refusal as a response. One connection too many gets it too.
pub fn refusal_bytes(refusal: &Refusal, method: Method, connection: &str) -> Vec<u8> {
    let text = format!("{}\n", refusal.text);
    let allow = if refusal.status.starts_with("405") { "Allow: GET, HEAD, CONNECT\r\n" } else { "" };
    let own = format!(
        "Content-Type: text/plain\r\nContent-Length: {}\r\n{allow}Via: 1.1 banger\r\nConnection: {connection}\r\n",
        text.len()
    );
    let mut bytes = head::write_head(&format!("HTTP/1.1 {}", refusal.status), &[], &own);
    if method != Method::Head {
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// Answers one connection too many with what its socket takes at once, and closes it.
pub fn turn_away(conn: &Conn, most: usize) {
    let refusal = Refusal::new("503 Service Unavailable", format!("there are {most} connections already"));
    // It is not waited for.
    let _ = conn.try_write(&refusal_bytes(&refusal, Method::Get, "close"));
}
