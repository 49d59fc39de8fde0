//! Killed between any two steps: the next run goes on from there, and nothing is left that is nobody's.

use super::{Host, id, machine};
use crate::support::has_strace;
use crate::support::{finish, program};
use serde_json::Value;

/// Runs `bg-tap` and kills it before the call number `nth` of that system call. Says whether it got there.
fn killed_at(host: &Host, (call, nth): (&str, u32), args: &[&str], stdin: &str) -> bool {
    let inject = format!("inject={call}:signal=SIGKILL:when={nth}");
    let log = host.sandbox.path("strace").display().to_string();
    let mut words = vec!["-o", &log, "-e", &inject, program("bg-tap")];
    words.extend(args);
    let mut command = host.netns.command("strace", &words);
    command.env_clear().envs(host.sandbox.env()).current_dir(host.sandbox.path("home"));
    match finish(command.spawn().unwrap(), stdin.as_bytes()).exit {
        137 => true,
        0 => false,
        exit => panic!("{call} {nth}: {args:?} ended with {exit}"),
    }
}

/// Whatever changes something, and what may; and the end after the last one. All of them, in a full run.
const ALL: [&str; 16] = [
    "sendto",
    "ioctl",
    "pwrite64",
    "fcntl",
    "write",
    "openat",
    "mkdir",
    "ftruncate",
    "rename",
    "unlinkat",
    "unlink",
    "flock",
    "fsync",
    "fdatasync",
    "fchmod",
    "exit_group",
];

/// Every point at which it can be killed, and `then` after each.
pub(super) fn at_every_step(
    host: &Host,
    calls: &[&str],
    args: &[&str],
    stdin: impl Fn() -> String,
    mut then: impl FnMut(),
) {
    let calls = if std::env::var_os("BG_TEST_FULL").is_some() { &ALL[..] } else { calls };
    let mut points = 0;
    for call in calls {
        let mut nth = 1;
        while killed_at(host, (call, nth), args, &stdin()) {
            println!("{args:?}, killed at {call} {nth}");
            then();
            (nth, points) = (nth + 1, points + 1);
        }
        // The run that nobody killed.
        then();
    }
    assert!(points > calls.len(), "{points} points");
}

#[test]
fn up_goes_on_where_it_was_killed() {
    let test = "up_goes_on_where_it_was_killed";
    let Some(host) = Host::new(test).filter(|_| has_strace(test)) else { return };
    let calls = ["mkdir", "sendto", "ftruncate"];
    at_every_step(&host, &calls, &["up"], String::new, || {
        let network = host.tap(&["up"], "").json();
        assert_eq!(network["gateway"], "172.16.224.1");
        assert_eq!(host.acquire(1)["net"]["address"], "172.16.224.2/20");
        host.down(&["--force"]);
    });
}

#[test]
fn down_goes_on_where_it_was_killed() {
    let test = "down_goes_on_where_it_was_killed";
    let Some(host) = Host::up(test).filter(|_| has_strace(test)) else { return };
    host.tap(&["pool", "fill", "2"], "").ok();
    at_every_step(&host, &["sendto", "unlinkat"], &["down"], String::new, || {
        host.down(&[]);
        host.tap(&["up"], "").ok();
        host.tap(&["pool", "fill", "2"], "").ok();
    });
    host.down(&[]);
}

/// Every TAP is idle, or names the VM, and can be given back.
fn give_all_back(host: &Host) {
    for tap in host.ls().iter().filter(|tap| tap["tap"] != Value::Null) {
        assert_eq!(tap["machine_id"], id(1));
        host.tap(&["release", "--with-address", "--tap", tap["tap"].as_str().unwrap()], "").ok();
    }
    let taps = host.netns.links().iter().filter(|name| name.starts_with("tap-")).count();
    assert_eq!(taps, host.idle().len());
}

