//! What TAPs are plugged into: bridges, rules, the files of namespaces; and what else lies in a guests' network.

use super::{Found, Remedy, Scene, Seen, YOUNG, age_ms};
use crate::ops::audit::outlast_the_making;
use lib_common::doc::{Cidr, NetworkRecord};
use lib_common::error::{Result, looked_at};
use lib_common::sys::dirs::list;
use lib_common::sys::lock::{glance, is_held};
use lib_common::sys::netlink::link::Link;
use lib_common::sys::netns::living;
use lib_machine::net::standing::{Role, Standing, role, stray_bridge};
use lib_machine::net::subnet::{Conflict, conflicts, network_of};
use lib_machine::net::{Space, nat};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// What is left of networks in this namespace, and what is in the way of the one that is up.
pub fn fabric(scene: &Scene<'_>, found: &mut Vec<Found>) -> Result<()> {
    overlaps(scene, found)?;
    found.extend(ports(scene));
    let dir = scene.space.dir();
    let lock = dir.join("lock");
    outlast_the_making(dir, || Ok(lock.exists()))?;
    // Held while we look, so that no `up` or `down` begins; while one works it is all that one's.
    let Some(_look) = glance(&lock)? else { return Ok(()) };
    let strays: Vec<&Link> = bridges(scene).filter(|(link, _)| !is_up(scene, link)).map(|(link, _)| link).collect();
    for (link, uid) in bridges(scene).filter(|(link, _)| !is_up(scene, link)) {
        found.extend(stray(scene, link, uid)?);
    }
    if strays.is_empty() && scene.network.is_none() && dir.exists() {
        found.push(files(scene));
    }
    let may_list = nix::unistd::geteuid().is_root();
    if may_list && (dir.exists() || bridges(scene).next().is_some() || nat::is_there()) {
        found.extend(rules(scene));
    }
    Ok(())
}

/// The bridges of ours, with their users.
fn bridges<'a>(scene: &'a Scene<'_>) -> impl Iterator<Item = (&'a Link, u32)> {
    scene.links.iter().filter_map(|link| match role(link) {
        Role::Bridge(uid) => Some((link, uid)),
        _ => None,
    })
}

/// Interfaces of others on a bridge of ours: guests are in the network that these lead to. Whoever put them there may want that.
fn ports(scene: &Scene<'_>) -> Vec<Found> {
    let mut found = vec![];
    for (bridge, _) in bridges(scene) {
        // A TAP that does not stay is just being made.
        let foreign = |port: &&Link| role(port) == Role::Foreign && (port.kind != "tun" || port.persistent);
        for Link { name, .. } in scene.links.iter().filter(|port| port.master == bridge.index).filter(foreign) {
            let evidence =
                format!("no TAP of ours, and on the bridge `{}`: guests are in the network it leads to", bridge.name);
            let seen = Seen::of("port", name, evidence, Duration::ZERO).owned(bridge.name.clone());
            let mut port = scene.say(seen, None);
            if scene.instead.is_none() {
                port.finding.fix =
                    format!("ip link show {name}  # if it is not wanted there: ip link set {name} nomaster");
            }
            found.push(port);
        }
    }
    found
}

fn is_up(scene: &Scene<'_>, link: &Link) -> bool {
    scene.network.as_ref().is_some_and(|network| network.record.bridge_index == link.index)
}

/// A bridge that is not that of the network which is up.
fn stray(scene: &Scene<'_>, link: &Link, uid: u32) -> Result<Option<Found>> {
    if scene.netlink.link(&link.name)?.is_none_or(|now| now.index != link.index) {
        return Ok(None);
    }
    let ports: Vec<&Link> = scene.links.iter().filter(|port| port.master == link.index).collect();
    let age = scene.netlink.address_age_ms(link.index)?.map_or_else(|| scene.files_age(), Duration::from_millis);
    let seen = |evidence: String| {
        Seen::of("bridge", &link.name, format!("{evidence}; user {uid} made it"), age).owned(uid.to_string())
    };
    Ok(match stray_bridge(&ports) {
        Standing::Fine => None,
        Standing::Seen(evidence) => Some(scene.say(seen(evidence), None)),
        Standing::Abandoned(evidence) => Some(scene.say(seen(evidence), Some(Remedy::Bridge(link.name.clone())))),
    })
}

/// The directory of this namespace, in which no network is up.
fn files(scene: &Scene<'_>) -> Found {
    let what = match &scene.stale {
        Some(record) => format!("the bridge `{}` of this network is gone", record.bridge),
        None => "the files of a network that is not there".into(),
    };
    let lent = scene.links.iter().filter(|link| is_lent(link)).count();
    let seen = |evidence| Seen::of("net_dir", scene.space.dir().display(), evidence, scene.files_age());
    match lent {
        0 => scene.say(seen(what), Some(Remedy::Files)),
        n => scene.say(seen(format!("{what}, and VMs have {n} of its TAPs")), None),
    }
}

/// Whether a VM has that link.
pub(super) fn is_lent(link: &Link) -> bool {
    matches!(role(link), Role::Tap(lib_machine::net::name::Holder::Machine { .. }))
}

