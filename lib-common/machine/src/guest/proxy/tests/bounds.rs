//! What a hostile guest, or a hostile server, cannot do.

use super::*;

fn impatient() -> Limits {
    Limits { idle: Duration::from_millis(300), ..Limits::default() }
}

#[test]
fn one_connection_too_many_is_turned_away_at_once() {
    let server = Server::new(|_| reply("200 OK", "", "x").into());
    let fixture = Fixture::new(&[&server]);
    let mut held: Vec<_> = (0..32).map(|_| fixture.connect()).collect();
    // The last one is being served once it answers.
    for stream in &mut held {
        stream.write_all(b"GET http://evil.example/ HTTP/1.1\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
    }
    let mut stream = fixture.connect();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("32 connections"), "{text}");
    drop(held);
    let deadline = Instant::now() + PATIENCE;
    while fixture.get(&server.url("/")).status != "200 OK" {
        assert!(Instant::now() < deadline, "no slot came back");
    }
}

#[test]
fn heads_and_bodies_are_bounded() {
    let server = Server::new(|_| reply("200 OK", "", "x").into());
    let fixture = Fixture::new(&[&server]);
    for (request, status) in [
        (format!("GET {} HTTP/1.1\r\nX: {}\r\n\r\n", server.url("/"), "x".repeat(20_000)), "431"),
        (format!("GET {} HTTP/1.1\r\nX: {}", server.url("/"), "x".repeat(400_000)), "431"),
        (format!("GET {} HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", server.url("/")), "413"),
        (format!("GET {} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", server.url("/")), "411"),
        (format!("POST {} HTTP/1.1\r\n\r\n", server.url("/")), "405"),
        ("GET / HTTP/1.1\r\n\r\n".into(), "400"),
        ("\x16\x03\x01\x02".into(), "400"),
    ] {
        let answer = Answer::parse(&fixture.send(&request));
        assert!(answer.status.starts_with(status) && answer.head.contains("Connection: close"), "{answer:?}");
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn who_is_slow_is_let_go() {
    let silent = Server::raw(Server::hold);
    let fixture = Fixture::with(&[&silent], impatient(), Via::default());
    assert_eq!(fixture.send(""), "", "an idle connection is closed without a word");
    assert!(fixture.send("GET http://h").starts_with("HTTP/1.1 408"));
    let answer = fixture.get(&silent.url("/"));
    assert_eq!(answer.status, "502 Bad Gateway");
    assert!(answer.body.contains(&silent.host()), "{answer:?}");
    assert_eq!(fixture.proxy().failed().len(), 1);
    let text = fixture.send(format!("CONNECT {} HTTP/1.1\r\n\r\n", silent.host()));
    assert!(text.starts_with("HTTP/1.1 200"), "and its tunnel closed: {text}");
}

#[test]
fn a_trickle_does_not_hold_a_head_for_ever() {
    let fixture = Fixture::with(&[], impatient(), Via::default());
    let mut stream = fixture.connect();
    let begun = Instant::now();
    while stream.write_all(b"x").is_ok() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn a_guest_that_does_not_read_is_let_go_and_one_that_reads_slowly_is_not() {
    let server = Server::new(|_| reply("200 OK", "", &"x".repeat(4 << 20)).into());
    let limits = Limits { idle: Duration::from_millis(1500), ..Limits::default() };
    let fixture = Fixture::with(&[&server], limits, Via::default());
    let request = format!("GET {} HTTP/1.1\r\nConnection: close\r\n\r\n", server.url("/"));
    let mut stuck = fixture.connect();
    stuck.write_all(request.as_bytes()).unwrap();
    let mut slow = fixture.connect();
    slow.write_all(request.as_bytes()).unwrap();
    let (mut total, mut buffer) = (0, vec![0; 256 << 10]);
    loop {
        std::thread::park_timeout(Duration::from_millis(100));
        match slow.read(&mut buffer).unwrap() {
            0 => break,
            n => total += n,
        }
    }
    assert!(total > 4 << 20, "{total}");
    let mut rest = vec![];
    stuck.read_to_end(&mut rest).unwrap();
    assert!(rest.len() < 4 << 20, "{}", rest.len());
    assert_eq!(fixture.until(|s| s.fetched == 1).fetched, 1);
}

#[test]
fn an_answer_that_is_too_long_or_malformed_is_the_servers_failure() {
    for (sent, status, why) in [
        (reply("200 OK", "", &"x".repeat(101)), "502 Bad Gateway", "longer than 100"),
        ("SSH-2.0-x\r\n".into(), "502 Bad Gateway", "not HTTP"),
        (String::new(), "502 Bad Gateway", "without an answer"),
        ("HTTP/1.1 100 Continue\r\n\r\n".repeat(20), "502 Bad Gateway", "never begins"),
        (format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(20_000)), "502 Bad Gateway", "too long"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx".into(),
            "502 Bad Gateway",
            "coding",
        ),
        (format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(101)), "200 OK", "too long"),
    ] {
        let server = Server::raw(move |mut stream| {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(sent.as_bytes());
        });
        let limits = Limits { response_bytes: 100, ..Limits::default() };
        let fixture = Fixture::with(&[&server], limits, Via::default());
        let answer = fixture.get(&server.url("/x.deb"));
        assert_eq!(answer.status, status);
        let failed = fixture.proxy().failed();
        assert!(failed[0].contains(why) && failed[0].starts_with(&server.host()), "{failed:?}");
    }
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut admitted = Admitted::default();
    admitted.add_host(&gone.to_string()).unwrap();
    admitted.add_host("localhost").unwrap();
    let vsock = dir.path().join("vm.vsock");
    let ways = (admitted, Via::default(), Resolver::default());
    let proxy = Proxy::start_with(&vsock, ways, None, Limits::default()).unwrap();
    let fixture = Fixture { proxy: Some(proxy), dir };
    let answer = fixture.get(&format!("http://{gone}/"));
    assert!(answer.status == "502 Bad Gateway" && answer.body.contains(&gone.to_string()), "{answer:?}");
    let answer = fixture.get("http://localhost/");
    assert!(answer.status == "403 Forbidden" && answer.body.contains("a local address"), "{answer:?}");
    assert_eq!(fixture.proxy().refused(), ["localhost:80"]);
    assert_eq!(fixture.proxy().failed().len(), 1);
}

#[test]
fn what_is_remembered_is_bounded() {
    let fixture = Fixture::new(&[]);
    let all: String = (0..100).map(|i| format!("GET http://h{i}/ HTTP/1.1\r\n\r\n")).collect();
    fixture.send(all + "GET http://x/ HTTP/1.0\r\n\r\n");
    assert_eq!(fixture.proxy().refused().len(), MAX_REMEMBERED);
    assert_eq!(fixture.proxy().refused()[1], "h1:80");
}
