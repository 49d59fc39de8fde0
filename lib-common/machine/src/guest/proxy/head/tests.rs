//! Requests that are understood, those that are not, and what is passed on.

use super::*;

fn parse(text: &str) -> Result<Option<(Request, usize)>, Refusal> {
    parse_request(text.as_bytes())
}

fn status(text: &str) -> &'static str {
    parse(text).unwrap_err().status.get(..3).unwrap()
}

#[test]
fn a_request_is_for_a_host_and_a_path() {
    for (line, host, path) in [
        ("GET http://deb.debian.org/debian/x.deb", "deb.debian.org:80", "/debian/x.deb"),
        ("HEAD HTTP://Deb.Debian.Org:8080", "deb.debian.org:8080", "/"),
        ("GET http://h?q=/x", "h:80", "/?q=/x"),
        ("GET http://[::1]:99/../x", "[::1]:99", "/../x"),
        ("CONNECT h:443", "h:443", ""),
    ] {
        let text = format!("{line} HTTP/1.1\r\nHost: other\r\n\r\nrest");
        let (request, size) = parse(&text).unwrap().unwrap();
        assert_eq!((request.host.to_string().as_str(), request.path.as_str()), (host, path));
        assert_eq!(size, text.len() - 4);
    }
    assert_eq!(parse("GET http://h/ HTTP/1.1\r\nHost"), Ok(None));
}

#[test]
fn tricks_with_the_target_are_refused() {
    for line in [
        "GET /debian",
        "GET *",
        "GET https://h/",
        "GET ftp://h/",
        "GET http://",
        "GET http:///x",
        "GET http://u@h/",
        "GET http://good@evil/",
        "GET http://good\\@evil/",
        "GET http://good%2eorg/",
        "GET http://good:80:90/",
        "GET http://good#evil/",
        "GET http://h/#x",
        "GET http://h:0/",
        "GET http://h:99999/",
        "GET http://h/\u{e9}",
        "GET http://h /",
        "CONNECT h",
        "CONNECT h:443/x",
        "CONNECT http://h:443",
        "CONNECT u@h:443",
    ] {
        assert_eq!(status(&format!("{line} HTTP/1.1\r\n\r\n")), "400", "{line}");
    }
    assert_eq!(status("\x16\x03\x01"), "400", "TLS");
}

#[test]
fn other_methods_and_bodies_are_refused() {
    assert_eq!(status("PUT http://h/ HTTP/1.1\r\n\r\n"), "405");
    for (header, code) in [
        ("Content-Length: 1", "413"),
        ("Content-Length: 0\r\nContent-Length: 1", "400"),
        ("Content-Length: +0", "400"),
        ("Content-Length: 0, 0", "400"),
        ("Transfer-Encoding: chunked", "411"),
        ("Transfer-Encoding: x\r\nContent-Length: 0", "411"),
    ] {
        assert_eq!(status(&format!("GET http://h/ HTTP/1.1\r\n{header}\r\n\r\n")), code, "{header}");
    }
    assert!(parse("GET http://h/ HTTP/1.1\r\nContent-Length: 0\r\n\r\n").unwrap().is_some());
}

#[test]
fn a_head_is_bounded() {
    let long = format!("GET http://h/ HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD));
    assert_eq!(status(&long), "431");
    assert_eq!(status(&(long + "\r\n\r\n")), "431");
    assert_eq!(status(&format!("GET http://h/ HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(65))), "431");
}

#[test]
fn what_is_about_one_connection_is_not_passed_on() {
    let text = "GET http://h:81/x HTTP/1.1\r\nHost: evil\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nTE: gzip\r\n\
        Proxy-Authorization: secret\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nExpect: 100-continue\r\n\
        User-Agent: apt\r\nRange: bytes=5-\r\nIf-Range: x\r\nAccept-Encoding: gzip\r\n\r\n";
    let (mut request, _) = parse(text).unwrap().unwrap();
    assert!(!request.keep && !request.refetch);
    let head = |request: &Request, proxy| String::from_utf8(request.to_head(proxy)).unwrap();
    let rest = "Host: h:81\r\nUser-Agent: apt\r\nRange: bytes=5-\r\nIf-Range: x\r\nAccept-Encoding: gzip\r\n\
        Via: 1.1 banger\r\n\r\n";
    assert_eq!(head(&request, false), format!("GET /x HTTP/1.1\r\n{rest}"));
    assert_eq!(head(&request, true), format!("GET http://h:81/x HTTP/1.1\r\n{rest}"));
    request.ask_for_all();
    assert_eq!(head(&request, false), "GET /x HTTP/1.1\r\nHost: h:81\r\nUser-Agent: apt\r\nVia: 1.1 banger\r\n\r\n");
    let fresh = "GET http://h/x HTTP/1.1\r\nCache-Control: max-age=0, no-cache\r\n\r\n";
    let (request, _) = parse(fresh).unwrap().unwrap();
    assert!(request.refetch && request.keep && head(&request, false).contains("Host: h\r\n"));
    assert!(!parse("GET http://h/ HTTP/1.0\r\n\r\n").unwrap().unwrap().0.keep);
}

#[test]
fn a_response_ends_as_the_rfc_says() {
    let framing = |text: &str, method| parse_response(text.as_bytes(), method).map(|r| r.unwrap().0.framing);
    for (head, method, expected) in [
        ("200 OK\r\nContent-Length: 5", Method::Get, Some(Framing::Length(5))),
        ("200 OK\r\nContent-Length: 5\r\nContent-Length: 5", Method::Get, Some(Framing::Length(5))),
        ("200 OK\r\nContent-Length: 5", Method::Head, Some(Framing::None)),
        ("200 OK", Method::Get, Some(Framing::Close)),
        ("200 OK\r\nTransfer-Encoding: Chunked", Method::Get, Some(Framing::Chunked)),
        ("200 OK\r\nTransfer-Encoding: chunked", Method::Head, Some(Framing::None)),
        ("304 Not Modified\r\nContent-Length: 5", Method::Get, Some(Framing::None)),
        ("204 No Content", Method::Get, Some(Framing::None)),
        ("200 OK\r\nContent-Length: 5", Method::Connect, Some(Framing::None)),
        ("200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", Method::Get, None),
        ("200 OK\r\nTransfer-Encoding: gzip, chunked", Method::Get, None),
        ("200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked", Method::Get, None),
        ("200 OK\r\nContent-Length: 5\r\nContent-Length: 6", Method::Get, None),
        ("200 OK\r\nContent-Length: -5", Method::Get, None),
    ] {
        let text = format!("HTTP/1.1 {head}\r\n\r\n");
        assert_eq!(framing(&text, method).ok(), expected, "{head} {method:?}");
    }
    assert!(framing("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Method::Get).is_err());
    assert!(framing("SSH-2.0-x\r\n", Method::Get).is_err());
    assert_eq!(parse_response(b"HTTP/1.1 200", Method::Get), Ok(None));
    assert!(parse_response(&[b"HTTP/1.1 200 ".as_slice(), &[b'x'; MAX_HEAD]].concat(), Method::Get).is_err());
}
