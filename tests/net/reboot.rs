//! A VM that loses its TAP while its guest runs: a VMM that is started again as root would make one, on no bridge.

use super::Host;
use crate::support::fixture::{self, WORK};
use crate::support::launched::{fake_firecracker, until};
use serde_json::Value;

/// A host with a VM `dev` that has a card, on a stand-in for Firecracker whose guest resets once it is told to.
fn running(host: &Host) -> (Value, std::path::PathBuf) {
    let fake = host.sandbox.path("fake");
    let _ = std::fs::remove_dir_all(&fake);
    std::fs::create_dir(&fake).unwrap();
    std::fs::copy(fake_firecracker(), fake.join("firecracker")).unwrap();
    std::fs::write(fake.join("mode"), "resets-once").unwrap();
    let words = ["create", "dev", "--net", "--work-size", WORK, "--vmm", "firecracker"];
    let mut create = host.netns.tool(&host.sandbox, "bg-vm", &words);
    create.env("BG_FIRECRACKER", fake.join("firecracker"));
    (crate::support::finish(create.spawn().unwrap(), b"").json(), fake.join("go"))
}

#[test]
fn a_guest_is_not_rebooted_without_its_own_tap() {
    let Some(host) = Host::up("a_guest_is_not_rebooted_without_its_own_tap") else { return };
    fixture::register(&host.sandbox, "debian");
    for (change, why) in [
        ("ip link delete TAP", "is gone"),
        ("ip link set TAP nomaster", "is not on its bridge"),
        ("ip link set TAP alias somebody", "is not this VM's any more"),
        ("ip link set TAP up", ""),
    ] {
        let (doc, go) = running(&host);
        let tap = doc["net"]["tap"].as_str().unwrap();
        let config = std::path::Path::new(doc["vmm"]["api"].as_str().unwrap()).with_file_name("firecracker.json");
        let config: Value = serde_json::from_str(&std::fs::read_to_string(config).unwrap()).unwrap();
        assert_eq!(config["network-interfaces"][0]["host_dev_name"], tap);
        host.netns.ok(&change.replace("TAP", tap));
        std::fs::write(go, "").unwrap();
        let status = || host.netns.run(&host.sandbox, "bg-vm", &["show", "dev"], "").json()["status"].take();
        if why.is_empty() {
            let log = host.sandbox.state("machines/dev/shim.log");
            until("it runs again", || std::fs::read_to_string(&log).unwrap().matches("1.10.1 runs").count() == 2);
            assert_eq!(status()["state"], "running");
        } else {
            until("it has ended", || status()["state"] == "crashed");
            let exit = status()["exit"]["status"].as_str().unwrap().to_owned();
            assert!(exit.contains(&format!("the VM's TAP `{tap}` {why}")), "{exit}");
        }
        assert!(change.contains("delete") != host.netns.links().iter().any(|link| link == tap), "{change}");
        host.netns.run(&host.sandbox, "bg-vm", &["rm", "--force", "dev"], "").ok();
        // What is not a VM's any more is nobody's to give back.
        if change.contains("alias") {
            host.netns.ok(&format!("ip link delete {tap}"));
        }
    }
}
