//! A VM's address and TAP, from the loan to the return.

use super::{Host, id, machine};
use crate::support::fixture::{self, FOREIGN};
use lib_common::error::Code;
use serde_json::{Value, json};

#[test]
fn a_tap_is_lent_shown_and_taken_back() {
    let Some(host) = Host::up("a_tap_is_lent_shown_and_taken_back") else { return };
    let doc = host.acquire(7);
    let tap = doc["net"]["tap"].as_str().unwrap();
    let expected = json!({"netns": doc["net"]["netns"], "bridge": "bg-0", "tap": tap, "mac": "02:00:00:00:07:00",
        "address": "172.16.224.2/20", "gateway": "172.16.224.1"});
    assert_eq!(doc["net"], expected);
    let link = host.link(tap);
    assert_eq!(link["ifalias"], format!("banger:vm:{}:172.16.224.2", id(7)));
    assert_eq!((&link["master"], &link["linkinfo"]["info_data"]["type"]), (&"bg-0".into(), &"tap".into()));
    assert_eq!(link["linkinfo"]["info_data"]["persist"], true);
    assert!(link["flags"].as_array().unwrap().contains(&"UP".into()), "{link}");
    let [listed] = &host.ls()[..] else { panic!("{:?}", host.ls()) };
    let expected = json!({"api_version": "banger/v1", "kind": "Tap", "tap": tap, "machine_id": id(7),
        "address": "172.16.224.2", "owner_uid": 0, "open": false});
    assert_eq!(*listed, expected);
    host.tap(&["down"], "").failed_with(Code::InUse);
    let released = host.tap(&["release"], doc.to_string()).json();
    assert_eq!((&released["net"]["tap"], &released["net"]["address"]), (&Value::Null, &doc["net"]["address"]));
    assert_eq!(host.idle(), [tap], "it is kept for the next VM");
    host.down(&[]);
}

