//! VMs with a network card, on a VMM that does not start: what they were lent comes back, whoever is killed when.

use super::Host;
use super::audit::stored;
use crate::killed::killed_after;
use crate::support::finish;
use crate::support::fixture::{self, WORK};
use serde_json::Value;
use std::process::Command;

/// `bg-vm create` of a VM that cannot start.
fn create(host: &Host) -> Command {
    let mut command = host.netns.tool(&host.sandbox, "bg-vm", &["create", "dev", "--net", "--work-size", WORK]);
    command.env("BG_QEMU", "/bin/false").env("BG_VHOST_DEVICE_VSOCK", "/bin/false");
    command
}

fn leaks(host: &Host) -> Vec<Value> {
    let found = host.netns.run(&host.sandbox, "bg-verify", &["--now"], "").documents();
    found.into_iter().filter(|f| f["is_leak"] == true).collect()
}

#[test]
fn a_creation_that_fails_gives_back_what_it_was_lent() {
    let Some(host) = Host::new("a_creation_that_fails_gives_back_what_it_was_lent") else { return };
    fixture::register(&host.sandbox, "debian");
    let failed = finish(create(&host).spawn().unwrap(), b"");
    assert_eq!(failed.failed().exit, 69, "{failed:?}");
    assert_eq!(host.ls(), Vec::<Value>::new(), "neither TAP nor address");
    assert_eq!(host.idle(), ["tap-pool-1"], "it came to have one, and made the network for it");
    assert_eq!(leaks(&host), Vec::<Value>::new());
    host.down(&[]);
}

#[test]
fn a_vm_with_nat_on_a_host_without_a_default_route_is_refused_with_a_way_out() {
    let test = "a_vm_with_nat_on_a_host_without_a_default_route_is_refused_with_a_way_out";
    let Some(host) = Host::new(test) else { return };
    fixture::register(&host.sandbox, "debian");
    let hint = "give the host one: ip route add default via GATEWAY, or make the VM without --nat";
    for up in [false, true] {
        if up {
            host.tap(&["up", "--no-nat"], "").ok();
        }
        let created = host.netns.run(&host.sandbox, "bg-vm", &["create", "dev", "--nat", "--work-size", WORK], "");
        let e = created.failed_with(lib_common::Code::NotFound);
        assert_eq!(e.hint.as_deref(), Some(hint), "{e:?}");
    }
    host.down(&[]);
}

/// A VM of the store that has a card and never ran.
fn create_at_rest(host: &Host) {
    fixture::register(&host.sandbox, "debian");
    let words = ["create", "dev", "--no-start", "--net", "--work-size", WORK];
    host.netns.run(&host.sandbox, "bg-vm", &words, "").ok();
}

#[test]
fn a_first_start_that_fails_gives_back_what_it_was_lent() {
    let Some(host) = Host::new("a_first_start_that_fails_gives_back_what_it_was_lent") else { return };
    create_at_rest(&host);
    for _ in 0..2 {
        let mut start = host.netns.tool(&host.sandbox, "bg-vm", &["start", "dev"]);
        start.env("BG_QEMU", "/bin/false").env("BG_VHOST_DEVICE_VSOCK", "/bin/false");
        assert_eq!(finish(start.spawn().unwrap(), b"").failed().exit, 69);
        assert_eq!(host.ls(), Vec::<Value>::new(), "its record does not tell of an address");
    }
    host.netns.run(&host.sandbox, "bg-vm", &["rm", "dev"], "").ok();
    host.down(&[]);
}

