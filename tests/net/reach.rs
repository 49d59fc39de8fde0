//! What a guest reaches: a namespace that hangs on the bridge plays the guest, another one is the world behind the host.

use super::{Host, id, machine};
use crate::support::finish;
use crate::support::netns::Namespace;
use lib_common::error::Code;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Addresses in the world, all of them behind the host's uplink.
const WORLD: [&str; 4] = ["198.51.100.7", "192.168.77.7", "10.77.0.7", "169.254.169.254"];

struct World {
    host: Host,
    guest: Namespace,
    world: Namespace,
}

impl World {
    /// A host with an uplink to the world and a network of its own at another interface.
    fn new(test: &str) -> Option<Self> {
        let (host, guest) = (Host::new(test)?, Namespace::new(test)?);
        let world = host.netns.uplink(test, &WORLD)?;
        Some(World { host, guest, world })
    }

    /// Connects the guest as a VMM would: at a port of the bridge, with an address of its own.
    fn plug_in(&self) {
        self.host.netns.connect("port", &self.guest, "eth0");
        self.host.netns.ok("ip link set port master bg-0");
        self.guest.ok("ip addr add 172.16.224.2/20 dev eth0");
        self.guest.ok("ip route add default via 172.16.224.1");
    }

    /// Whether the guest gets through to that address, where somebody listens.
    fn reaches(&self, at: &Namespace, address: &str) -> bool {
        self.reaches_port(at, address, 80)
    }

    fn reaches_port(&self, at: &Namespace, address: &str, port: u16) -> bool {
        let address: SocketAddr = format!("{address}:{port}").parse().unwrap();
        let listener = at.inside(|| TcpListener::bind(address).unwrap());
        // With the time for a second attempt: the kernel makes it after a second.
        let reached = self.guest.inside(|| TcpStream::connect_timeout(&address, Duration::from_millis(1400)).is_ok());
        drop(listener);
        reached
    }

    fn reached(&self) -> Vec<&str> {
        WORLD.into_iter().filter(|address| self.reaches(&self.world, address)).collect()
    }
}

