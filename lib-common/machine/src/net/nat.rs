//! What guests may reach: one nftables table, made anew as a whole, in one transaction. The comment of every rule and of
//! every guest in its set has the owner. Pure, but for [`apply`] and for what looks at the table that is there ([`listed`]).

mod listed;

pub use listed::{Listed, is_gone, is_there, list};

use super::name::{self, Holder, MachineId};
use super::subnet;
use lib_common::doc::{Cidr, NetworkRecord, to_json};
use lib_common::error::Result;
use lib_common::sys::cmd::{Cmd, Stream, Streams};
use nftables::batch::Batch;
use nftables::expr::{CT, Elem, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix};
use nftables::schema::{Chain, Element, NfListObject, Nftables, Rule, Set, SetType, SetTypeValue, Table};
use nftables::stmt::{Match, Operator, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use std::net::Ipv4Addr;

const TABLE: &str = "banger";
/// A rule's comment begins with this; its bridge follows.
const COMMENT: &str = "banger:";

/// The set of the guests' addresses that may reach other networks.
const GUESTS: &str = "nat";

/// Link-local addresses: 169.254.169.254 gives a cloud's secrets to whoever asks.
const LINK_LOCAL: &str = "169.254.0.0/16";

/// Where networks of the host's own kind are, by RFC 6890 and RFC 1112: not the internet.
const PRIVATE: [&str; 10] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// The table of a network: guests reach each other and the host's address on their bridge. With an uplink those of
/// `holders` that are to reach the internet do so too, translated; of the host's networks (the private ones, and
/// `on_link`) they reach only those that are allowed, and its name servers.
pub fn table(network: &NetworkRecord, on_link: &[Cidr], holders: &[Holder]) -> Nftables<'static> {
    let mut rules = Rules { batch: removal(), bridge: network.bridge.clone() };
    rules.batch.add(NfListObject::Table(table_name()));
    rules.batch.add(NfListObject::Set(Box::new(Set {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: GUESTS.into(),
        set_type: SetTypeValue::Single(SetType::Ipv4Addr),
        ..Set::default()
    })));
    for holder in holders {
        if let Holder::Machine { id, address, nat: true } = holder {
            rules.batch.add(guest(id, *address));
        }
    }
    let bridge = network.bridge.as_str();
    rules.chain("input", NfChainType::Filter, NfHook::Input, 0);
    let gateway = text(&subnet::gateway(network.subnet).to_string());
    rules.rule("input", [from(bridge), field("daddr", Operator::NEQ, gateway), DROP]);
    rules.rule("input", [from(bridge), is(meta(MetaKey::Nfproto), Operator::EQ, text("ipv6")), DROP]);
    rules.chain("forward", NfChainType::Filter, NfHook::Forward, 0);
    // Frames within a bridge come by here where the host has bridge-nf-call-iptables on.
    rules.rule("forward", [from(bridge), to(bridge), ACCEPT]);
    rules.rule("forward", [from(bridge), field("daddr", Operator::EQ, prefix_text(LINK_LOCAL)), DROP]);
    if !network.uplinks.is_empty() {
        rules.forward_guests(network, on_link);
    }
    rules.rule("forward", [from(bridge), DROP]);
    rules.rule("forward", [to(bridge), DROP]);
    for uplink in network.uplinks.iter().filter(|uplink| uplink.forwarding_was_off) {
        // Only for our guests was it switched on.
        rules.rule("forward", [from(&uplink.name), DROP]);
    }
    if !network.uplinks.is_empty() {
        rules.chain("postrouting", NfChainType::NAT, NfHook::Postrouting, 100);
        let masquerade = Statement::Masquerade(None);
        rules.rule("postrouting", [from_guest(), not_to(bridge), masquerade]);
    }
    rules.batch.to_nftables()
}

/// What lets a guest reach other networks. One that does so already is fine.
pub fn admission(id: &MachineId, address: Ipv4Addr) -> Nftables<'static> {
    let mut batch = Batch::new();
    // Added first, since what is not there cannot be removed; anew, since its comment may be another VM's.
    batch.add(guest(id, address));
    batch.delete(guest(id, address));
    batch.add(guest(id, address));
    batch.to_nftables()
}

/// What keeps it from that again, whether it could or not.
pub fn dismissal(id: &MachineId, address: Ipv4Addr) -> Nftables<'static> {
    let mut batch = Batch::new();
    batch.add(guest(id, address));
    batch.delete(guest(id, address));
    batch.to_nftables()
}

fn guest(id: &MachineId, address: Ipv4Addr) -> NfListObject<'static> {
    let comment = Some(format!("banger:vm:{}", name::hex(id)).into());
    let elem = Elem { val: Box::new(text(&address.to_string())), timeout: None, expires: None, comment, counter: None };
    NfListObject::Element(Element {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: GUESTS.into(),
        elem: vec![Expression::Named(NamedExpression::Elem(elem))].into(),
    })
}

