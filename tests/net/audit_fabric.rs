//! `bg-verify` and `bg-gc`: bridges, rules, the files of namespaces, and what lies in a guests' network.

use super::{Host, leaks, machine};
use crate::support::has_strace;
use crate::support::{finish, program};
use serde_json::Value;
use std::os::unix::fs::MetadataExt;

/// The kind of each finding.
fn kinds(found: &[Value]) -> Vec<&str> {
    found.iter().map(|f| f["kind"].as_str().unwrap()).collect()
}

fn lose_files(host: &Host) {
    std::fs::remove_dir_all(host.sandbox.path("net")).unwrap();
}

#[test]
fn a_bridge_without_files_goes_when_nothing_is_plugged_in() {
    let Some(host) = Host::up("a_bridge_without_files_goes_when_nothing_is_plugged_in") else { return };
    lose_files(&host);
    let found = host.verify(&["--now"]);
    assert_eq!((kinds(&found), &found[0]["owner"], &found[0]["is_leak"]), (vec!["bridge"], &"0".into(), &true.into()));
    assert_eq!(leaks(&host.verify(&[])), Vec::<&Value>::new());
    host.collect();
    host.assert_bare();
    host.tap(&["up"], "").ok();
    host.down(&[]);
}

#[test]
fn a_bridge_without_files_stays_while_it_has_ports() {
    let Some(host) = Host::up("a_bridge_without_files_stays_while_it_has_ports") else { return };
    host.netns.ok("ip link add veth0 type veth peer name veth1");
    for (plug, unplug) in
        [("pool fill 1", "pool drain"), ("acquire", "release --with-address --tap tap-pool-1"), ("", "")]
    {
        match plug {
            "" => drop(host.netns.ok("ip link set veth0 master bg-0")),
            words => drop(host.tap(&words.split(' ').collect::<Vec<_>>(), machine(1)).ok()),
        }
        lose_files(&host);
        let before = host.netns.links();
        let found = host.verify(&["--now"]);
        assert_eq!(leaks(&found), Vec::<&Value>::new());
        assert!(found.iter().any(|f| f["kind"] == "bridge" && f["fix"] == "bg-tap up"), "{found:?}");
        assert_eq!(host.collect(), []);
        assert_eq!(host.netns.links(), before);
        host.tap(&["up"], "").ok();
        if !unplug.is_empty() {
            host.tap(&unplug.split(' ').collect::<Vec<_>>(), "").ok();
            host.tap(&["pool", "drain"], "").ok();
        }
    }
    host.netns.ok("ip link delete veth0");
    host.down(&[]);
}

#[test]
fn files_and_rules_of_a_bridge_that_is_gone_go() {
    let Some(host) = Host::up("files_and_rules_of_a_bridge_that_is_gone_go") else { return };
    host.tap(&["pool", "fill", "2"], "").ok();
    host.netns.ok("ip link delete bg-0");
    let found = host.verify(&["--now"]);
    assert_eq!(kinds(&found), ["tap", "tap", "net_dir", "nft"]);
    assert_eq!(leaks(&found).len(), 4);
    assert_eq!(leaks(&host.verify(&[])).len(), 0);
    host.collect();
    host.assert_bare();
    // Without the files the rules alone are left.
    host.tap(&["up"], "").ok();
    host.netns.ok("ip link delete bg-0");
    let mut dir = crate::support::children(&host.sandbox.path("net"));
    std::fs::remove_file(dir.pop().unwrap().join("network.json")).unwrap();
    assert_eq!(kinds(&host.verify(&["--now"])), ["net_dir", "nft"]);
    host.collect();
    host.assert_bare();
}

#[test]
fn rules_that_are_all_that_is_left_are_found_and_go() {
    let Some(host) = Host::new("rules_that_are_all_that_is_left_are_found_and_go") else { return };
    let leave_rules = || {
        host.tap(&["up"], "").ok();
        lose_files(&host);
        host.netns.ok("ip link delete bg-0");
    };
    leave_rules();
    let found = host.verify(&[]);
    assert_eq!((kinds(&found), &found[0]["is_leak"]), (vec!["nft"], &true.into()), "{found:?}");
    assert_eq!(host.collect(), [("nft".into(), "inet banger".into())]);
    host.assert_bare();
    leave_rules();
    host.down(&[]);
    assert_eq!(host.verify(&["--now"]), Vec::<Value>::new());
}

