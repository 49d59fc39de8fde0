//! The network: made once, refused where it would be in the way, and gone afterwards.

use super::Host;
use lib_common::error::Code;
use serde_json::json;

#[test]
fn up_and_down_can_be_said_again() {
    let Some(host) = Host::new("up_and_down_can_be_said_again") else { return };
    let mut first = host.tap(&["up"], "").json();
    let second = host.tap(&["up"], "").json();
    first["timings"] = second["timings"].clone();
    assert_eq!(first, second);
    let expected = json!({"api_version": "banger/v1", "kind": "Network", "netns": first["netns"], "bridge": "bg-0",
        "subnet": "172.16.224.0/20", "gateway": "172.16.224.1", "nat": false,
        "pool": {"idle": 0, "busy": 0, "target": 0}, "timings": first["timings"]});
    assert_eq!(first, expected);
    let e = host.tap(&["up", "--subnet", "10.0.0.0/24"], "").failed_with(Code::Exists);
    assert!(e.message.contains("172.16.224.0/20"), "{e:?}");
    host.down(&[]);
    host.down(&[]);
    let mut other = host.netns.tool(&host.sandbox, "bg-tap", &["up"]);
    let done = crate::support::finish(other.env("BG_SUBNET", "10.99.0.0/24").spawn().unwrap(), b"");
    assert_eq!(done.json()["gateway"], "10.99.0.1");
    host.down(&[]);
}

#[test]
fn a_network_in_the_way_is_named_before_anything_is_made() {
    let Some(host) = Host::new("a_network_in_the_way_is_named_before_anything_is_made") else { return };
    for (begin, words, end) in [
        ("ip addr add 172.16.230.9/24 dev lo", ["172.16.230.9/24", "`lo`"], "ip addr del 172.16.230.9/24 dev lo"),
        ("ip route add 172.16.0.0/16 dev lo", ["172.16.0.0/16", "`lo`"], "ip route del 172.16.0.0/16 dev lo"),
        ("ip route add blackhole 172.16.239.0/25", ["172.16.239.0/25", ""], "ip route del blackhole 172.16.239.0/25"),
    ] {
        host.netns.ok(begin);
        let e = host.tap(&["up"], "").failed_with(Code::Exists);
        assert!(words.iter().all(|word| e.message.contains(word)), "{begin}: {e:?}");
        assert!(e.hint.unwrap().contains("--subnet"));
        assert_eq!(host.netns.links(), Vec::<String>::new());
        host.sandbox.assert_untouched(begin);
        host.netns.ok(end);
    }
    host.netns.ok("ip addr add 10.0.0.1/8 dev lo");
    host.tap(&["up"], "").ok();
    host.down(&[]);
}

#[test]
fn an_interface_that_has_the_bridges_name_is_left_alone() {
    let Some(host) = Host::new("an_interface_that_has_the_bridges_name_is_left_alone") else { return };
    host.netns.ok("ip tuntap add bg-0 mode tap");
    let e = host.tap(&["up"], "").failed_with(Code::Exists);
    assert!(e.message.contains("`bg-0`"), "{e:?}");
    host.tap(&["down"], "").ok();
    assert_eq!(host.netns.links(), ["bg-0"]);
}

#[test]
fn state_that_is_lost_comes_back_from_the_kernel() {
    let Some(host) = Host::up("state_that_is_lost_comes_back_from_the_kernel") else { return };
    let (first, second) = (host.acquire(1), host.acquire(2));
    host.tap(&["release"], second.to_string()).ok();
    std::fs::remove_dir_all(host.sandbox.path("net")).unwrap();
    let network = host.tap(&["up"], "").json();
    assert_eq!(network["pool"], json!({"idle": 1, "busy": 1, "target": 0}));
    assert_eq!(host.ls()[0]["address"], "172.16.224.2");
    let third = host.acquire(3);
    assert_ne!(third["net"]["address"], first["net"]["address"]);
    assert_eq!(third["net"]["tap"], "tap-pool-2");
    // And a bridge that somebody removed.
    host.netns.ok("ip link delete bg-0");
    let e = host.tap(&["acquire"], super::machine(4)).failed_with(Code::NotFound);
    assert!(e.hint.unwrap().contains("bg-tap up"));
    host.tap(&["up"], "").ok();
    assert_eq!(host.link("tap-pool-1")["master"], "bg-0");
    host.acquire(4);
    // Everything gone but what the kernel has.
    std::fs::remove_dir_all(host.sandbox.path("net")).unwrap();
    host.tap(&["down"], "").failed_with(Code::InUse);
    host.down(&["--force"]);
}

#[test]
fn rules_that_were_flushed_come_back_with_the_next_vm() {
    let test = "rules_that_were_flushed_come_back_with_the_next_vm";
    let Some(host) = Host::new(test) else { return };
    let Some(_world) = host.netns.uplink(test, &[]) else { return };
    for up in ["--no-nat", "--nat"] {
        host.tap(&["up", up], "").ok();
        let made = host.netns.ok("nft list ruleset");
        host.netns.ok("nft flush ruleset");
        host.acquire(1);
        assert_eq!(host.netns.ok("nft list ruleset"), made);
        if up == "--nat" {
            host.tap(&["acquire"], super::reach::with_nat(2)).ok();
            let made = host.netns.ok("nft list ruleset");
            host.netns.ok("nft flush ruleset");
            // With the guests that had one before.
            let doc = host.tap(&["acquire"], super::reach::with_nat(3)).ok();
            host.tap(&["release"], doc).ok();
            assert_eq!(host.netns.ok("nft list ruleset"), made);
        }
        host.down(&["--force"]);
    }
}