/// What takes the table away, whether it is there or not.
pub fn removal() -> Batch<'static> {
    let mut batch = Batch::new();
    // Added first, since what is not there cannot be removed.
    batch.add(NfListObject::Table(table_name()));
    batch.delete(NfListObject::Table(table_name()));
    batch
}

/// Gives a ruleset to nft(8).
pub fn apply(rules: &Nftables<'_>) -> Result<()> {
    let file = lib_common::sys::fs::unnamed(to_json(rules).as_bytes())?;
    let streams = Streams { stdin: Stream::from(file), ..Streams::default() };
    Cmd::new("nft").args(["-j", "-f", "-"]).spawn(streams)?.finish()
}

struct Rules {
    batch: Batch<'static>,
    bridge: String,
}

type Part = Statement<'static>;
const DROP: Part = Statement::Drop(None);
const ACCEPT: Part = Statement::Accept(None);

impl Rules {
    /// Guests to the internet and to what is allowed, and answers to them.
    fn forward_guests(&mut self, network: &NetworkRecord, on_link: &[Cidr]) {
        let bridge = self.bridge.clone();
        let ct = Expression::Named(NamedExpression::CT(CT { key: "state".into(), family: None, dir: None }));
        let known = Expression::List(vec![text("established"), text("related")]);
        self.rule("forward", [to(&bridge), is(ct, Operator::IN, known), ACCEPT]);
        for allowed in &network.allow {
            self.rule("forward", [from(&bridge), from_guest(), field("daddr", Operator::EQ, prefix(*allowed)), ACCEPT]);
        }
        for server in &network.nameservers {
            let server = || text(&server.to_string());
            for protocol in ["udp", "tcp"] {
                let dns = payload(protocol, "dport", Operator::EQ, Expression::Number(53));
                let to_server = field("daddr", Operator::EQ, server());
                self.rule("forward", [from(&bridge), from_guest(), to_server, dns, ACCEPT]);
            }
        }
        let private = PRIVATE.iter().map(|text| prefix_text(text));
        for blocked in private.chain(on_link.iter().map(|cidr| prefix(subnet::network_of(*cidr)))) {
            self.rule("forward", [from(&bridge), field("daddr", Operator::EQ, blocked), DROP]);
        }
        // The first one is the default route's.
        if let Some(uplink) = network.uplinks.first() {
            self.rule("forward", [from(&bridge), to(&uplink.name), from_guest(), ACCEPT]);
        }
    }

    fn chain(&mut self, name: &'static str, kind: NfChainType, hook: NfHook, priority: i32) {
        self.batch.add(NfListObject::Chain(Chain {
            family: NfFamily::INet,
            table: TABLE.into(),
            name: name.into(),
            _type: Some(kind),
            hook: Some(hook),
            prio: Some(priority),
            policy: Some(NfChainPolicy::Accept),
            ..Chain::default()
        }));
    }

    fn rule<const N: usize>(&mut self, chain: &'static str, parts: [Part; N]) {
        self.batch.add(NfListObject::Rule(Rule {
            family: NfFamily::INet,
            table: TABLE.into(),
            chain: chain.into(),
            expr: parts.to_vec().into(),
            comment: Some(format!("{COMMENT}{}", self.bridge).into()),
            ..Rule::default()
        }));
    }
}

fn table_name() -> Table<'static> {
    Table { family: NfFamily::INet, name: TABLE.into(), handle: None }
}

fn is(left: Expression<'static>, op: Operator, right: Expression<'static>) -> Part {
    Statement::Match(Match { left, right, op })
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn from(interface: &str) -> Part {
    is(meta(MetaKey::Iifname), Operator::EQ, text(interface))
}

fn to(interface: &str) -> Part {
    is(meta(MetaKey::Oifname), Operator::EQ, text(interface))
}

fn not_to(interface: &str) -> Part {
    is(meta(MetaKey::Oifname), Operator::NEQ, text(interface))
}

fn from_guest() -> Part {
    field("saddr", Operator::EQ, text(&format!("@{GUESTS}")))
}

/// A field of the IPv4 header.
fn field(name: &'static str, op: Operator, right: Expression<'static>) -> Part {
    payload("ip", name, op, right)
}

fn payload(protocol: &'static str, name: &'static str, op: Operator, right: Expression<'static>) -> Part {
    let field = PayloadField { protocol: protocol.into(), field: name.into() };
    is(Expression::Named(NamedExpression::Payload(Payload::PayloadField(field))), op, right)
}

fn prefix(cidr: Cidr) -> Expression<'static> {
    prefix_of(&cidr.address().to_string(), cidr.prefix())
}

fn prefix_text(text: &str) -> Expression<'static> {
    let (address, length) = text.split_once('/').unwrap_or((text, "32"));
    prefix_of(address, length.parse().unwrap_or(32))
}

fn prefix_of(address: &str, length: u8) -> Expression<'static> {
    Expression::Named(NamedExpression::Prefix(Prefix { addr: Box::new(text(address)), len: u32::from(length) }))
}

fn text(text: &str) -> Expression<'static> {
    Expression::String(text.to_owned().into())
}
