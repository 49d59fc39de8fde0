//! Network cards: VMs reach each other by address and by name, and the world only where they are to; what a VM has had is
//! another's when it is gone.

use super::world::{World, show};
use serde_json::Value;
use std::net::TcpListener;

/// Beyond the host: the internet, a network like those of homes, and where clouds keep their secrets.
const BEYOND: [&str; 3] = ["198.51.100.7", "192.168.77.7", "169.254.169.254"];

/// Whether a guest gets a connection to that address, as one word.
fn reach(address: &str, port: u16) -> String {
    format!("timeout 5 bash -c '</dev/tcp/{address}/{port}' 2>/dev/null && echo reached || echo not")
}

#[test]
fn two_vms_reach_each_other_and_only_one_of_them_the_world() {
    let Some(world) = World::in_netns("two_vms_reach_each_other_and_only_one_of_them_the_world") else { return };
    let beyond = world.netns().uplink("two_vms_reach_each_other_and_only_one_of_them_the_world", &BEYOND).unwrap();
    let _listening = beyond.inside(|| BEYOND.map(|address| TcpListener::bind((address, 80)).unwrap()));
    let small = ["--memory", "384M", "--work-size", "2G"];
    world.ok("bg-vm", &[&["create", "one"], &small[..]].concat());
    let mut two = world.command("bg-vm", &[&["create", "two", "--nat"], &small[..]].concat());
    let two = two.env("BG_NAMESERVERS", "198.51.100.7").output().unwrap();
    assert!(two.status.success(), "{}", show(&two));
    let [one, two] = ["one", "two"].map(|name| world.healthy(name));
    let address = |doc: &Value| doc["net"]["address"].as_str().unwrap().split('/').next().unwrap().to_owned();

    assert_eq!(world.guest("one", "ip -4 -o addr show eth0 | awk '{print $4}'"), one["net"]["address"]);
    assert_eq!(world.guest("one", "cat /sys/class/net/eth0/address"), one["net"]["mac"]);
    world.guest("one", &format!("ping -c 1 -W 5 {}", address(&two)));
    world.guest("two", "ping -c 1 -W 5 one && ping -c 1 -W 5 one.vm");
    let unknown = world.run("bg-ssh", &["one", "--", "getent hosts two"]);
    assert_ne!(unknown.status.code(), Some(0), "it began before the other was there");
    let hosts = world.ok("bg-vm", &["hosts", "--update"]);
    assert_eq!(hosts, format!("{0}\tone one.vm\n{1}\ttwo two.vm\n", address(&one), address(&two)));
    world.guest("one", "ping -c 1 -W 5 two && ping -c 1 -W 5 two.vm");

    assert_eq!(world.guest("two", "grep -v ^# /etc/resolv.conf"), "nameserver 198.51.100.7");
    assert_eq!(world.guest("one", "grep -cv ^# /etc/resolv.conf || true"), "0", "it has nobody to ask");
    for (vm, of_the_world) in [("one", "not"), ("two", "reached")] {
        assert_eq!(world.guest(vm, &reach(BEYOND[0], 80)), of_the_world, "{vm}");
        for address in &BEYOND[1..] {
            assert_eq!(world.guest(vm, &reach(address, 80)), "not", "{vm}: {address}");
        }
        assert_eq!(world.guest(vm, "systemctl is-system-running --wait"), "running", "{vm}");
    }

    a_stopped_vm_keeps_its_address(&world, &one);
    world.ok("bg-vm", &["rm", "--force", "one", "two"]);
    assert_eq!(world.ok("bg-tap", &["ls"]), "");
    let set = world.netns().ok("nft list set inet banger nat");
    assert!(!set.contains("elements"), "{set}");
}

/// It keeps its address and no TAP, whoever ended it; and what it had is in nobody's way.
fn a_stopped_vm_keeps_its_address(world: &World, one: &Value) {
    let tap_of = |id: &Value| {
        let listed = world.ok("bg-tap", &["ls"]);
        let all = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.into_iter().find(|tap| tap["machine_id"] == *id).unwrap()["tap"].clone()
    };
    assert_eq!(tap_of(&one["id"]), one["net"]["tap"]);
    world.run("bg-ssh", &["one", "--", "systemctl poweroff"]);
    world.until("the poweroff", || world.status("one")["state"] == "stopped");
    world.until("the TAP to be given back", || tap_of(&one["id"]).is_null());
    let stopped = world.json("bg-vm", &["stop", "one"]);
    assert_eq!((&stopped["net"]["address"], &stopped["net"]["tap"]), (&one["net"]["address"], &Value::Null));
    let again = world.json("bg-vm", &["start", "one"]);
    for field in ["address", "mac", "gateway"] {
        assert_eq!(again["net"][field], one["net"][field], "{field}");
    }
    world.healthy("one");
    world.guest("one", "ping -c 1 -W 5 two");
}