/// `bg-gc --now` of what there is, killed before that call of one of these. Says whether it got there.
fn gc_is_killed(host: &Host, calls: &str, nth: u32) -> bool {
    let found: String = host.verify(&["--now"]).iter().map(|f| format!("{f}\n")).collect();
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:signal=SIGKILL:when={nth}"));
    let log = host.sandbox.path("strace").display().to_string();
    let words = ["-o", &log, "-e", &trace, "-e", &inject, program("bg-gc"), "--now"];
    let mut command = host.netns.command("strace", &words);
    command.env_clear().envs(host.sandbox.env()).current_dir(host.sandbox.path("home"));
    let exit = finish(command.spawn().unwrap(), found.as_bytes()).exit;
    assert!([0, 137].contains(&exit), "{calls} {nth}: {exit}");
    exit == 137
}

#[test]
fn wherever_bg_gc_is_killed_nothing_is_left_that_nobody_finds() {
    let test = "wherever_bg_gc_is_killed_nothing_is_left_that_nobody_finds";
    let Some(host) = Host::new(test).filter(|_| has_strace(test)) else { return };
    for calls in ["sendto", "?vfork,?fork,clone,?clone3"] {
        let mut nth = 1;
        let mut goes_on = true;
        while goes_on {
            for clear in [|host: &Host| drop(host.collect()), |host: &Host| host.down(&[])] {
                host.tap(&["up"], "").ok();
                lose_files(&host);
                goes_on = gc_is_killed(&host, calls, nth);
                clear(&host);
                host.assert_bare();
            }
            nth += 1;
        }
        assert!(nth > 2, "{calls}: it was killed at no point");
    }
}

#[test]
fn files_stay_while_a_vm_has_a_tap() {
    let Some(host) = Host::up("files_stay_while_a_vm_has_a_tap") else { return };
    host.acquire(1);
    host.netns.ok("ip link delete bg-0");
    let found = host.verify(&["--now"]);
    assert_eq!(kinds(&found), ["tap", "net_dir", "nft"]);
    assert!(found[..2].iter().all(|f| f["fix"] == "bg-tap up" && f["is_leak"] == false), "{found:?}");
    host.collect();
    host.tap(&["up"], "").ok();
    assert_eq!(host.ls()[0]["tap"], "tap-pool-1");
    host.down(&["--force"]);
}

#[test]
fn what_is_damaged_is_said_and_left() {
    let Some(host) = Host::up("what_is_damaged_is_said_and_left") else { return };
    host.netns.ok("nft flush ruleset");
    let found = host.verify(&["--now"]);
    assert_eq!(
        (kinds(&found), &found[0]["is_leak"], &found[0]["fix"]),
        (vec!["nft"], &false.into(), &"bg-tap up".into())
    );
    host.tap(&["up"], "").ok();
    assert_eq!(host.verify(&["--now"]), Vec::<Value>::new());
    let dir = crate::support::children(&host.sandbox.path("net")).pop().unwrap();
    std::fs::remove_file(dir.join("leases")).unwrap();
    let found = host.verify(&["--now"]);
    assert_eq!((kinds(&found), &found[0]["fix"]), (vec!["net_dir"], &"bg-tap up".into()));
    std::fs::write(dir.join("network.json"), "{").unwrap();
    let found = host.verify(&["--now"]);
    assert_eq!(leaks(&found), Vec::<&Value>::new(), "what cannot be read may be in use");
    assert!(found.iter().all(|f| f["fix"].as_str().unwrap().contains("network.json")), "{found:?}");
    std::fs::remove_file(dir.join("network.json")).unwrap();
    host.tap(&["up"], "").ok();
    host.down(&[]);
}

#[test]
fn rules_that_are_not_as_they_were_made_are_said() {
    let test = "rules_that_are_not_as_they_were_made_are_said";
    let Some((host, _world)) = Host::new(test).and_then(|host| {
        let world = host.netns.uplink(test, &[])?;
        Some((host, world))
    }) else {
        return;
    };
    for up in [&["up", "--no-nat"][..], &["up", "--nat", "--allow", "10.77.0.0/16"]] {
        for damage in [
            "flush ruleset",
            "delete table inet banger",
            "flush chain inet banger forward",
            "flush chain inet banger input",
            "insert rule inet banger forward accept",
        ] {
            host.tap(up, "").ok();
            assert_eq!(host.verify(&["--now"]), Vec::<Value>::new(), "{up:?}");
            host.netns.ok(&format!("nft {damage}"));
            let found = host.verify(&["--now"]);
            assert_eq!(kinds(&found), ["nft"], "{damage}: {found:?}");
            assert_eq!((&found[0]["is_leak"], &found[0]["fix"]), (&false.into(), &"bg-tap up".into()), "{damage}");
            host.tap(&["up"], "").ok();
        }
    }
    // Where the host is connected may change meanwhile.
    host.netns.ok("ip addr add 198.51.100.1/24 dev lo");
    host.netns.ok("ip route add 203.0.113.0/24 dev uplink");
    assert_eq!(host.verify(&["--now"]), Vec::<Value>::new());
    host.tap(&["up"], "").ok();
    host.netns.ok("ip route del 203.0.113.0/24");
    assert_eq!(host.verify(&["--now"]), Vec::<Value>::new());
    host.down(&[]);
}

