//! up: bridge, gateway, and what guests may reach.

use super::forwarding::{known_uplinks, restore_forwarding, set_forwardings};
use super::{emit_network, explain, going, own_uid};
use crate::cli::{Answer, Context};
use crate::config::Config;
use crate::doc::{Cidr, NetworkRecord, Uplink};
use crate::error::{Code, Error, Result};
use crate::net::name::{self, Holder};
use crate::net::{Open, Space, dns, nat, pool, subnet};
use crate::sys::netlink::Netlink;
use crate::sys::netlink::addr::Route;
use crate::sys::netlink::link::{Change, Link};
use crate::sys::netns::is_forwarding;
use crate::timing::Stages;
use nix::errno::Errno;

/// What `bg-tap up` takes.
#[derive(Clone, Debug, Default)]
pub struct UpArgs {
    /// The guests' network; else that of the bridge which is there, else the configured one.
    pub subnet: Option<Cidr>,
    /// Whether guests reach other networks; else as it is.
    pub nat: Option<bool>,
    /// Networks of the host that they may reach, with [`UpArgs::nat`].
    pub allow: Vec<Cidr>,
}

/// `bg-tap up`: prints what [`make_network`] makes.
pub fn up(cx: &mut Context<'_>, args: &UpArgs) -> Result<Answer> {
    let (network, taps) = make_network(&cx.config, &mut cx.stages, args)?;
    emit_network(cx, &network, &taps)?;
    Ok(Answer::Done)
}

/// Makes the network of this namespace, or makes it as it was asked for; gives it with its TAPs. Nothing is made before
/// everything was looked at.
pub fn make_network(config: &Config, stages: &mut Stages, args: &UpArgs) -> Result<(Open, Vec<(u32, Link)>)> {
    stages.begin("look");
    let space = Space::current(config)?;
    let netlink = Netlink::route()?;
    plan(config, &space, &netlink, args)?;
    stages.begin("lock");
    space.prepare().map_err(explain)?;
    let lock = space.lock()?;
    // Somebody else may have been quicker.
    let mut planned = plan(config, &space, &netlink, args)?;
    crate::sys::signal::check()?;
    stages.begin("bridge");
    planned.record.bridge_index = ensure_bridge(&netlink, &planned.record).map_err(explain)?;
    if planned.stale {
        // What another namespace with this inode left, or a bridge that is gone.
        space.clear_tables()?;
    }
    space.create_tables(&planned.record)?;
    stages.begin("rules");
    // Before the rules go that keep others from an uplink.
    restore_forwarding(&planned.former)?;
    make_rules(&netlink, &planned.record, &planned.on_link).map_err(explain)?;
    space.save(&planned.record)?;
    going::forget(&space)?;
    set_forwardings(&planned.record)?;
    stages.begin("pool");
    let network = Open { space, record: planned.record, netlink };
    let taps = network.pool()?.repair()?;
    network.note_holders(&taps)?;
    drop(lock);
    Ok((network, taps))
}

/// The table, with the guests that are to reach other networks by the aliases of their TAPs.
fn make_rules(netlink: &Netlink, record: &NetworkRecord, on_link: &[Cidr]) -> Result<()> {
    let taps = pool::look(netlink)?;
    let holders: Vec<Holder> = taps.iter().filter_map(|(_, link)| Holder::parse(&link.alias)).collect();
    nat::apply(&nat::table(record, on_link, &holders))
}

/// Makes the table of a network that is up where it is gone, as it is after `nft flush ruleset`: without it guests reach
/// every address of the host. One question to the kernel where it is there.
pub(super) fn ensure_rules(network: &Open) -> Result<()> {
    if !nat::is_gone() {
        return Ok(());
    }
    let _lock = network.space.lock()?;
    let (record, netlink) = (&network.record, &network.netlink);
    // Somebody else may have been quicker, or may have removed the network.
    if !nat::is_gone() || network.space.record()?.as_ref() != Some(record) {
        return Ok(());
    }
    make_rules(netlink, record, &on_link(&netlink.routes()?, record.bridge_index))
}

/// The networks that the host is connected to, but for that at the bridge.
fn on_link(routes: &[Route], bridge: u32) -> Vec<Cidr> {
    let others = routes.iter().filter(|r| r.index != bridge && r.on_link && r.prefix > 0);
    others.filter_map(|r| Cidr::new(r.network, r.prefix).ok()).collect()
}

/// What is to be there.
struct Planned {
    record: NetworkRecord,
    /// Uplinks that are none any more.
    former: Vec<Uplink>,
    /// Networks of the host, besides this one.
    on_link: Vec<Cidr>,
    /// Whether the files are of another network.
    stale: bool,
}

