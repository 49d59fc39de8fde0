//! The host forwards for guests alone, and is no router when they are gone: whatever was lost meanwhile.

use super::Host;
use super::killed::at_every_step;
use crate::support::children;
use crate::support::has_strace;
use crate::support::netns::Namespace;
use serde_json::Value;

/// A host with an uplink, on which nothing is forwarded.
struct Gateway {
    host: Host,
    _world: Namespace,
}

impl Gateway {
    fn new(test: &str) -> Option<Self> {
        let host = Host::new(test)?;
        let world = host.netns.uplink(test, &[])?;
        Some(Gateway { host, _world: world })
    }

    fn forwards(&self) -> bool {
        let path = "/proc/sys/net/ipv4/conf/uplink/forwarding";
        self.host.netns.inside(|| std::fs::read_to_string(path).unwrap().trim() == "1")
    }

    /// Whether a rule keeps others than guests from the uplink.
    fn guards(&self) -> bool {
        self.host.netns.ok("nft list ruleset").contains(r#"iifname "uplink" drop"#)
    }

    fn lose(&self, what: &str) {
        let net = self.host.sandbox.path("net");
        if what.contains("record") {
            std::fs::remove_file(children(&net).pop().unwrap().join("network.json")).unwrap();
        }
        if what.contains("files") {
            std::fs::remove_dir_all(&net).unwrap();
        }
        if what.contains("bridge") {
            self.host.netns.ok("ip link delete bg-0");
        }
        if what.contains("rules") {
            self.host.netns.ok("nft flush ruleset");
        }
    }

    #[track_caller]
    fn assert_was_restored(&self, what: &str) {
        self.host.assert_bare();
        assert!(!self.forwards(), "{what}");
    }
}

/// What may be lost of a network while it is known what forwarding was.
const LOSSES: [&str; 7] =
    ["nothing", "bridge", "files", "record", "bridge and files", "bridge and record", "bridge and rules"];

#[test]
fn a_network_that_is_made_again_knows_what_forwarding_was() {
    let Some(gateway) = Gateway::new("a_network_that_is_made_again_knows_what_forwarding_was") else { return };
    let host = &gateway.host;
    for lost in LOSSES {
        host.tap(&["up", "--nat"], "").ok();
        assert!(gateway.forwards() && gateway.guards());
        gateway.lose(lost);
        host.tap(&["up", "--nat"], "").ok();
        assert!(gateway.forwards() && gateway.guards(), "{lost}");
        host.down(&[]);
        gateway.assert_was_restored(lost);
        // And where guests reach nothing any more.
        host.tap(&["up", "--nat"], "").ok();
        gateway.lose(lost);
        host.tap(&["up", "--no-nat"], "").ok();
        assert!(!gateway.forwards() && !gateway.guards(), "{lost}");
        host.down(&[]);
    }
}

#[test]
fn whoever_clears_a_network_up_restores_forwarding() {
    let Some(gateway) = Gateway::new("whoever_clears_a_network_up_restores_forwarding") else { return };
    let host = &gateway.host;
    for lost in LOSSES {
        host.tap(&["up", "--nat"], "").ok();
        gateway.lose(lost);
        host.down(&[]);
        gateway.assert_was_restored(lost);
        host.tap(&["up", "--nat"], "").ok();
        gateway.lose(lost);
        host.collect();
        if ["nothing", "record"].contains(&lost) {
            host.down(&[]);
        }
        gateway.assert_was_restored(lost);
    }
}

#[test]
fn forwarding_that_was_on_stays_on() {
    let Some(gateway) = Gateway::new("forwarding_that_was_on_stays_on") else { return };
    let host = &gateway.host;
    host.netns.inside(|| std::fs::write("/proc/sys/net/ipv4/conf/uplink/forwarding", "1").unwrap());
    for lost in LOSSES {
        host.tap(&["up", "--nat"], "").ok();
        gateway.lose(lost);
        host.tap(&["up", "--nat"], "").ok();
        assert!(!gateway.guards(), "{lost}");
        host.down(&[]);
        assert!(gateway.forwards(), "{lost}");
    }
}

#[test]
fn at_no_point_is_forwarding_on_without_the_rule_that_guards_it() {
    let test = "at_no_point_is_forwarding_on_without_the_rule_that_guards_it";
    let Some(gateway) = Gateway::new(test).filter(|_| has_strace(test)) else { return };
    let host = &gateway.host;
    let guarded = |args: &[&str]| assert!(gateway.guards() || !gateway.forwards(), "{args:?}");
    // A program is started by the one or the other, and settings of the kernel are written.
    for (before, args) in [("--no-nat", ["up", "--nat"]), ("--nat", ["up", "--no-nat"]), ("--nat", ["down", "--force"])]
    {
        let begin = || {
            host.tap(&["up", before], "").ok();
            String::new()
        };
        at_every_step(host, &["?vfork,?fork,clone,?clone3", "write", "rename", "unlinkat"], &args, begin, || {
            guarded(&args);
            host.down(&[]);
            gateway.assert_was_restored(&format!("{args:?}"));
        });
    }
}

#[test]
fn a_firewall_that_drops_what_guests_send_is_named_with_what_mends_it() {
    let Some(host) = Host::new("a_firewall_that_drops_what_guests_send_is_named_with_what_mends_it") else { return };
    let forward = || {
        let report: Value = host.netns.run(&host.sandbox, "bg-doctor", &[], "").documents().remove(0);
        let mut checks = report["checks"].as_array().unwrap().iter();
        checks.find(|check| check["name"] == "forward").unwrap().clone()
    };
    assert!(forward()["fix"].is_null());
    host.netns.ok("nft add table ip filter");
    let chain = "{ type filter hook forward priority 0 ; policy drop ; }";
    let done = host.netns.command("nft", &["add", "chain", "ip", "filter", "FORWARD", chain]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let check = forward();
    assert!(check["ok"] == true && check["message"].as_str().unwrap().contains("FORWARD"), "{check}");
    let fix = check["fix"].as_str().unwrap();
    assert!(host.netns.command("sh", &["-c", fix]).output().unwrap().status.success(), "{fix}");
    assert!(forward()["fix"].is_null(), "{}", host.netns.ok("nft list ruleset"));
}