/// The document of a VM that is to reach other networks.
pub(super) fn with_nat(n: u32) -> String {
    let spec = r#"{"image":"debian","vcpu":1,"memory_mib":512,"root_bytes":0,"work_bytes":0,"net":true,"nat":true,"vmm":"auto"}"#;
    machine(n).replace('}', &format!(r#","spec":{spec}}}"#))
}

#[test]
fn a_name_server_on_a_private_address_is_reached_for_names_alone() {
    let Some(world) = World::new("a_name_server_on_a_private_address_is_reached_for_names_alone") else { return };
    let host = &world.host;
    let mut up = host.netns.tool(&host.sandbox, "bg-tap", &["up", "--nat"]);
    let up = up.env("BG_NAMESERVERS", "10.77.0.7").spawn().unwrap();
    assert_eq!(finish(up, b"").json()["nameservers"][0], "10.77.0.7");
    world.plug_in();
    host.tap(&["acquire"], with_nat(1)).ok();
    assert!(world.reaches_port(&world.world, "10.77.0.7", 53));
    assert!(!world.reaches_port(&world.world, "10.77.0.7", 80));
    assert!(!world.reaches_port(&world.world, "192.168.77.7", 53));
    host.tap(&["down", "--force"], "").ok();
}

#[test]
fn a_guest_reaches_what_it_is_allowed_to() {
    let Some(world) = World::new("a_guest_reaches_what_it_is_allowed_to") else { return };
    let host = &world.host;
    // As on a host that forwards already: then it is up to the rules alone.
    host.netns.inside(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    host.tap(&["up"], "").ok();
    world.plug_in();
    assert!(world.reaches(&host.netns, "172.16.224.1"), "the host's address on the bridge");
    assert!(!world.reaches(&host.netns, "192.0.2.1"), "another address of the host");
    assert_eq!(world.reached(), Vec::<&str>::new(), "without NAT");
    let network = host.tap(&["up", "--nat"], "").json();
    assert_eq!((&network["nat"], &network["uplinks"][0]), (&true.into(), &"uplink".into()));
    assert_eq!(world.reached(), Vec::<&str>::new(), "it is no VM that is to reach anything");
    let doc = host.tap(&["acquire"], with_nat(1)).json();
    assert_eq!(doc["net"]["address"], "172.16.224.2/20");
    assert_eq!(world.reached(), ["198.51.100.7"], "with NAT");
    host.tap(&["up", "--nat"], "").ok();
    assert_eq!(world.reached(), ["198.51.100.7"], "still, when all is made anew");
    host.tap(&["release"], doc.to_string()).ok();
    assert_eq!(world.reached(), Vec::<&str>::new(), "whoever has its address next");
    let doc = host.tap(&["acquire"], doc.to_string()).json();
    assert_eq!(doc["net"]["address"], "172.16.224.2/20", "as before");
    assert!(!world.reaches(&world.world, "192.0.2.2"), "the uplink's own network is the host's");
    let allow = ["up", "--nat", "--allow", "10.77.0.0/16", "--allow", "169.254.0.0/16"];
    host.tap(&allow, "").ok();
    assert_eq!(world.reached(), ["198.51.100.7", "10.77.0.7"], "and never link-local ones");
    assert_eq!(host.tap(&["up"], "").json()["allow"][0], "10.77.0.0/16", "as it was");
    assert!(!world.reaches(&host.netns, "192.0.2.1"));
    host.tap(&["up", "--no-nat"], "").ok();
    assert_eq!(world.reached(), Vec::<&str>::new(), "NAT is off again");
    host.tap(&["release"], doc.to_string()).ok();
    host.tap(&["down"], "").ok();
    assert_eq!(host.netns.ok("nft list ruleset"), "");
}

#[test]
fn forwarding_is_switched_on_for_guests_alone_and_off_again() {
    let Some(world) = World::new("forwarding_is_switched_on_for_guests_alone_and_off_again") else { return };
    let host = &world.host;
    let forwarding = |interface: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/{interface}/forwarding");
        host.netns.inside(move || std::fs::read_to_string(path).unwrap().trim() == "1")
    };
    // A network of the host's that is nobody's business: the guest, with another address, plays who is in it.
    host.netns.connect("lan", &world.guest, "eth0");
    host.netns.ok("ip addr add 203.0.113.1/24 dev lan");
    world.guest.ok("ip addr add 203.0.113.2/24 dev eth0");
    world.world.ok("ip route add 203.0.113.0/24 via 192.0.2.1");
    host.tap(&["up", "--nat"], "").ok();
    assert!(forwarding("uplink") && forwarding("bg-0") && !forwarding("lan"));
    let at: SocketAddr = "203.0.113.2:80".parse().unwrap();
    let listener = world.guest.inside(|| TcpListener::bind(at).unwrap());
    let through = world.world.inside(|| TcpStream::connect_timeout(&at, Duration::from_millis(400)).is_ok());
    assert!(!through, "the world does not get through the host to its other networks");
    drop(listener);
    host.tap(&["up"], "").ok();
    host.tap(&["down"], "").ok();
    assert!(!forwarding("uplink"), "as it was before");
}

#[test]
fn every_rule_names_its_owner_and_connections_are_forgotten() {
    let Some(world) = World::new("every_rule_names_its_owner_and_connections_are_forgotten") else { return };
    let host = &world.host;
    host.tap(&["up", "--nat"], "").ok();
    let rules: serde_json::Value = serde_json::from_str(&host.netns.ok("nft -j list ruleset")).unwrap();
    let rules: Vec<_> = rules["nftables"].as_array().unwrap().iter().filter_map(|o| o.get("rule")).collect();
    assert!(rules.len() > 10 && rules.iter().all(|rule| rule["comment"] == "banger:bg-0"), "{rules:?}");
    let doc = host.tap(&["acquire"], with_nat(1)).json();
    assert_eq!(doc["net"]["address"], "172.16.224.2/20");
    let set: serde_json::Value = serde_json::from_str(&host.netns.ok("nft -j list set inet banger nat")).unwrap();
    let guest = &set["nftables"][1]["set"]["elem"][0]["elem"];
    assert_eq!((&guest["val"], &guest["comment"]), (&"172.16.224.2".into(), &format!("banger:vm:{}", id(1)).into()));
    world.plug_in();
    assert!(world.reaches(&world.world, "198.51.100.7"));
    let of = |address: &str| {
        let all = host.netns.inside(|| std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap());
        all.lines().filter(|line| line.contains(&format!("={address} "))).count()
    };
    let to_itself = || {
        let listener = TcpListener::bind("172.16.224.1:80").unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap()
    };
    let _open = host.netns.inside(to_itself);
    let others = of("172.16.224.1");
    assert!(of("172.16.224.2") > 0 && others > 0);
    host.tap(&["release"], doc.to_string()).ok();
    assert_eq!((of("172.16.224.2"), of("172.16.224.1")), (0, others), "and only the VM's");
    host.tap(&["down"], "").ok();
}

#[test]
fn without_a_way_out_nat_is_refused() {
    let Some(host) = Host::new("without_a_way_out_nat_is_refused") else { return };
    let e = host.tap(&["up", "--nat"], "").failed_with(Code::NotFound);
    assert!(e.message.contains("default route"), "{e:?}");
    host.sandbox.assert_untouched("a refusal");
    host.tap(&["up", "--allow", "10.0.0.0/8"], "").failed_with(Code::Usage);
    host.tap(&["up", "--nat", "--allow", "10.0.0.1/8"], "").failed_with(Code::Usage);
}
