//! What is asked for and what comes back.

use super::*;

#[test]
fn get_and_head_give_what_the_server_gives() {
    let server = Server::new(|head| match head.split(' ').next() {
        Some("HEAD") => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec(),
        _ => reply("200 Fine", "Last-Modified: then\r\nConnection: X-Own\r\nX-Own: 1\r\nServer: s\r\n", "hello").into(),
    });
    let fixture = Fixture::new(&[&server]);
    let answer = fixture.get(&server.url("/dists/x?y=z"));
    assert_eq!((answer.status.as_str(), answer.body.as_str()), ("200 Fine", "hello"));
    assert!(answer.head.contains("Last-Modified: then") && answer.head.contains("Server: s"), "{}", answer.head);
    assert!(answer.head.contains("Connection: close") && !answer.head.contains("X-Own"), "{}", answer.head);
    let asked = &server.requests()[0];
    assert!(asked.starts_with(&format!("GET /dists/x?y=z HTTP/1.1\r\nHost: {}\r\n", server.host())), "{asked}");
    let text = fixture.send(format!("HEAD {} HTTP/1.1\r\nConnection: close\r\n\r\n", server.url("/")));
    let head = Answer::parse(&text);
    assert!(head.head.contains("Content-Length: 5") && head.body.is_empty(), "{text}");
    assert_eq!(fixture.until(|s| s.fetched == 2).fetched_bytes, 5);
}

#[test]
fn requests_in_a_row_are_answered_in_order_over_one_connection() {
    let server = Server::new(|head| reply("200 OK", "", head.split(' ').nth(1).unwrap()).into());
    let fixture = Fixture::new(&[&server]);
    // As apt does: ten at once, then their answers.
    let mut all: String =
        (0..10).map(|i| format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", server.url(&format!("/{i}")))).collect();
    all += "GET http://evil.example/ HTTP/1.1\r\n\r\n";
    all += &format!("GET {} HTTP/1.1\r\nConnection: close\r\n\r\n", server.url("/last"));
    let text = fixture.send(all);
    let bodies: Vec<_> = text.split("HTTP/1.1 ").skip(1).map(|part| part.split_once("\r\n\r\n").unwrap().1).collect();
    assert_eq!(bodies[..10], ["/0", "/1", "/2", "/3", "/4", "/5", "/6", "/7", "/8", "/9"]);
    assert!(bodies[10].contains("evil.example:80"), "a refusal does not end the row");
    assert_eq!(bodies[11], "/last");
    assert_eq!(server.connections(), 1, "and the server is connected to once");
}

#[test]
fn a_server_that_has_closed_meanwhile_is_asked_again() {
    let server = Server::raw(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(reply("200 OK", "", "once").as_bytes());
    });
    let fixture = Fixture::new(&[&server]);
    let request = format!("GET {} HTTP/1.1\r\n\r\n", server.url("/"));
    let text =
        fixture.send(format!("{request}{request}{}", request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")));
    assert_eq!(text.matches("once").count(), 3, "{text}");
}

#[test]
fn a_body_of_unknown_length_is_chunked_for_those_who_know_chunks() {
    for sent in ["Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n", "\r\nabcde"] {
        let server = Server::new(move |_| format!("HTTP/1.1 200 OK\r\n{sent}").into());
        let fixture = Fixture::new(&[&server]);
        let text = fixture.send(format!("GET {} HTTP/1.1\r\nConnection: close\r\n\r\n", server.url("/")));
        let answer = Answer::parse(&text);
        assert!(
            answer.head.contains("Transfer-Encoding: chunked") && !answer.head.contains("Content-Length"),
            "{text}"
        );
        assert_eq!(unchunk(&answer.body), "abcde");
        let text = fixture.send(format!("GET {} HTTP/1.0\r\n\r\n", server.url("/")));
        let answer = Answer::parse(&text);
        assert!(!answer.head.contains("chunked") && answer.head.contains("Connection: close"), "{text}");
        assert_eq!(answer.body, "abcde");
    }
}

fn unchunk(mut text: &str) -> String {
    let mut body = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            assert_eq!(rest, "\r\n");
            return body;
        }
        body.push_str(&rest[..size]);
        text = rest[size..].strip_prefix("\r\n").unwrap();
    }
}

#[test]
fn an_interim_answer_is_skipped_and_no_body_is_waited_for_where_there_is_none() {
    let server = Server::new(|_| b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n".to_vec());
    let answer = Fixture::new(&[&server]).get(&server.url("/InRelease"));
    assert_eq!((answer.status.as_str(), answer.body.as_str()), ("304 Not Modified", ""));
}

#[test]
fn a_host_that_is_not_admitted_is_refused_and_named() {
    let server = Server::new(|_| reply("200 OK", "", "x").into());
    let other = Server::new(|_| reply("200 OK", "", "secret").into());
    let fixture = Fixture::new(&[&server]);
    let evil = other.host();
    for (request, host) in [
        (format!("GET {} HTTP/1.1", other.url("/")), evil.as_str()),
        (format!("CONNECT {evil} HTTP/1.1"), evil.as_str()),
        ("CONNECT 127.0.0.1:2 HTTP/1.1".into(), "127.0.0.1:2"),
        ("GET http://169.254.169.254/latest HTTP/1.1".into(), "169.254.169.254:80"),
        (
            format!("GET http://localhost:{}/ HTTP/1.1", &server.host()[10..]),
            &*format!("localhost{}", &server.host()[9..]),
        ),
    ] {
        let answer =
            Answer::parse(&fixture.send(format!("{request}\r\nHost: {}\r\nConnection: close\r\n\r\n", server.host())));
        assert_eq!(answer.status, "403 Forbidden");
        assert!(
            answer.body.contains(host) && answer.body.contains(&format!("admitted: {}", server.host())),
            "{answer:?}"
        );
        assert!(fixture.proxy().refused().iter().any(|refused| refused == host));
    }
    assert_eq!((fixture.proxy().refused().len(), other.connections(), server.connections()), (4, 0, 0), "each once");
    let head = fixture.send("HEAD http://evil.example/ HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 403") && head.ends_with("\r\n\r\n"), "no body: {head}");
}

#[test]
fn a_tunnel_carries_bytes_both_ways_to_their_end() {
    let server = Server::raw(|mut stream| {
        let mut all = vec![];
        stream.read_to_end(&mut all).unwrap();
        all.reverse();
        stream.write_all(&all).unwrap();
    });
    let fixture = Fixture::new(&[&server]);
    let mut stream = fixture.connect();
    // What follows the request at once belongs to the tunnel.
    stream.write_all(format!("CONNECT {} HTTP/1.1\r\n\r\n\x16\x03", server.host()).as_bytes()).unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    stream.write_all(&sent).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = vec![];
    stream.read_to_end(&mut all).unwrap();
    let mut expected = b"HTTP/1.1 200 Connection established\r\n\r\n".to_vec();
    expected.extend(sent.iter().rev());
    expected.extend(b"\x03\x16");
    assert!(all == expected, "{} bytes", all.len());
    assert_eq!(fixture.until(|s| s.tunnels == 1).fetched_bytes, 3_000_002);
}

#[test]
fn a_server_that_ends_first_ends_the_tunnel_of_a_guest_that_stays() {
    let server = Server::raw(|mut stream| stream.write_all(b"bye").unwrap());
    let fixture = Fixture::new(&[&server]);
    let text = fixture.send(format!("CONNECT {} HTTP/1.1\r\n\r\n", server.host()));
    assert!(text.ends_with("\r\n\r\nbye"), "{text}");
    fixture.until(|s| s.tunnels == 1);
}