#[test]
fn a_loan_that_was_killed_is_the_vms_or_nobodys() {
    let test = "a_loan_that_was_killed_is_the_vms_or_nobodys";
    let Some(host) = Host::up(test).filter(|_| has_strace(test)) else { return };
    let calls = ["sendto", "ioctl", "pwrite64", "fcntl", "write"];
    for target in ["0", "1"] {
        host.tap(&["pool", "drain"], "").ok();
        host.tap(&["pool", "fill", target], "").ok();
        at_every_step(
            &host,
            &calls,
            &["acquire"],
            || machine(1),
            || {
                let doc = host.acquire(1);
                let taps: Vec<Value> = host.ls().into_iter().map(|tap| tap["tap"].clone()).collect();
                assert_eq!(taps, [doc["net"]["tap"].clone()], "the VM has one TAP, the one that it was told of");
                give_all_back(&host);
                host.tap(&["release", "--with-address"], doc.to_string()).ok();
                assert_eq!(host.ls(), Vec::<Value>::new());
                host.tap(&["pool", "drain"], "").ok();
                host.tap(&["pool", "fill", target], "").ok();
            },
        );
    }
    host.down(&[]);
}

#[test]
fn a_return_that_was_killed_can_be_repeated() {
    let test = "a_return_that_was_killed_can_be_repeated";
    let Some(host) = Host::up(test).filter(|_| has_strace(test)) else { return };
    let doc = std::cell::RefCell::new(host.acquire(1));
    let calls = ["sendto", "pwrite64", "fcntl"];
    at_every_step(
        &host,
        &calls,
        &["release", "--with-address"],
        || doc.borrow().to_string(),
        || {
            host.tap(&["release", "--with-address"], doc.borrow().to_string()).ok();
            assert_eq!((host.ls().len(), host.idle().len()), (0, 1));
            *doc.borrow_mut() = host.acquire(1);
        },
    );
    host.down(&["--force"]);
}

/// Every point at which a verb can be killed, and the audit after it: no leak is left, and a network can be made and used.
fn is_cleared(host: &Host, calls: &[&str], args: &[&str], stdin: impl Fn() -> String) {
    let begin = || {
        host.tap(&["up"], "").ok();
        host.tap(&["pool", "fill", "2"], "").ok();
    };
    let bystander = (!matches!(args, ["up" | "down"])).then(|| {
        begin();
        host.bystander()
    });
    if args == ["down"] {
        begin();
    }
    at_every_step(host, calls, args, stdin, || {
        host.collect();
        begin();
        let doc = host.acquire(2).to_string();
        host.tap(&["release", "--with-address"], doc).ok();
        assert_eq!((host.others(), host.collect()), (vec![], vec![]));
        bystander.iter().for_each(|vm| vm.assert_untouched(host, &format!("{args:?}")));
        if args == ["up"] {
            host.down(&[]);
        }
    });
    bystander.into_iter().for_each(|vm| vm.end(host));
    host.down(&["--force"]);
}

#[test]
fn whatever_was_killed_the_audit_clears() {
    let test = "whatever_was_killed_the_audit_clears";
    let Some(host) = Host::new(test).filter(|_| has_strace(test)) else { return };
    let calls = ["sendto", "ioctl", "pwrite64", "fcntl", "unlinkat"];
    let full = std::env::var_os("BG_TEST_FULL").is_some();
    for (args, calls) in [
        (&["up"][..], &["mkdir", "sendto", "rename"][..]),
        (&["acquire"], if full { &calls[..4] } else { &calls[..2] }),
        (&["pool", "fill", "4"], if full { &calls[..4] } else { &calls[1..2] }),
        (&["pool", "drain"], if full { &["sendto", "pwrite64", "fcntl"] } else { &calls[..1] }),
        (&["down"], &["sendto", "unlinkat"]),
    ] {
        is_cleared(&host, calls, args, || machine(1));
    }
    let (lent, host) = (std::cell::Cell::new(0), &host);
    let stdin = || {
        lent.set(lent.get() + 1);
        host.acquire(2 + lent.get()).to_string()
    };
    is_cleared(host, &["sendto", "pwrite64"], &["release", "--with-address"], stdin);
}