#[test]
fn a_vm_that_is_removed_leaves_no_address_of_which_its_record_does_not_tell() {
    let test = "a_vm_that_is_removed_leaves_no_address_of_which_its_record_does_not_tell";
    let Some(host) = Host::up(test) else { return };
    create_at_rest(&host);
    let record = std::fs::read_to_string(host.sandbox.state("machines/dev/machine.json")).unwrap();
    let lent = host.tap(&["acquire"], &record).ok();
    host.tap(&["release"], lent).ok();
    host.acquire(2);
    assert_eq!(host.ls().len(), 2);
    host.netns.run(&host.sandbox, "bg-vm", &["rm", "dev"], "").ok();
    let left = host.ls();
    assert_eq!((left.len(), &left[0]["machine_id"]), (1, &super::id(2).into()));
    // The VM of another user that has its id, as a document may say whatever its writer likes.
    host.netns.run(&host.sandbox, "bg-vm", &["create", "dev", "--no-start", "--net", "--work-size", WORK], "").ok();
    let record = std::fs::read_to_string(host.sandbox.state("machines/dev/machine.json")).unwrap();
    host.tap(&["acquire", "--owner", "nobody"], &record).ok();
    let before = host.ls();
    host.netns.run(&host.sandbox, "bg-vm", &["rm", "dev"], "").ok();
    assert_eq!(host.ls(), before, "what is another user's stays his");
    host.down(&["--force"]);
}

#[test]
fn a_creation_that_is_killed_after_whichever_stage_keeps_no_tap() {
    let Some(host) = Host::new("a_creation_that_is_killed_after_whichever_stage_keeps_no_tap") else { return };
    fixture::register(&host.sandbox, "debian");
    let mut lent = 0;
    for events in 1.. {
        let killed = killed_after(&host.sandbox, create(&host), "", events);
        if host.sandbox.path("net").exists() && host.netns.links().iter().any(|link| link == "bg-0") {
            lent += usize::from(!host.ls().is_empty());
        }
        let found = host.netns.run(&host.sandbox, "bg-verify", &["--now"], "");
        host.netns.run(&host.sandbox, "bg-gc", &["--now"], &found.stdout).ok();
        assert_eq!(leaks(&host), Vec::<Value>::new(), "after {events} events");
        host.tap(&["up"], "").ok();
        assert_eq!(host.ls(), Vec::<Value>::new(), "after {events} events");
        if !killed {
            assert!(events > 10 && lent > 2, "{lent} of {events} came after it had a TAP");
            break;
        }
    }
    host.down(&[]);
}

#[test]
fn a_card_is_had_by_whoever_may() {
    let Some(host) = Host::new("a_card_is_had_by_whoever_may") else { return };
    fixture::register(&host.sandbox, "debian");
    let net = |setting: &str, args: &[&str]| {
        let mut command = host.netns.tool(&host.sandbox, "bg-vm", &[&["plan", "dev"], args].concat());
        finish(command.env("BG_NET", setting).spawn().unwrap(), b"").json()["spec"]["net"].clone()
    };
    for (setting, args, card) in [
        ("auto", &[][..], true),
        ("on", &[], true),
        ("off", &[], false),
        ("off", &["--net"], true),
        ("on", &["--no-net"], false),
        ("off", &["--nat"], true),
    ] {
        assert_eq!(net(setting, args), card, "{setting} {args:?}");
    }
    let e = host.netns.run(&host.sandbox, "bg-vm", &["plan", "dev", "--nat", "--no-net"], "").failed();
    assert_eq!(e.exit, 64, "{e:?}");
    assert_eq!(host.netns.links(), Vec::<String>::new(), "a plan changes nothing");
}

#[test]
fn a_vm_of_another_namespace_is_stopped_and_removed_all_the_same() {
    let Some(host) = Host::up("a_vm_of_another_namespace_is_stopped_and_removed_all_the_same") else { return };
    let doc = stored(&host);
    let stopped = host.sandbox.run("bg-vm", &["stop", "dev"], "").json();
    assert_eq!(stopped["net"], doc["net"], "nobody here can say what became of its TAP");
    let removed = host.sandbox.run("bg-vm", &["rm", "dev"], "");
    assert!(removed.exit == 0 && removed.stderr.contains("another network namespace"), "{removed:?}");
    assert_eq!(leaks(&host).len(), 1, "the audit there finds it");
    let found = host.netns.run(&host.sandbox, "bg-verify", &["--now"], "");
    host.netns.run(&host.sandbox, "bg-gc", &["--now"], &found.stdout).ok();
    assert_eq!(host.ls(), Vec::<Value>::new());
    host.down(&[]);
}
