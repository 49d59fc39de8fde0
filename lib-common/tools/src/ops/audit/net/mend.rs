//! Taking one thing of a network away: by the ordinary code, under the locks that the ordinary tools take, after one more
//! look at it.

use super::fabric::{are_nobodys, is_lent};
use super::{Remedy, is_there};
use crate::ops::machine::is_running;
use crate::ops::tap::{known_uplinks, last_record, restore_forwarding};
use lib_common::doc::{Name, Net, NetworkRecord};
use lib_common::error::{Code, Result};
use lib_common::sys::fs::remove_dir;
use lib_common::sys::lock::{Lock, is_held};
use lib_common::sys::netlink::Netlink;
use lib_common::sys::netlink::link::Link;
use lib_machine::config::Config;
use lib_machine::net::name::{MachineId, machine_id};
use lib_machine::net::standing::{Role, role};
use lib_machine::net::{Open, Space, nat, pool};
use lib_machine::store::{Store, id_of};
use std::net::Ipv4Addr;
use std::path::Path;

/// Takes it away; false where somebody has it by now.
pub fn mend(store: &Store, config: &Config, remedy: &Remedy) -> Result<bool> {
    match remedy {
        Remedy::GiveBack { tap, id, vm, address } => {
            of_vm(store, vm.as_ref(), id, || give_back(config, tap, id, *address), Some(tap))
        }
        Remedy::GiveUp(id, address) => {
            let give_up =
                || Open::current(&config.net_dir, config.lock_wait)?.leases()?.give_up(id, *address).map(|()| true);
            of_vm(store, None, id, give_up, None)
        }
        Remedy::DeadFiles(dir) => dead_files(dir),
        Remedy::Attach => locked(config, |_, _| {
            Open::current(&config.net_dir, config.lock_wait)?.pool()?.repair()?;
            Ok(true)
        }),
        Remedy::RemoveTap(tap) => locked(config, |netlink, now| remove_tap(config, netlink, now, tap)),
        Remedy::Bridge(bridge) => locked(config, |netlink, now| remove_bridge(netlink, now, bridge)),
        Remedy::Rules => locked(config, |_, now| now.remove_rules()),
        Remedy::Files => locked(config, |_, now| now.remove_files()),
    }
}

/// Does it while nobody works on that VM, where the store has it, and it does not run with the TAP; its record then says
/// that the VM has it no more.
fn of_vm(
    store: &Store,
    vm: Option<&Name>,
    id: &MachineId,
    work: impl FnOnce() -> Result<bool>,
    tap: Option<&String>,
) -> Result<bool> {
    let Some(machine) = vm.map(|name| store.machine_dir(name)).filter(|machine| machine.path().exists()) else {
        return work();
    };
    let Some(_lock) = Lock::try_take(&machine.file("lock"))? else { return Ok(false) };
    let mut doc = machine.current()?;
    let is_it = machine_id(&id_of(&doc)?)? == *id;
    let netns = lib_common::sys::netns::inode()?;
    let net = doc.section::<Net>()?.filter(|net| is_it && net.netns == netns && net.tap.as_ref() == tap);
    if net.is_some() && is_running(&doc)? {
        return Ok(false);
    }
    if !work()? {
        return Ok(false);
    }
    if let Some(mut net) = net {
        net.tap = None;
        doc.set(&net);
        machine.save(&doc)?;
    }
    Ok(true)
}

fn give_back(config: &Config, tap: &str, id: &MachineId, address: Option<Ipv4Addr>) -> Result<bool> {
    let network = Open::current(&config.net_dir, config.lock_wait)?;
    match network.pool()?.give_back(tap, Some(id)) {
        // A program has it open by now.
        Err(e) if e.code() == Code::InUse => return Ok(false),
        done => done?,
    };
    address.map_or(Ok(()), |address| network.leases()?.give_up(id, address))?;
    Ok(true)
}

fn dead_files(dir: &Path) -> Result<bool> {
    let inode = dir.file_name().and_then(|name| name.to_str()?.parse::<u64>().ok());
    // A new namespace may have got the number.
    let lives = lib_common::sys::netns::living().is_none_or(|living| inode.is_none_or(|inode| living.contains(&inode)));
    if lives || is_held(&dir.join("lock"))? { Ok(false) } else { remove_dir(dir).map(|()| true) }
}

/// The namespace as it is, while no `up` or `down` works in it.
struct Now {
    space: Space,
    links: Vec<Link>,
    recorded: Option<NetworkRecord>,
}

fn locked(config: &Config, work: impl FnOnce(&Netlink, &Now) -> Result<bool>) -> Result<bool> {
    let space = Space::current(&config.net_dir, config.lock_wait)?;
    let lock = if space.dir().exists() { space.try_lock()? } else { None };
    if lock.is_none() && space.dir().exists() {
        return Ok(false);
    }
    let netlink = Netlink::route()?;
    let now = Now { links: netlink.links()?, recorded: space.record()?, space };
    work(&netlink, &now)
}

impl Now {
    fn is_up(&self) -> bool {
        self.recorded.as_ref().is_some_and(|record| is_there(&self.links, record))
    }

    /// Rules of bridges that are not there. Forwarding goes back first to what it was: until then it is the rules that keep
    /// others from an uplink, and nobody else may know of it any more.
    fn remove_rules(&self) -> Result<bool> {
        let Some(listed) = nat::list()? else { return Ok(true) };
        if self.is_up() || !are_nobodys(&listed.owners(), &self.links) {
            return Ok(false);
        }
        restore_forwarding(&known_uplinks(self.recorded.as_ref(), Some(&listed)))?;
        nat::apply(&nat::removal().to_nftables()).map(|()| true)
    }

    /// With what belonged to a network that is not there.
    fn remove_files(&self) -> Result<bool> {
        if self.is_up() || self.links.iter().any(is_lent) {
            return Ok(false);
        }
        last_record(&self.space)?.map_or(Ok(()), |record| restore_forwarding(&record.uplinks))?;
        self.remove_rules()?;
        self.space.remove().map(|()| true)
    }
}

fn remove_tap(config: &Config, netlink: &Netlink, now: &Now, tap: &String) -> Result<bool> {
    let unused = |link: &Link| !link.carrier && matches!(role(link), Role::Nameless | Role::Tap(_)) && !is_lent(link);
    let removed = pool::remove_links(netlink, std::slice::from_ref(tap), unused)?;
    if now.is_up() {
        // Its number is free again.
        Open::current(&config.net_dir, config.lock_wait)?.pool()?.repair()?;
    }
    Ok(removed > 0 || netlink.link(tap)?.is_none())
}

fn remove_bridge(netlink: &Netlink, now: &Now, bridge: &String) -> Result<bool> {
    let Some(link) = now.links.iter().find(|link| link.name == *bridge) else { return Ok(true) };
    let is_used = now.links.iter().any(|port| port.master == link.index);
    let is_up = now.recorded.as_ref().is_some_and(|record| record.bridge_index == link.index);
    if is_used || is_up || !matches!(role(link), Role::Bridge(_)) {
        return Ok(false);
    }
    let index = link.index;
    let links = now.links.iter().filter(|link| link.index != index).cloned().collect();
    let left = Now { space: now.space.clone(), links, recorded: now.recorded.clone() };
    if !left.is_up() {
        // While the bridge is there to be found by, should this be the last that we do.
        left.remove_rules()?;
    }
    pool::remove_links(netlink, std::slice::from_ref(bridge), |link| link.index == index)?;
    if !left.is_up() {
        left.remove_files()?;
    }
    Ok(true)
}