#[test]
fn foreign_sections_come_out_as_they_went_in() {
    let Some(host) = Host::up("foreign_sections_come_out_as_they_went_in") else { return };
    let acquired = host.tap(&["acquire"], fixture::with_foreign(&machine(1))).ok();
    assert!(acquired.contains(FOREIGN), "{acquired}");
    let released = host.tap(&["release"], acquired).ok();
    assert!(released.contains(FOREIGN), "{released}");
    let wrong = machine(1).replace('}', r#","net":{"netns":1,"brigde":"bg-0"}}"#);
    for verb in ["acquire", "release"] {
        let e = host.tap(&[verb], &wrong).failed_with(Code::BadDocument);
        assert!(e.hint.as_ref().is_some_and(|h| h.contains("`bridge`")), "{verb}: {e:?}");
    }
    host.down(&["--force"]);
}

#[test]
fn what_a_vm_has_it_keeps() {
    let Some(host) = Host::up("what_a_vm_has_it_keeps") else { return };
    let first = host.acquire(1);
    let again = host.tap(&["acquire"], first.to_string()).json();
    assert_eq!(again["net"], first["net"], "a second loan is the same one");
    let stopped = host.tap(&["release"], again.to_string()).json();
    let other = host.acquire(2);
    assert_ne!(other["net"]["address"], first["net"]["address"], "a stopped VM keeps its address");
    let started = host.tap(&["acquire"], stopped.to_string()).json();
    for field in ["address", "mac", "bridge", "gateway"] {
        assert_eq!(started["net"][field], first["net"][field], "{field}");
    }
    host.down(&["--force"]);
}

#[test]
fn giving_back_twice_is_once() {
    let Some(host) = Host::up("giving_back_twice_is_once") else { return };
    let doc = host.acquire(1).to_string();
    for _ in 0..2 {
        host.tap(&["release"], &doc).ok();
    }
    let next = host.acquire(2);
    assert_eq!(next["net"]["tap"], "tap-pool-1", "the one that came back");
    // A late return of the first VM is not the second one's.
    host.tap(&["release"], &doc).ok();
    assert_eq!(host.ls()[0]["machine_id"], id(2));
    let gone = host.tap(&["release", "--with-address"], &doc).json();
    assert_eq!(gone["net"], Value::Null);
    assert_eq!(host.ls().len(), 1, "its address is free");
    host.tap(&["release", "--tap", "tap-pool-1", "--with-address"], "").ok();
    assert_eq!(host.ls(), Vec::<Value>::new());
    host.tap(&["release", "--tap", "tap-pool-1"], "").ok();
    host.tap(&["release", "--tap", "tap-pool-999"], "").ok();
    host.tap(&["release", "--tap", "eth0"], "").failed_with(Code::BadValue);
    host.down(&[]);
    host.tap(&["release"], &doc).ok();
}

#[test]
fn a_tap_comes_back_clean() {
    let Some(host) = Host::up("a_tap_comes_back_clean") else { return };
    let doc = host.acquire(1);
    let tap = doc["net"]["tap"].as_str().unwrap();
    host.netns.ok(&format!("ip addr add 192.0.2.7/32 dev {tap}"));
    host.netns.ok(&format!("ip addr add 2001:db8::7/64 dev {tap}"));
    host.netns.ok("ip neigh add 172.16.224.2 lladdr 02:00:00:00:00:09 dev bg-0");
    host.netns.ok("ip neigh add 172.16.224.3 lladdr 02:00:00:00:00:0a dev bg-0");
    host.netns.ok(&format!("ip link set {tap} group 77"));
    host.tap(&["release"], doc.to_string()).ok();
    assert_eq!(host.netns.ok(&format!("ip -o addr show dev {tap}")), "");
    let neighbours = host.netns.ok("ip neigh show dev bg-0");
    assert!(!neighbours.contains("172.16.224.2 ") && neighbours.contains("172.16.224.3 "), "{neighbours}");
    let link = host.link(tap);
    assert_eq!((&link["ifalias"], &link["group"]), (&"banger:pool".into(), &"default".into()));
    host.down(&[]);
}

#[test]
fn a_tap_that_a_program_has_open_is_kept() {
    let test = "a_tap_that_a_program_has_open_is_kept";
    let Some(host) = Host::up(test).filter(|_| crate::support::has_strace(test)) else { return };
    let doc = host.acquire(1);
    let tap = doc["net"]["tap"].as_str().unwrap();
    let mut holder = host.hold(tap);
    let e = host.tap(&["release"], doc.to_string()).failed_with(Code::InUse);
    assert!(e.message.contains(tap) && e.hint.unwrap().contains("stop"), "{}", e.message);
    holder.kill().unwrap();
    holder.wait().unwrap();
    host.wait_until_open(tap, false);
    host.tap(&["release"], doc.to_string()).ok();
    host.down(&[]);
}

#[test]
fn a_tap_of_another_namespace_is_left_to_that_and_gone_with_it() {
    let test = "a_tap_of_another_namespace_is_left_to_that_and_gone_with_it";
    let (Some(host), Some(other)) = (Host::up(test), Host::up(test)) else { return };
    let doc = other.acquire(1).to_string();
    let e = host.tap(&["release"], &doc).failed_with(Code::NotFound);
    assert!(e.message.contains("another network namespace") && e.hint.unwrap().contains("nsenter"));
    drop(other);
    assert_eq!(host.tap(&["release"], &doc).json()["net"]["tap"], Value::Null);
    // In a new namespace it gets its old address again.
    assert_eq!(host.tap(&["acquire"], &doc).json()["net"]["address"], "172.16.224.2/20");
    host.down(&["--force"]);
}

#[test]
fn without_a_network_there_is_a_hint() {
    let Some(host) = Host::new("without_a_network_there_is_a_hint") else { return };
    for args in [&["acquire"][..], &["ls"], &["pool", "ls"], &["pool", "drain"], &["pool", "fill", "1"]] {
        let e = host.tap(args, machine(1)).failed_with(Code::NotFound);
        assert!(e.hint.as_ref().is_some_and(|h| h.contains("bg-tap up")), "{args:?}: {e:?}");
    }
    host.down(&[]);
    host.sandbox.assert_untouched("refusals");
}

#[test]
fn a_vm_of_the_store_gives_back_by_its_name() {
    let Some(host) = Host::up("a_vm_of_the_store_gives_back_by_its_name") else { return };
    fixture::register(&host.sandbox, "debian");
    let plan = fixture::plan(&host.sandbox, "dev");
    let cloned = host.netns.run(&host.sandbox, "bg-seed", &["clone"], plan).ok();
    let doc = host.tap(&["acquire"], cloned).json();
    std::fs::write(host.sandbox.state("machines/dev/machine.json"), format!("{doc}\n")).unwrap();
    let released = host.tap(&["release", "dev"], "").json();
    assert_eq!(released["net"]["tap"], Value::Null);
    let record = std::fs::read_to_string(host.sandbox.state("machines/dev/machine.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!((&record["net"], &record["status"]), (&released["net"], &Value::Null));
    host.down(&[]);
}
