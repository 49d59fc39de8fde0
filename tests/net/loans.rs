//! What root lent for another user's VM, of which no store that root looks at knows: it stays while it is that VM's, and can be
//! taken back when it is nobody's.

use super::audit::{age, brief, dir};
use super::{Host, leaks, machine};
use lib_common::error::Code;
use serde_json::Value;
use std::os::unix::fs::FileExt;

fn lend_to_nobody(host: &Host, n: u32) -> Value {
    host.tap(&["acquire", "--owner", "nobody"], machine(n)).json()
}

/// Runs what a finding says is to be typed.
fn follow(host: &Host, found: &Value) {
    let words: Vec<&str> = found["fix"].as_str().unwrap().split(' ').collect();
    assert_eq!(words[0], "bg-tap", "{found}");
    host.tap(&words[1..], "").ok();
}

#[test]
fn an_address_that_nobody_gives_back_is_told_and_can_be_taken_back() {
    let Some(host) = Host::up("an_address_that_nobody_gives_back_is_told_and_can_be_taken_back") else { return };
    let doc = lend_to_nobody(&host, 1).to_string();
    let e = host.tap(&["release", "--address", "172.16.224.2"], "").failed_with(Code::InUse);
    assert!(e.message.contains("tap-pool-1") && e.hint.unwrap().contains("--tap tap-pool-1"), "{}", e.message);
    host.tap(&["release"], doc).ok();
    host.tap(&["pool", "drain"], "").ok();
    assert_eq!(host.verify(&["--now"]), Vec::<Value>::new(), "the VM may just be starting");
    age(&host, 2);
    let found = host.verify(&["--now"]);
    assert_eq!(brief(&found), [("lease", "172.16.224.2", false)]);
    assert_eq!(host.collect(), []);
    assert_eq!(host.ls().len(), 1, "the VM may only be stopped: a person decides");
    follow(&host, &found[0]);
    assert_eq!((host.ls(), host.verify(&["--now"])), (vec![], vec![]));
    host.tap(&["release", "--address", "172.16.224.2"], "").ok();
    for (address, code) in [("172.16.224.1", Code::BadValue), ("10.0.0.2", Code::BadValue), ("x", Code::Usage)] {
        host.tap(&["release", "--address", address], "").failed_with(code);
    }
    host.down(&[]);
}

#[test]
fn a_full_network_says_how_it_gets_empty() {
    let Some(host) = Host::new("a_full_network_says_how_it_gets_empty") else { return };
    host.tap(&["up", "--subnet", "10.9.9.0/29"], "").ok();
    for n in 1..6 {
        let doc = lend_to_nobody(&host, n).to_string();
        host.tap(&["release"], doc).ok();
    }
    let e = host.tap(&["acquire", "--owner", "nobody"], machine(6)).failed_with(Code::InUse);
    assert!(e.message.contains("every address"), "{e:?}");
    assert!(e.hint.as_ref().is_some_and(|h| h.contains("bg-tap release --address")), "{e:?}");
    host.tap(&["release", "--address", "10.9.9.4"], "").ok();
    assert_eq!(lend_to_nobody(&host, 6)["net"]["address"], "10.9.9.4/29");
    host.down(&["--force"]);
}

#[test]
fn a_tap_that_was_lent_to_another_user_is_his_vms_while_that_has_its_address() {
    let test = "a_tap_that_was_lent_to_another_user_is_his_vms_while_that_has_its_address";
    let Some(host) = Host::up(test) else { return };
    lend_to_nobody(&host, 1);
    host.tap(&["pool", "drain"], "").ok();
    age(&host, 2);
    let found = host.verify(&["--now"]);
    assert_eq!(brief(&found), [("tap", "tap-pool-1", false)], "the VM may be between stop and start");
    assert_eq!((host.collect(), host.ls().len()), (vec![], 1));
    follow(&host, &found[0]);
    assert_eq!(host.ls(), Vec::<Value>::new());
    // One of whose VM nobody knows any more: the address is not its.
    lend_to_nobody(&host, 2);
    age(&host, 3);
    let leases = std::fs::File::options().write(true).open(dir(&host).join("leases")).unwrap();
    leases.write_all_at(&[0; 16], 3 * 16).unwrap();
    assert_eq!(leaks(&host.verify(&[])).len(), 1);
    assert_eq!(host.collect(), [("tap".into(), "tap-pool-1".into())]);
    host.down(&[]);
}
