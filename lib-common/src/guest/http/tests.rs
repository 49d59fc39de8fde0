use super::*;
use crate::doc::{HealthStatus, to_json};
use crate::guest::fake::{Fake, health, read_head, reply};
use std::io::Write;
use std::sync::mpsc;

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(60);

#[test]
fn health_comes_with_200_and_with_503() {
    for (status, line) in [(HealthStatus::Ok, "200 OK"), (HealthStatus::Starting, "503 Service Unavailable")] {
        let guest = Fake::http(reply(line, &to_json(&health(status))));
        assert_eq!(get_health(guest.socket(), LONG).unwrap(), health(status));
    }
}

#[test]
fn a_reply_without_a_length_lasts_until_the_end() {
    let body = to_json(&health(HealthStatus::Ok));
    let guest = Fake::http(format!("HTTP/1.1 200 OK\r\n\r\n{body}\n"));
    assert_eq!(get_health(guest.socket(), LONG).unwrap().status, HealthStatus::Ok);
}

#[test]
fn requests_are_what_the_agent_expects() {
    let (sender, lines) = mpsc::channel();
    let guest = Fake::open(move |mut stream| {
        sender.send(read_head(&stream)).unwrap();
        stream.write_all(reply("202 Accepted", "{}").as_bytes()).unwrap();
    });
    post_shutdown(guest.socket(), LONG).unwrap();
    let e = get_health(guest.socket(), LONG).unwrap_err();
    assert!(e.message().contains("202"), "{e:?}");
    let lines: Vec<String> = lines.iter().take(2).collect();
    assert_eq!(lines[0], "POST /shutdown HTTP/1.1");
    let time =
        lines[1].strip_prefix("GET /healthz?sshd_ms=3333&unix_ms=").and_then(|rest| rest.strip_suffix(" HTTP/1.1"));
    let time: u128 = time.unwrap_or_else(|| panic!("{}", lines[1])).parse().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    assert!(time <= now && now - time < 600_000, "{time} at {now}");
}

#[test]
fn a_lying_guest_does_not_answer_and_it_is_said_why() {
    let ok = to_json(&health(HealthStatus::Ok));
    let cases: Vec<(String, &str)> = vec![
        (String::new(), "ended 0 bytes into the head"),
        ("HTTP/1.1 200 OK\r\nContent-Le".into(), "into the head"),
        ("SSH-2.0-OpenSSH_9.2\r\n".into(), "not HTTP"),
        (format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{ok}", ok.len() + 1), "ended after"),
        (format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{ok}"), "EOF while parsing"),
        (format!("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n{ok}"), "no number"),
        (format!("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{ok}"), "no number"),
        (format!("HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n{ok}"), "longer than 65536"),
        (format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{ok}"), "two lengths"),
        (format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{ok}"), "transfer coding"),
        (format!("HTTP/1.1 200 OK\r\n{}\r\n{ok}", "X: y\r\n".repeat(33)), "not HTTP"),
        (format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(9000)), "longer than 8192"),
        (reply("200 OK", &ok.replace("\"hostname\"", "\"hostnam\"")), "hostnam"),
        (reply("200 OK", &format!("{ok} 1")), "after the document"),
        (reply("503 Service Unavailable", "{\"error\":\"Service Unavailable\"}"), "error"),
        (reply("404 Not Found", "{}"), "404"),
        (reply("200 OK", &"[".repeat(60_000)), "not as it should be"),
    ];
    for (bytes, why) in cases {
        let guest = Fake::http(bytes.clone());
        let e = get_health(guest.socket(), LONG).unwrap_err();
        assert_eq!(e.code(), Code::GuestUnreachable);
        let said = format!("{} {}", e.message(), e.causes().join(" "));
        assert!(said.contains(why), "{why}: {said}");
    }
}

#[test]
fn an_endless_reply_is_cut_off() {
    for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nX: "] {
        let guest = Fake::open(move |mut stream| {
            let mut sent = stream.write_all(head.as_bytes());
            while sent.is_ok() {
                sent = stream.write_all(&[b'x'; 4096]);
            }
        });
        let e = get_health(guest.socket(), LONG).unwrap_err();
        assert!(e.causes()[0].contains("longer than"), "{e:?}");
    }
}

#[test]
fn silence_a_half_closed_connection_and_a_trickle_end_at_the_deadline() {
    let silent = Fake::open(Fake::until_closed);
    let half_closed = Fake::open(|stream| {
        stream.shutdown(std::net::Shutdown::Read).unwrap();
        std::thread::park();
    });
    let trickling = Fake::open(|mut stream| {
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n");
        while sent.is_ok() {
            std::thread::sleep(Duration::from_millis(2));
            sent = stream.write_all(b" ");
        }
    });
    for guest in [silent, half_closed, trickling] {
        let begun = Instant::now();
        let e = get_health(guest.socket(), SHORT).unwrap_err();
        assert_eq!(e.code(), Code::GuestUnreachable);
        assert!(begun.elapsed() < Duration::from_secs(5), "{e:?}");
    }
}

#[test]
fn listeners_come_bounded_strict_and_without_control_characters() {
    let listener = r#"{"protocol":"tcp","address":"::","port":80,"process":"w\u001b]0;x","pid":7}"#;
    let list = |listener: &str| format!(r#"{{"listeners":[{listener}],"omitted":2}}"#);
    let guest = Fake::http(reply("200 OK", &list(listener)));
    let found = get_listeners(guest.socket(), LONG).unwrap().unwrap();
    assert_eq!((found.listeners[0].process.as_deref(), found.omitted), (Some("w\u{fffd}]0;x"), 2));
    let old = Fake::http(reply("404 Not Found", "{\"error\":\"Not Found\"}"));
    assert_eq!(get_listeners(old.socket(), LONG).unwrap(), None);
    for (from, to, why) in [
        ("\"::\"", "\"localhost\"", "address"),
        ("80", "65536", "port"),
        ("80", "-1", "port"),
        ("tcp", "sctp", "protocol"),
        ("\"pid\"", "\"pdi\"", "pdi"),
        ("7}", "4294967296}", "pid"),
    ] {
        let guest = Fake::http(reply("200 OK", &list(&listener.replace(from, to))));
        let e = get_listeners(guest.socket(), LONG).unwrap_err();
        assert!(e.code() == Code::GuestUnreachable && format!("{e:?}").contains(why), "{e:?}");
    }
    let much = list(&vec![listener; 1000].join(","));
    for (status, body, why) in [("503 Service Unavailable", "{}", "503"), ("200 OK", &much, "longer than 65536")] {
        let guest = Fake::http(reply(status, body));
        let e = get_listeners(guest.socket(), LONG).unwrap_err();
        assert!(e.code() == Code::GuestUnreachable && format!("{e:?}").contains(why), "{e:?}");
    }
}

#[test]
fn control_characters_stay_in_the_guest() {
    let mut nasty = health(HealthStatus::Degraded);
    nasty.hostname = "dev\u{1b}]0;x\u{7}".into();
    nasty.problems = vec!["a\u{9b}2Jb\n".into()];
    nasty.notes = nasty.problems.clone();
    let guest = Fake::http(reply("503 Service Unavailable", &to_json(&nasty)));
    let got = get_health(guest.socket(), LONG).unwrap();
    assert_eq!(got.hostname, "dev\u{fffd}]0;x\u{fffd}");
    assert_eq!((got.problems.concat(), got.notes.concat()), ("a\u{fffd}2Jb\u{fffd}".into(), got.problems.concat()));
}
