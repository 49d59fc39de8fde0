use super::*;
use crate::cli::{Io, run_with};
use clap::Parser;
use lib_machine::guest::fake::{Fake, reply};
use lib_machine::guest::testing::Stored;
use std::net::Ipv4Addr;

#[test]
fn what_to_use_depends_on_where_it_listens_and_where_the_card_is() {
    let card = Ipv4Addr::new(172, 16, 224, 2);
    let (here, udp) = (Card::Here(card), Protocol::Udp);
    let cases = [
        (Protocol::Tcp, "0.0.0.0", 8000, here, Some("172.16.224.2:8000"), None),
        (Protocol::Tcp, "::", 22, here, Some("172.16.224.2:22"), None),
        (Protocol::Tcp, "172.16.224.2", 80, here, Some("172.16.224.2:80"), None),
        (Protocol::Tcp, "127.0.0.1", 8000, here, None, Some("bg-ssh -L 8000:127.0.0.1:8000 dev")),
        (Protocol::Tcp, "::1", 80, here, None, Some("bg-ssh -L 8080:[::1]:80 dev")),
        (Protocol::Tcp, "172.17.0.1", 5000, here, None, Some("bg-ssh -L 5000:172.17.0.1:5000 dev")),
        (Protocol::Tcp, "0.0.0.0", 8000, Card::None, None, Some("bg-ssh -L 8000:localhost:8000 dev")),
        (Protocol::Tcp, "::", 8000, Card::Elsewhere, None, Some("bg-ssh -L 8000:localhost:8000 dev")),
        (Protocol::Tcp, "0.0.0.0", 22, Card::None, None, Some("bg-ssh dev")),
        (Protocol::Tcp, "0.0.0.0", 1023, Card::None, None, Some("bg-ssh -L 9023:localhost:1023 dev")),
        (Protocol::Tcp, "0.0.0.0", 65535, Card::None, None, Some("bg-ssh -L 65535:localhost:65535 dev")),
        (udp, "0.0.0.0", 53, here, Some("172.16.224.2:53"), None),
        (udp, "127.0.0.53", 53, here, None, None),
        (udp, "0.0.0.0", 53, Card::None, None, None),
    ];
    for (protocol, address, port, card, reach, hint) in cases {
        let listener = Listener { protocol, address: address.parse().unwrap(), port, process: None, pid: None };
        let info = info(&Name::parse("dev").unwrap(), listener, card);
        assert_eq!((info.reach.as_deref(), info.hint.as_deref()), (reach, hint), "{address} {port} {card:?}");
    }
}

#[test]
fn a_row_says_who_and_how() {
    let listener = |process: Option<&str>, pid| Listener {
        protocol: Protocol::Tcp,
        address: "::1".parse().unwrap(),
        port: 80,
        process: process.map(str::to_owned),
        pid,
    };
    for (process, pid, shown) in
        [(Some("web"), Some(7), "web (7)"), (None, Some(7), "(7)"), (Some("web"), None, "web"), (None, None, "-")]
    {
        let row = row(&info(&Name::parse("dev").unwrap(), listener(process, pid), Card::None));
        assert_eq!(row, ["dev", "tcp", "[::1]:80", shown, "bg-ssh -L 8080:[::1]:80 dev"]);
    }
}

#[derive(Parser)]
struct Args {
    names: Vec<Name>,
    #[arg(long)]
    table: bool,
}

/// Exit status, stdout and stderr.
fn tool(args: &[&str], stdin: &str, stored: &Stored) -> (u8, String, String) {
    let (mut out, mut err) = (vec![], vec![]);
    let exit = run_with::<Args>(
        "bg-vm",
        |args, cx| ports(cx, &args.names, None, ListArgs { table: Some(args.table) }),
        Io {
            args: std::iter::once("bg-vm").chain(args.iter().copied()).map(Into::into).collect(),
            env: stored.env(),
            root: false,
            stdin: (Box::new(stdin.as_bytes()), false),
            stdout: (Box::new(&mut out), false),
            stderr: (Box::new(&mut err), false),
        },
    );
    (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn all_vms_are_asked_and_one_that_fails_is_an_error() {
    let listeners = |port: u16, omitted: u64| {
        let text = format!(r#"{{"protocol":"tcp","address":"::","port":{port},"process":"a\u001b[2J"}}"#);
        Fake::http(reply("200 OK", &format!(r#"{{"listeners":[{text}],"omitted":{omitted}}}"#)))
    };
    let old = Fake::http(reply("404 Not Found", r#"{"error":"Not Found"}"#));
    let (one, two) = (listeners(1, 0), listeners(2, 5));
    let mut stored = Stored::new(&[("a", one.socket()), ("b", two.socket()), ("old", old.socket())]);
    let (exit, out, err) = tool(&["b", "a"], "", &stored);
    let found: Vec<PortInfo> = out.lines().map(|line| lib_common::doc::strict(line).unwrap()).collect();
    let brief: Vec<_> = found.iter().map(|p| (p.machine.as_str(), p.port, p.process.as_deref())).collect();
    assert_eq!((exit, brief), (0, vec![("b", 2, Some("a\u{fffd}[2J")), ("a", 1, Some("a\u{fffd}[2J"))]));
    assert_eq!(err, "bg-vm: b: 5 more listeners are not listed\n");
    let line = stored.document("a").to_line();
    let (exit, out, _) = tool(&["--table"], &line, &stored);
    assert!(exit == 0 && out.lines().count() == 2 && out.contains("bg-ssh -L 8001:localhost:1 a"), "{out}");
    let (exit, out, err) = tool(&["a", "old"], "", &stored);
    assert!((exit, out.as_str()) == (69, "") && err.contains("too old") && err.contains("bg-kernel build"), "{err}");
    let (exit, out, err) = tool(&[], &line.replace("0123", "4567"), &stored);
    assert!((exit, out.as_str()) == (69, "") && err.contains("made that has its name"), "{err}");
    stored.end();
    let (exit, _, err) = tool(&["a"], "", &stored);
    assert!(exit == 69 && err.contains("not_running"), "{err}");
}
