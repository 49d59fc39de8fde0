//! The user's own proxy, by which hosts are reached: what it may be asked for.

use super::*;
use std::net::IpAddr;

/// A proxy that answers with what it was asked.
fn parent() -> Server {
    Server::raw(|mut stream| {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).unwrap();
        let asked = String::from_utf8_lossy(&buffer[..n]).into_owned();
        let answer = match asked.starts_with("CONNECT") {
            true => format!("HTTP/1.1 200 Fine\r\nContent-Length: 9\r\n\r\n{asked}"),
            false => reply("200 OK", "Connection: close\r\n", &asked),
        };
        stream.write_all(answer.as_bytes()).unwrap();
    })
}

/// The names that this host finds.
fn find(name: &str) -> std::io::Result<Vec<IpAddr>> {
    let all: &[&str] = match name {
        "mirror.example" => &["151.101.2.132", "2a04:4e42::644"],
        "here.example" => &["127.0.0.1"],
        "both.example" => &["151.101.2.132", "127.0.0.1"],
        "metadata.example" => &["169.254.169.254"],
        "inside.example" => &["10.0.0.1"],
        // glibc finds these without asking anybody, which no test is to depend on.
        _ => return Err(std::io::Error::other(format!("{name}: not found"))),
    };
    Ok(all.iter().map(|ip| ip.parse().unwrap()).collect())
}

/// A guest's proxy behind that one.
fn behind(parent: &Server, admitted: Admitted) -> Fixture {
    // no_proxy has the same value, which excepts nothing that is asked for here.
    let via = Via::from_env(|name| name.ends_with("_proxy").then(|| format!("http://{}", parent.host()))).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let vsock = dir.path().join("vm.vsock");
    let proxy = Proxy::start_with(&vsock, (admitted, via, Resolver::new(find)), None, Limits::default()).unwrap();
    Fixture { proxy: Some(proxy), dir }
}

fn sources(hosts: &[&str]) -> Admitted {
    let mut admitted = Admitted::default();
    for host in hosts {
        for scheme in ["http", "https"] {
            assert!(admitted.add_source(&format!("{scheme}://{host}/")).unwrap(), "{host}");
        }
    }
    admitted
}

#[test]
fn another_proxy_is_used_where_the_environment_names_one() {
    let parent = parent();
    // One name that this host finds, and one that only the parent may know.
    for name in ["mirror.example", "mirror.invalid"] {
        let fixture = behind(&parent, sources(&[name]));
        let answer = fixture.get(&format!("http://{name}/x"));
        assert!(answer.body.starts_with(&format!("GET http://{name}/x HTTP/1.1\r\nHost: {name}\r\n")), "{answer:?}");
        let text = fixture.send(format!("CONNECT {name}:443 HTTP/1.1\r\n\r\n"));
        let asked = format!("established\r\n\r\nCONNECT {name}:443 HTTP/1.1\r\nHost: {name}:443\r\n");
        assert!(text.contains(&asked), "{text}");
        assert_eq!(fixture.get("http://other.invalid/").status, "403 Forbidden");
    }
}

#[test]
fn a_source_does_not_lead_through_it_to_this_machine_or_its_network() {
    let names = [
        "127.1",
        "0x7f.1",
        "2130706433",
        "127.0.0.1.",
        "a.localhost",
        "localhost.",
        "here.example",
        "both.example",
        "metadata.example",
        "inside.example",
    ];
    let parent = parent();
    let fixture = behind(&parent, sources(&names));
    for name in names {
        let answer = fixture.get(&format!("http://{name}/"));
        assert!(answer.status == "403 Forbidden" && answer.body.contains("a local address"), "{name}: {answer:?}");
        let text = fixture.send(format!("CONNECT {name}:443 HTTP/1.1\r\nConnection: close\r\n\r\n"));
        assert!(text.starts_with("HTTP/1.1 403"), "{name}: {text}");
    }
    assert_eq!((parent.connections(), fixture.proxy().refused().len()), (0, 2 * names.len()));
}

#[test]
fn what_the_user_lists_is_asked_for_through_it_wherever_it_leads() {
    let parent = parent();
    let names = ["inside.example", "here.example", "127.1", "10.0.0.1"];
    let mut admitted = Admitted::default();
    names.iter().for_each(|name| admitted.add_host(name).unwrap());
    let fixture = behind(&parent, admitted);
    for name in names {
        assert_eq!(fixture.get(&format!("http://{name}/")).status, "200 OK", "{name}");
    }
}

#[test]
fn a_refusal_there_does_not_end_the_row() {
    let parent = Server::new(|_| reply("200 OK", "", "x").into());
    let mut admitted = sources(&["mirror.example", "here.example"]);
    admitted.add_host("inside.example").unwrap();
    let fixture = behind(&parent, admitted);
    let get = |name: &str, more: &str| format!("GET http://{name}/ HTTP/1.1\r\n{more}\r\n");
    let all = [get("inside.example", ""), get("here.example", ""), get("mirror.example", "Connection: close\r\n")];
    let text = fixture.send(all.concat());
    let statuses: Vec<_> = text.split("HTTP/1.1 ").skip(1).map(|part| &part[..3]).collect();
    assert_eq!(statuses, ["200", "403", "200"], "{text}");
}
