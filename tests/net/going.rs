//! `down` while somebody acquires: a VM that was told of its TAP has it, on a network that is whole.

use super::{Host, machine};
use crate::support::has_strace;
use crate::support::{Done, finish, program};
use lib_common::error::Code;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::process::Child;
use std::time::{Duration, Instant};

/// Runs `bg-tap`, which stops behind the call number `nth` of that system call. `meanwhile` is done then, or when it has ended
/// without one; then it goes on. Gives how it ended, and whether it was stopped.
fn stopped_at(
    host: &Host,
    (call, nth): (&str, u32),
    args: &[&str],
    stdin: &str,
    meanwhile: impl FnOnce(),
) -> (Done, bool) {
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=SIGSTOP:when={nth}"));
    let log = host.sandbox.path("strace").display().to_string();
    let _ = std::fs::remove_file(&log);
    let mut words = vec!["-o", &log, "-e", &trace, "-e", &inject, program("bg-tap")];
    words.extend(args);
    let file = host.sandbox.path("stdin");
    std::fs::write(&file, stdin).unwrap();
    let mut command = host.netns.command("strace", &words);
    command.env_clear().envs(host.sandbox.env()).current_dir(host.sandbox.path("home"));
    let mut child = command.stdin(std::fs::File::open(file).unwrap()).spawn().unwrap();
    let stopped = wait_until_stopped(&mut child, &log);
    meanwhile();
    if let Some(pid) = stopped {
        kill(pid, Signal::SIGCONT).unwrap();
    }
    (finish(child, b""), stopped.is_some())
}

/// The tool that this strace(1) traces, once it is stopped; `None` where it ends.
fn wait_until_stopped(strace: &mut Child, log: &str) -> Option<Pid> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while strace.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it neither stops nor ends");
        if std::fs::read_to_string(log).unwrap_or_default().contains("stopped by SIGSTOP") {
            let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", strace.id())).unwrap();
            return Some(Pid::from_raw(children.trim().parse().unwrap()));
        }
        std::thread::yield_now();
    }
    None
}

/// A VM has a TAP of a network that is whole, or there is no network and it was told so; never neither of both.
fn assert_either(host: &Host, what: &str, (acquired, removed): (&Done, &Done)) {
    let is = |done: &Done, code: Code| done.exit != 0 && done.failed().code == code.as_str();
    match (acquired.exit, removed.exit) {
        (0, 0) => panic!("{what}: the VM has {}, and the network is gone", acquired.text()),
        (0, _) => {
            assert!(is(removed, Code::InUse), "{what}: {removed:?}");
            let tap = acquired.json()["net"]["tap"].as_str().unwrap().to_owned();
            assert_eq!(host.link(&tap)["master"], "bg-0", "{what}");
            let damage: Vec<Value> =
                host.verify(&[]).into_iter().filter(|f| f["kind"] != "tap" && f["kind"] != "tap_pool").collect();
            assert_eq!(damage, Vec::<Value>::new(), "{what}");
        }
        (_, 0) => {
            // Of a network that goes between two steps a file may be missing.
            let fits = [Code::NotFound, Code::MissingFile, Code::Io].iter().any(|code| is(acquired, *code));
            assert!(fits, "{what}: {acquired:?}");
            host.assert_bare();
        }
        // Each has seen the other.
        (_, _) => assert!(is(acquired, Code::NotFound) && is(removed, Code::InUse), "{what}: {acquired:?} {removed:?}"),
    }
}

fn begin(host: &Host, idle: &str) {
    host.tap(&["down", "--force"], "").ok();
    host.tap(&["up"], "").ok();
    host.tap(&["pool", "fill", idle], "").ok();
}

#[test]
fn whoever_acquires_while_a_network_is_removed_keeps_it_or_gets_nothing() {
    let test = "whoever_acquires_while_a_network_is_removed_keeps_it_or_gets_nothing";
    let Some(host) = Host::new(test).filter(|_| has_strace(test)) else { return };
    let mut kept = 0;
    for (idle, call) in [("0", "sendto"), ("2", "sendto"), ("2", "?rename,renameat,renameat2")] {
        let mut nth = 1;
        loop {
            begin(&host, idle);
            let mut acquired = None;
            let acquire = || acquired = Some(host.tap(&["acquire"], machine(1)));
            let (removed, stopped) = stopped_at(&host, (call, nth), &["down"], "", acquire);
            if !stopped {
                break;
            }
            let what = format!("down, stopped at {call} {nth} with {idle} idle TAPs");
            let acquired = acquired.unwrap();
            assert_either(&host, &what, (&acquired, &removed));
            kept += u32::from(acquired.exit == 0);
            nth += 1;
        }
    }
    assert!(kept > 1, "nobody acquired in time");
    host.tap(&["down", "--force"], "").ok();
}

#[test]
fn a_network_that_is_removed_while_somebody_acquires_is_his_or_nobodys() {
    let test = "a_network_that_is_removed_while_somebody_acquires_is_his_or_nobodys";
    let Some(host) = Host::new(test).filter(|_| has_strace(test)) else { return };
    let mut gone = 0;
    for (idle, call) in [("0", "sendto"), ("0", "ioctl"), ("2", "sendto"), ("2", "pwrite64")] {
        let mut nth = 1;
        loop {
            begin(&host, idle);
            let mut removed = None;
            let remove = || removed = Some(host.tap(&["down"], ""));
            let (acquired, stopped) = stopped_at(&host, (call, nth), &["acquire"], &machine(1), remove);
            if !stopped {
                break;
            }
            let what = format!("acquire, stopped at {call} {nth} with {idle} idle TAPs");
            let removed = removed.unwrap();
            assert_either(&host, &what, (&acquired, &removed));
            gone += u32::from(removed.exit == 0);
            nth += 1;
        }
    }
    assert!(gone > 1, "the network was never removed in time");
    host.tap(&["down", "--force"], "").ok();
}

#[test]
fn a_network_whose_removal_was_refused_is_as_it_was() {
    let Some(host) = Host::up("a_network_whose_removal_was_refused_is_as_it_was") else { return };
    let doc = host.acquire(1);
    let files = |host: &Host| {
        let dir = crate::support::children(&host.sandbox.path("net")).pop().unwrap();
        crate::support::children(&dir)
    };
    let before = files(&host);
    host.tap(&["down"], "").failed_with(Code::InUse);
    assert_eq!(files(&host), before);
    host.tap(&["release"], doc.to_string()).ok();
    host.down(&[]);
}
