//! `bg-bench tap`: it measures, prints what its document is to be, and leaves nothing. How long anything takes is not
//! tested: it says nothing where others work at the same time.

use super::Host;
use crate::support::{children, finish};
use lib_common::doc::{Bench, strict};
use lib_common::error::Code;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn bench(host: &Host, args: &[&str]) -> crate::support::Done {
    host.netns.run(&host.sandbox, "bg-bench", args, "")
}

fn assert_nothing_left(host: &Host) {
    assert_eq!(host.netns.links(), Vec::<String>::new());
    assert_eq!(host.netns.ok("nft list ruleset"), "");
    assert_eq!(children(&host.sandbox.path("net")), Vec::<PathBuf>::new());
}

#[test]
fn it_measures_and_leaves_nothing() {
    let Some(host) = Host::new("it_measures_and_leaves_nothing") else { return };
    let done = bench(&host, &["tap", "--runs", "3", "--devices", "1,8"]);
    let bench: Bench = strict(&done.ok()).unwrap();
    assert_eq!((bench.kind.as_str(), bench.subject.as_str(), bench.runs), ("Bench", "tap", 3));
    let rows: Vec<(&str, u32, u32)> = bench.measures.iter().map(|m| (m.name.as_str(), m.existing, m.n)).collect();
    for devices in [1, 8] {
        let each =
            [("acquire_warm", 300), ("release", 300), ("three_ip_calls", 15), ("acquire_cold", 30), ("drain", 3)];
        assert!(each.iter().all(|(name, n)| rows.contains(&(name, devices, *n))), "{rows:?}");
    }
    assert!(rows.contains(&("acquire_by_threads", 64, 192)) && rows.contains(&("acquire_by_processes", 64, 192)));
    assert_eq!(rows.len(), 12, "{rows:?}");
    for m in &bench.measures {
        assert!(0.0 < m.p50 && m.p50 <= m.p95 && m.p95 <= m.p99 && m.p99 <= m.max && m.samples.is_empty(), "{m:?}");
    }
    assert_eq!((bench.against.len(), bench.bars.len()), (4, 10));
    assert_eq!(bench.ok, bench.bars.iter().all(|bar| bar.ok));
    assert_nothing_left(&host);
}

#[test]
fn samples_are_there_when_asked_for_and_a_missed_bar_is_an_answer() {
    let Some(host) = Host::new("samples_are_there_when_asked_for_and_a_missed_bar_is_an_answer") else { return };
    let done = bench(&host, &["tap", "--runs", "1", "--devices", "2", "--samples", "--check"]);
    let bench: Bench = strict(&done.text()).unwrap();
    assert!(bench.measures.iter().all(|m| m.samples.len() == m.n as usize));
    assert_eq!(done.exit, i32::from(!bench.ok), "{done:?}");
    assert_nothing_left(&host);
}

#[test]
fn a_namespace_that_is_in_use_is_left_alone() {
    let Some(host) = Host::up("a_namespace_that_is_in_use_is_left_alone") else { return };
    let doc = host.acquire(1);
    let e = bench(&host, &["tap"]).failed_with(Code::Usage);
    assert!(e.message.contains("`bg-0`") && e.hint.unwrap().contains("pipelines/in-netns bg-bench tap"));
    assert_eq!(host.ls()[0]["tap"], doc["net"]["tap"]);
    host.down(&["--force"]);
    host.netns.ok("ip tuntap add eth7 mode tap");
    let e = bench(&host, &["tap"]).failed_with(Code::Usage);
    assert!(e.message.contains("`eth7`"), "{e:?}");
    assert_eq!(host.netns.links(), ["eth7"]);
    assert!(!host.sandbox.path("net").exists() || children(&host.sandbox.path("net")).is_empty());
}

#[test]
fn a_signal_ends_it_and_nothing_is_left() {
    let Some(host) = Host::new("a_signal_ends_it_and_nothing_is_left") else { return };
    for (signal, code) in [(Signal::SIGINT, Code::Interrupted), (Signal::SIGTERM, Code::Terminated)] {
        let events = host.sandbox.path(&format!("events-{signal}"));
        let mut command = host.netns.tool(&host.sandbox, "bg-bench", &["tap", "--runs", "1000"]);
        let mut child = command.env("BG_EVENTS", &events).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !std::fs::read_to_string(&events).unwrap_or_default().contains(r#""stage":"up""#) {
            assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "it did not begin");
            std::thread::yield_now();
        }
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        finish(child, b"").failed_with(code);
        assert_nothing_left(&host);
    }
}