/// Looks at everything and changes nothing.
fn plan(config: &Config, space: &Space, netlink: &Netlink, args: &UpArgs) -> Result<Planned> {
    let uid = own_uid();
    let recorded = going::record(space)?;
    let (links, addresses, routes) = (netlink.links()?, netlink.addresses()?, netlink.routes()?);
    let current = recorded.clone().filter(|r| links.iter().any(|l| l.name == r.bridge && l.index == r.bridge_index));
    let bridge = current.as_ref().map_or_else(|| name::bridge(uid), |r| r.bridge.clone());
    let link = links.iter().find(|link| link.name == bridge);
    if let Some(link) = link.filter(|link| link.kind != "bridge") {
        let message = format!("`{bridge}` is taken by an interface that is no bridge");
        return Err(Error::new(Code::Exists, message).hint(format!("ip link delete {}", link.name)));
    }
    let index = link.map_or(0, |link| link.index);
    let has = addresses.iter().find(|a| a.index == index && index != 0);
    let has = has.and_then(|a| Cidr::new(a.address, a.prefix).ok()).map(subnet::network_of);
    let has = current.as_ref().map(|r| r.subnet).or(has);
    let wanted = args.subnet.or(has).unwrap_or(config.subnet);
    if let Some(other) = has.filter(|has| *has != wanted) {
        return Err(Error::new(Code::Exists, format!("the bridge `{bridge}` is up with {other}, not with {wanted}"))
            .hint("bg-tap down, then bg-tap up"));
    }
    if let Some((cidr, index)) = subnet::conflict(wanted, index, &addresses, &routes) {
        return Err(overlap(wanted, cidr, &links, index));
    }
    let on_link = on_link(&routes, index);
    let had_nat = current.as_ref().is_some_and(|r| !r.uplinks.is_empty());
    let nat = args.nat.unwrap_or(had_nat);
    let old = former_uplinks(recorded.as_ref(), current.is_some())?;
    let allow = match &current {
        Some(r) if nat && args.allow.is_empty() => r.allow.clone(),
        _ => args.allow.clone(),
    };
    let uplinks = if nat { uplinks(&allow, &old, &links, &routes)? } else { vec![] };
    let former = old.into_iter().filter(|u| uplinks.iter().all(|new| new.name != u.name)).collect();
    let stale = current.is_none();
    let nameservers =
        if uplinks.is_empty() { vec![] } else { config.nameservers.clone().unwrap_or_else(dns::resolvers) };
    let netns_cookie = crate::sys::netns::cookie();
    let record =
        NetworkRecord { bridge, bridge_index: index, netns_cookie, subnet: wanted, uplinks, allow, nameservers };
    Ok(Planned { record, former, on_link, stale })
}

/// The uplinks on which forwarding may be on because of us. With a record of the network that is up it is known; else the
/// rules of the one before say so, whose files or bridge may be gone.
fn former_uplinks(recorded: Option<&NetworkRecord>, is_up: bool) -> Result<Vec<Uplink>> {
    let listed = if !is_up && nat::is_there() { nat::list()? } else { None };
    Ok(known_uplinks(recorded, listed.as_ref()))
}

fn overlap(wanted: Cidr, there: Cidr, links: &[Link], index: u32) -> Error {
    let interface = links.iter().find(|link| link.index == index);
    let at = interface.map_or_else(String::new, |link| format!(" at `{}`", link.name));
    Error::new(Code::Exists, format!("{wanted} overlaps with {there}{at}, which is there already"))
        .hint("take another network: bg-tap up --subnet CIDR, or BG_SUBNET")
        .detail("overlaps_with", there.to_string())
}

/// What a host without a default route lacks.
pub(super) const ADD_A_ROUTE: &str = "give the host one: ip route add default via GATEWAY";

/// The interfaces that lead to the internet and to what is allowed; the first one is the default route's.
fn uplinks(allow: &[Cidr], old: &[Uplink], links: &[Link], routes: &[Route]) -> Result<Vec<Uplink>> {
    let default = routes.iter().find(|r| r.prefix == 0 && r.index != 0).map(|r| r.index);
    let default = default.ok_or_else(|| {
        Error::new(Code::NotFound, "there is no default route, so guests cannot reach anything through this host").hint(
            format!("{ADD_A_ROUTE}; `bg-tap up --no-nat` makes a network that leads to this host and its VMs alone"),
        )
    })?;
    let mut found: Vec<Uplink> = vec![];
    for index in std::iter::once(default).chain(allow.iter().filter_map(|c| subnet::interface_to(c.address(), routes)))
    {
        let Some(link) = links.iter().find(|link| link.index == index) else { continue };
        if found.iter().any(|u| u.name == link.name) {
            continue;
        }
        let forwarding_was_off = match old.iter().find(|u| u.name == link.name) {
            Some(known) => known.forwarding_was_off,
            None => !is_forwarding(&link.name)?,
        };
        found.push(Uplink { name: link.name.clone(), forwarding_was_off });
    }
    Ok(found)
}

/// The bridge with its address, made where it is missing. Gives its index.
fn ensure_bridge(netlink: &Netlink, record: &NetworkRecord) -> Result<u32> {
    let bridge = record.bridge.as_str();
    // An address of its own: else it would be that of some TAP, and change when that goes.
    let bits = subnet::gateway(record.subnet).octets();
    let mac = [0x02, 0xb6, bits[0], bits[1], bits[2], bits[3]];
    match netlink.add_bridge(bridge, mac) {
        Ok(()) => {}
        Err(Errno::EEXIST) => netlink.change_link(bridge, &Change { up: true, ..Change::default() })?,
        Err(e) => return Err(Error::from(e).within(format!("cannot make the bridge `{bridge}`"))),
    }
    let gone = || Error::new(Code::Os, format!("the bridge `{bridge}` went while it was set up"));
    let index = netlink.link(bridge)?.ok_or_else(gone)?.index;
    netlink.add_address(index, subnet::gateway(record.subnet), record.subnet.prefix())?;
    Ok(index)
}