#[test]
fn what_lies_in_the_guests_network_is_named() {
    let Some(host) = Host::up("what_lies_in_the_guests_network_is_named") else { return };
    for (begin, kind, id, end) in [
        (
            "ip addr add 172.16.230.9/24 dev lo",
            "subnet",
            "172.16.230.9/24 dev lo",
            "ip address del 172.16.230.9/24 dev lo",
        ),
        (
            "ip route add 172.16.225.0/24 dev lo",
            "route",
            "172.16.225.0/24 dev lo",
            "ip route del 172.16.225.0/24 dev lo",
        ),
        ("ip route add blackhole 172.16.239.0/25", "route", "172.16.239.0/25", "ip route del 172.16.239.0/25"),
    ] {
        host.netns.ok(begin);
        let found = host.verify(&["--now"]);
        assert_eq!(kinds(&found), [kind], "{found:?}");
        assert_eq!(
            (&found[0]["id"], &found[0]["owner"], &found[0]["is_leak"]),
            (&id.into(), &"bg-0".into(), &false.into())
        );
        let fix = found[0]["fix"].as_str().unwrap();
        assert!(fix.starts_with(end), "{found:?}");
        assert!(host.netns.command("sh", &["-c", fix]).status().unwrap().success(), "{fix}");
        assert_eq!(host.verify(&["--now"]), Vec::<Value>::new());
    }
    // Another bridge of ours.
    host.netns.ok("ip link add bg-1000 type bridge");
    host.netns.ok("ip addr add 172.16.224.1/20 dev bg-1000");
    let found = host.verify(&["--now"]);
    assert_eq!(kinds(&found), ["subnet", "subnet", "bridge"]);
    assert_eq!(host.collect(), [("bridge".into(), "bg-1000".into())]);
    assert_eq!(host.verify(&["--now"]), Vec::<Value>::new(), "the other one is whole");
    host.acquire(1);
    host.down(&["--force"]);
}

#[test]
fn an_interface_of_somebody_else_on_the_bridge_is_shown_and_stays() {
    let Some(host) = Host::up("an_interface_of_somebody_else_on_the_bridge_is_shown_and_stays") else { return };
    host.netns.ok("ip link add lan type veth peer name wan");
    host.netns.ok("ip link set lan master bg-0");
    let found = host.verify(&["--now"]);
    assert_eq!(kinds(&found), ["port"], "{found:?}");
    assert_eq!(
        (&found[0]["id"], &found[0]["owner"], &found[0]["is_leak"]),
        (&"lan".into(), &"bg-0".into(), &false.into())
    );
    assert_eq!(host.collect(), []);
    assert_eq!(host.verify(&["--now"]), found);
    host.netns.ok("ip link set lan nomaster");
    assert_eq!(host.verify(&["--now"]), Vec::<Value>::new());
    host.down(&[]);
}

#[test]
fn files_of_namespaces_that_have_ended_go() {
    let test = "files_of_namespaces_that_have_ended_go";
    let (Some(host), Some(other)) = (Host::up(test), Host::new(test)) else { return };
    if !std::fs::read_link("/proc/self/ns/pid").unwrap().ends_with("pid:[4026531836]") {
        crate::support::not_run(test, "in a process namespace nobody knows which network namespaces have ended");
        return;
    }
    let net = host.sandbox.path("net");
    let lives = std::fs::metadata(format!("/proc/{}/ns/net", other.netns.pid())).unwrap().ino();
    // No namespace has the number 1.
    for name in ["1", &lives.to_string(), "something"] {
        std::fs::create_dir(net.join(name)).unwrap();
        std::fs::write(net.join(name).join("pool"), "").unwrap();
    }
    let found = host.verify(&[]);
    assert_eq!((kinds(&found), &found[0]["is_leak"]), (vec!["net_dir"], &false.into()));
    let ten_minutes_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(600);
    for path in ["1/pool", "1"] {
        std::fs::File::open(net.join(path)).unwrap().set_modified(ten_minutes_ago).unwrap();
    }
    assert_eq!(leaks(&host.verify(&[])).len(), 1);
    assert_eq!(host.collect(), [("net_dir".into(), net.join("1").display().to_string())]);
    assert!(net.join(lives.to_string()).exists() && net.join("something").exists());
}