/// The rules, against the bridges that are there.
fn rules(scene: &Scene<'_>) -> Option<Found> {
    let seen = |evidence: String| Seen::of("nft", "inet banger", evidence, rules_age(scene));
    let listed = match nat::list() {
        Ok(listed) => listed,
        Err(e) => return Some(scene.say(seen(format!("the rules cannot be read: {}", e.with_causes())), None)),
    };
    match (&scene.network, listed) {
        (Some(network), listed) => {
            let what = damage(&network.record, listed.as_ref())?;
            let evidence = format!("guests of `{}` reach what they should not: {what}", network.record.bridge);
            Some(scene.say(seen(evidence), None))
        }
        (None, Some(listed)) if are_nobodys(&listed.owners(), &scene.links) => {
            Some(scene.say(seen("the rules of a bridge that is gone".into()), Some(Remedy::Rules)))
        }
        (None, _) => None,
    }
}

/// What is wrong with the rules of a network that is up.
fn damage(network: &NetworkRecord, listed: Option<&nat::Listed>) -> Option<&'static str> {
    match listed {
        Some(listed) if !listed.owners().contains(&network.bridge) => Some("its rules are gone"),
        Some(listed) if !listed.is_whole(network) => Some("its rules are not those that bg-tap makes"),
        Some(_) => None,
        None => Some("its rules are gone"),
    }
}

/// Rules have no time of their own. Whoever makes some has made a directory before, so without one they are no work of now.
fn rules_age(scene: &Scene<'_>) -> Duration {
    if scene.space.dir().exists() { scene.files_age() } else { YOUNG }
}

/// Whether rules are of bridges that are not there.
pub(super) fn are_nobodys(owners: &BTreeSet<String>, links: &[Link]) -> bool {
    links.iter().all(|link| !owners.contains(&link.name))
}

/// Addresses and routes of others in the network of a bridge of ours.
fn overlaps(scene: &Scene<'_>, found: &mut Vec<Found>) -> Result<()> {
    if bridges(scene).next().is_none() {
        return Ok(());
    }
    let (addresses, routes) = (scene.netlink.addresses()?, scene.netlink.routes()?);
    for (link, _) in bridges(scene) {
        let network = scene.network.as_ref().filter(|network| network.record.bridge_index == link.index);
        let address = addresses.iter().find(|a| a.index == link.index);
        let subnet = match (network, address.and_then(|a| Cidr::new(a.address, a.prefix).ok())) {
            (Some(network), _) => network.record.subnet,
            (None, Some(has)) => network_of(has),
            (None, None) => continue,
        };
        let all: Vec<Conflict> = conflicts(subnet, link.index, &addresses, &routes).collect();
        for conflict in all.iter().filter(|c| !follows_from_an_address(c, &all)) {
            found.push(overlap(scene, (&link.name, subnet), conflict));
        }
    }
    Ok(())
}

/// Whether it is the route that came with an address which is said already.
fn follows_from_an_address(conflict: &Conflict, all: &[Conflict]) -> bool {
    let is_its = |c: &Conflict| !c.is_route && c.index == conflict.index && network_of(c.cidr) == conflict.cidr;
    conflict.is_route && all.iter().any(is_its)
}

fn overlap(scene: &Scene<'_>, (bridge, subnet): (&str, Cidr), conflict: &Conflict) -> Found {
    let Conflict { cidr, index, is_route } = conflict;
    let interface = scene.links.iter().find(|link| link.index == *index).map(|link| link.name.as_str());
    let at = interface.map_or_else(String::new, |name| format!(" dev {name}"));
    let (kind, verb) = if *is_route { ("route", "ip route del") } else { ("subnet", "ip address del") };
    let evidence = format!("{cidr}{at} overlaps with {subnet}, the guests' network of `{bridge}`");
    let seen = Seen::of(kind, format!("{cidr}{at}"), evidence, Duration::ZERO).owned(bridge.to_owned());
    let mut found = scene.say(seen, None);
    found.finding.fix = format!("{verb} {cidr}{at}  # or take another network: bg-tap down && bg-tap up --subnet CIDR");
    found
}

/// The files of namespaces that have ended. Nothing is said where the caller may not see every namespace.
pub fn dead_spaces(space: &Space) -> Result<Vec<Found>> {
    let uid = nix::unistd::geteuid();
    let Ok(entries) = looked_at(list(space.root()))? else { return Ok(vec![]) };
    let entries = entries.into_iter().map(|entry| entry.path());
    let inode = |path: &std::path::Path| path.file_name()?.to_str()?.parse::<u64>().ok();
    let others: Vec<_> = entries.filter_map(|path| Some((inode(&path)?, path))).collect();
    let others = others.into_iter().filter(|(inode, _)| *inode != space.netns()).collect::<Vec<_>>();
    if others.is_empty() {
        return Ok(vec![]);
    }
    let Some(living) = living() else { return Ok(vec![]) };
    let mut found = vec![];
    for (inode, path) in others.into_iter().filter(|(inode, _)| !living.contains(inode)) {
        let is_own =
            std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir() && (uid.is_root() || m.uid() == uid.as_raw()));
        if !is_own || is_held(&path.join("lock"))? {
            continue;
        }
        let evidence = format!("the network namespace {inode} has ended");
        let mut f = super::finding("net_dir", path.display().to_string(), evidence);
        let files = ["pool", "leases", "network.json", "."].map(|file| path.join(file));
        f.age_ms = files.iter().filter(|file| file.exists()).map(|file| age_ms(file)).min().unwrap_or(0);
        found.push(Found { finding: f, remedy: super::Any::Network(Remedy::DeadFiles(path)) });
    }
    Ok(found)
}
