//! Networks that are not the ones that their files tell of: a bridge that has another name by now, and files that a
//! namespace left which had this one's inode.

use super::{Host, machine};
use crate::support::children;
use crate::support::netns::Namespace;
use lib_common::error::Code;
use std::os::unix::fs::MetadataExt;

fn inode(netns: &Namespace) -> u64 {
    std::fs::metadata(format!("/proc/{}/ns/net", netns.pid())).unwrap().ino()
}

/// The index of an interface.
fn index(host: &Host, name: &str) -> u64 {
    host.link(name)["ifindex"].as_u64().unwrap()
}

/// A host whose files are those of another namespace, which had an address and a TAP lent, as after the inode came to this one.
fn with_files_of_another(test: &str) -> Option<(Host, String, u64)> {
    let (mut host, next) = (Host::up(test)?, Namespace::new(test)?);
    let doc = host.acquire(77).to_string();
    let (was, bridge) = (host.sandbox.path("net").join(inode(&host.netns).to_string()), index(&host, "bg-0"));
    std::fs::rename(was, host.sandbox.path("net").join(inode(&next).to_string())).unwrap();
    // The namespace of before ends.
    host.netns = next;
    Some((host, doc, bridge))
}

#[test]
fn a_bridge_that_was_renamed_gets_no_tap() {
    let Some(host) = Host::up("a_bridge_that_was_renamed_gets_no_tap") else { return };
    host.tap(&["pool", "fill", "1"], "").ok();
    let lent = host.acquire(1).to_string();
    let before = host.netns.links().len();
    for line in ["ip link set bg-0 down", "ip link set bg-0 name somebodys", "ip link set somebodys up"] {
        host.netns.ok(line);
    }
    for args in [&["acquire"][..], &["ls"], &["pool", "fill", "4"], &["release", "--tap", "tap-pool-1"]] {
        let e = host.tap(args, machine(2)).failed_with(Code::NotFound);
        assert!(e.message.contains("`bg-0`") && e.hint.unwrap().contains("bg-tap up"), "{args:?}: {}", e.message);
    }
    assert_eq!(host.netns.links().len(), before, "none was made");
    host.tap(&["release"], &lent).ok();
    // Its name back, it is the network's.
    for line in ["ip link set somebodys down", "ip link set somebodys name bg-0", "ip link set bg-0 up"] {
        host.netns.ok(line);
    }
    host.tap(&["release"], lent).ok();
    assert_eq!(host.idle().len(), 2);
    host.netns.ok("ip link set bg-0 name somebodys");
    host.tap(&["down", "--force"], "").ok();
    assert_eq!(host.netns.links(), ["somebodys"], "what has another name is left");
}

#[test]
fn what_a_namespace_left_is_not_the_next_ones_network() {
    let Some((host, doc, bridge)) = with_files_of_another("what_a_namespace_left_is_not_the_next_ones_network") else {
        return;
    };
    host.netns.ok(&format!("ip link add br0 index {bridge} type bridge"));
    for args in [&["acquire"][..], &["ls"], &["pool", "fill", "1"]] {
        let e = host.tap(args, machine(5)).failed_with(Code::NotFound);
        assert!(e.hint.as_ref().is_some_and(|h| h.contains("bg-tap up")), "{args:?}: {e:?}");
    }
    host.tap(&["release"], &doc).ok();
    assert_eq!(host.netns.links(), ["br0"]);
    host.tap(&["up"], "").ok();
    assert_eq!(host.ls(), Vec::<serde_json::Value>::new());
    assert_eq!(host.link("br0")["master"], serde_json::Value::Null);
    host.tap(&["down"], "").ok();
    assert_eq!((host.netns.links(), children(&host.sandbox.path("net"))), (vec!["br0".to_owned()], vec![]));
}

#[test]
fn what_a_namespace_left_is_not_taken_over_by_an_up_that_was_killed() {
    let test = "what_a_namespace_left_is_not_taken_over_by_an_up_that_was_killed";
    let Some((host, _, bridge)) = with_files_of_another(test) else { return };
    // As far as an `up` came that was killed before it had written anything.
    host.netns.ok(&format!("ip link add bg-0 index {bridge} type bridge"));
    host.tap(&["acquire"], machine(5)).failed_with(Code::NotFound);
    host.tap(&["up"], "").ok();
    assert_eq!(host.ls(), Vec::<serde_json::Value>::new(), "no VM of the namespace before has an address here");
    host.down(&[]);
}
