//! TAPs that are made ahead.

use super::{Host, machine, stages};
use lib_common::error::Code;
use serde_json::json;

#[test]
fn an_idle_tap_is_taken_and_another_one_made() {
    let Some(host) = Host::up("an_idle_tap_is_taken_and_another_one_made") else { return };
    let cold = host.acquire(1);
    assert!(stages(&cold).contains(&"create_tap"), "a miss shows: {:?}", stages(&cold));
    let network = host.tap(&["pool", "fill", "2"], "").json();
    assert_eq!(network["pool"], json!({"idle": 2, "busy": 1, "target": 2}));
    let before = host.idle();
    let warm = host.acquire(2);
    assert!(!stages(&warm).contains(&"create_tap"), "{:?}", stages(&warm));
    assert!(before.contains(&warm["net"]["tap"].as_str().unwrap().to_owned()));
    assert_eq!(host.idle().len(), 2, "whoever took one made one");
    let network = host.tap(&["pool", "drain"], "").json();
    assert_eq!(network["pool"], json!({"idle": 0, "busy": 2, "target": 0}));
    assert!(stages(&host.acquire(3)).contains(&"create_tap"));
    assert_eq!(host.idle(), Vec::<String>::new(), "none is kept any more");
    host.down(&["--force"]);
}

#[test]
fn a_tap_that_the_file_calls_idle_and_is_not_is_passed_over() {
    let Some(host) = Host::up("a_tap_that_the_file_calls_idle_and_is_not_is_passed_over") else { return };
    host.tap(&["pool", "fill", "3"], "").ok();
    host.netns.ok("ip link delete tap-pool-1");
    host.netns.ok("ip link set tap-pool-2 alias somebody-elses");
    assert_eq!(host.acquire(1)["net"]["tap"].as_str(), Some("tap-pool-3"));
    let next = host.acquire(2);
    assert!(next["net"]["tap"] != "tap-pool-2", "{next}");
    assert_eq!(host.link("tap-pool-2")["ifalias"], "somebody-elses");
    host.tap(&["down", "--force"], "").ok();
    assert_eq!(host.netns.links(), ["tap-pool-2"], "nobody removes what is not ours");
}

#[test]
fn a_full_bridge_says_so() {
    let Some(host) = Host::up("a_full_bridge_says_so") else { return };
    // A port of somebody else takes one of the 1,023 places.
    host.netns.ok("ip tuntap add other mode tap");
    host.netns.ok("ip link set other master bg-0");
    let e = host.tap(&["pool", "fill", "1023"], "").failed_with(Code::InUse);
    assert!(e.message.contains("`bg-0` is full: 1023 ports"), "{e:?}");
    assert_eq!(host.idle().len(), 1022, "what could be made stays");
    let doc = host.acquire(1);
    host.tap(&["pool", "drain"], "").ok();
    assert_eq!(host.netns.links().len(), 3, "bridge, the VM's, and the other one");
    host.netns.ok("ip link delete other");
    host.tap(&["pool", "fill", "1022"], "").ok();
    let e = host.tap(&["acquire", "--owner", "nobody"], machine(2)).failed_with(Code::InUse);
    assert!(e.hint.unwrap().contains("bg-tap release"));
    assert_eq!(host.ls().len(), 1, "the address went back");
    host.tap(&["release"], doc.to_string()).ok();
    host.down(&[]);
}

#[test]
fn a_count_is_a_number_of_ports() {
    let Some(host) = Host::up("a_count_is_a_number_of_ports") else { return };
    host.tap(&["pool", "fill", "1024"], "").failed_with(Code::Usage);
    host.tap(&["pool", "fill", "-1"], "").failed_with(Code::Usage);
    host.down(&[]);
}
