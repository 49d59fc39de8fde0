//! TAPs and leases: which VM has them, by this store; those that nobody has; and those that are ready.

use super::owners::Owners;
use super::{Found, Remedy, Scene, Seen, YOUNG};
use lib_common::error::Result;
use lib_common::sys::netlink::link::Link;
use lib_machine::net::lease::Leases;
use lib_machine::net::name::{Holder, MachineId, hex};
use lib_machine::net::standing::{self, Lender, Role, Standing, Vm, role};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// After this an address is told of that has no TAP and is of a VM in another store, which may only have been stopped for long.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// What is said of it.
const FORGOTTEN: &str = "a VM that this store does not know has it, and no TAP; is the VM gone, nobody gives it back";

/// Something that a VM has, or had.
struct Loan<'a> {
    id: MachineId,
    address: Ipv4Addr,
    tap: Option<&'a Link>,
}

/// Every TAP and lease of which something is to be said.
pub fn taps(scene: &Scene<'_>, found: &mut Vec<Found>) -> Result<()> {
    pools(scene, found);
    for link in scene.links.iter().filter(|link| role(link) == Role::Nameless && !link.carrier) {
        let seen =
            Seen::of("tap", &link.name, "a TAP that says of nobody, and no program has it open", scene.files_age());
        found.push(scene.say(seen, Some(Remedy::RemoveTap(link.name.clone()))));
    }
    let mut loans: Vec<Loan<'_>> = scene.links.iter().filter_map(loan_of).collect();
    found.extend(tables(scene));
    let leases = scene.network.as_ref().and_then(|network| network.leases_to_read().ok());
    for (address, id) in leases.as_ref().map_or(Ok(vec![]), Leases::lent)? {
        if loans.iter().all(|loan| (loan.address, loan.id) != (address, id)) {
            loans.push(Loan { id, address, tap: None });
        }
    }
    if loans.is_empty() {
        return Ok(());
    }
    let owners = Owners::of(scene.store, scene.space.netns())?;
    for loan in &loans {
        found.extend(judge(scene, &owners, leases.as_ref(), loan)?);
    }
    Ok(())
}

/// What is wrong with the files of the network that is up: damage, and never a reason to look at nothing else.
fn tables(scene: &Scene<'_>) -> Option<Found> {
    let damage = scene.network.as_ref()?.damage();
    let seen = || Seen::of("net_dir", scene.space.dir().display(), damage.join("; "), scene.files_age());
    (!damage.is_empty()).then(|| scene.say(seen(), None))
}

fn loan_of(link: &Link) -> Option<Loan<'_>> {
    match role(link) {
        Role::Tap(Holder::Machine { id, address, .. }) => Some(Loan { id, address, tap: Some(link) }),
        _ => None,
    }
}

fn judge(scene: &Scene<'_>, owners: &Owners, leases: Option<&Leases>, loan: &Loan<'_>) -> Result<Option<Found>> {
    let Loan { id, address, tap } = loan;
    let vm = owners.vm(id);
    let note = leases.map_or(Ok(None), |leases| leases.signed(id, *address))?;
    let named = owners.named(id);
    let ours = named.is_some() || note.is_some_and(|note| note.store == scene.tag);
    let lender = if ours { Lender::This } else { Lender::Other };
    let age = note.map_or_else(|| scene.files_age(), |note| note.age());
    let age = named.map_or(age, |(_, untouched)| age.min(untouched));
    let owner = named.map_or_else(|| hex(id), |(name, _)| name.to_string());
    let seen = |kind, what: &str, evidence: String| Seen::of(kind, what, evidence, age).owned(owner.clone());
    let keeps = matches!(&vm, Vm::Known { address: Some(own), .. } if own == address);
    let standing = match tap {
        Some(link) => standing::lent_tap(link, &vm),
        None => standing::lease(*address, &vm, lender),
    };
    Ok(match (standing, tap) {
        (Standing::Fine, Some(link)) if off_bridge(scene, link) => {
            Some(scene.say(seen("tap", &link.name, "it is not on the bridge".into()), None))
        }
        (Standing::Fine, None) if vm == Vm::Unknown => {
            let forgotten = note.filter(|note| note.age() >= if note.store == 0 { YOUNG } else { LONG });
            let forgotten = forgotten.filter(|_| lender == Lender::Other);
            forgotten.map(|_| forgotten_lease(scene, seen("lease", &address.to_string(), FORGOTTEN.into()), *address))
        }
        (Standing::Fine, _) | (Standing::Seen(_), None) => None,
        (Standing::Seen(evidence), Some(link)) => {
            let mut found = scene.say(seen("tap", &link.name, with_user(link, &evidence)), None);
            found.finding.fix = who_has(&link.name);
            Some(found)
        }
        // Whoever gave it back meanwhile has it no more.
        (Standing::Abandoned(_), Some(link)) if !is_unchanged(scene, link)? => None,
        (Standing::Abandoned(evidence), Some(link)) if keeps_its_loan(link, leases, (id, *address))? => {
            let mut found = scene.say(seen("tap", &link.name, with_user(link, &evidence)), None);
            if scene.instead.is_none() && scene.network.is_some() {
                found.finding.fix = format!("bg-tap release --tap {} --with-address", link.name);
            }
            Some(found)
        }
        (Standing::Abandoned(evidence), Some(link)) => {
            let give_up = (!keeps && lender == Lender::This).then_some(*address);
            let vm = named.map(|(name, _)| name.clone());
            let remedy = Remedy::GiveBack { tap: link.name.clone(), id: *id, vm, address: give_up };
            let remedy = scene.network.is_some().then_some(remedy);
            Some(scene.say_of(seen("tap", &link.name, with_user(link, &evidence)), remedy, lender))
        }
        (Standing::Abandoned(_), None) if !leases.map_or(Ok(false), |leases| leases.has(id, *address))? => None,
        (Standing::Abandoned(evidence), None) => {
            let seen = seen("lease", &address.to_string(), evidence);
            Some(scene.say_of(seen, Some(Remedy::GiveUp(*id, *address)), lender))
        }
    })
}

/// An address that a VM has which nobody here knows. It may only be stopped, so a person has to decide.
fn forgotten_lease(scene: &Scene<'_>, seen: Seen, address: Ipv4Addr) -> Found {
    let mut found = scene.say(seen, None);
    if scene.instead.is_none() {
        found.finding.fix = format!("bg-tap release --address {address}");
    }
    found
}

/// Whether a TAP that nobody has open was lent to another user than the one who looks, whose VM keeps it over stop and start.
/// That VM is in no store that can be looked at; while it has the address it is there.
fn keeps_its_loan(link: &Link, leases: Option<&Leases>, (id, address): (&MachineId, Ipv4Addr)) -> Result<bool> {
    let me = nix::unistd::geteuid().as_raw();
    if link.tun_owner.is_none_or(|owner| owner == me) {
        return Ok(false);
    }
    leases.map_or(Ok(true), |leases| leases.has(id, address))
}

fn with_user(link: &Link, evidence: &str) -> String {
    let user = link.tun_owner.map_or_else(|| "any user".into(), |uid| format!("user {uid}"));
    format!("{evidence}; {user} may open it")
}

fn is_unchanged(scene: &Scene<'_>, link: &Link) -> Result<bool> {
    let again = scene.netlink.link(&link.name)?;
    Ok(again.is_some_and(|again| (&again.alias, again.carrier) == (&link.alias, link.carrier)))
}

/// Whether a TAP is on no bridge of ours; on which it is to be is not known without the network's files.
fn off_bridge(scene: &Scene<'_>, link: &Link) -> bool {
    match &scene.network {
        Some(network) => link.master != network.record.bridge_index,
        None => bridge_of(scene, link).is_none(),
    }
}

fn bridge_of<'a>(scene: &'a Scene<'_>, link: &Link) -> Option<&'a Link> {
    scene.links.iter().find(|l| l.index == link.master && matches!(role(l), Role::Bridge(_)))
}

/// What names the processes that have a TAP open: tun(4) says in their fdinfo which.
fn who_has(tap: &str) -> String {
    format!("grep -ls '^iff:.*{tap}$' /proc/[0-9]*/fdinfo/*  # who has it open: end that")
}

/// Idle TAPs: one finding a bridge, of what is ready there; and those that are not as they should be.
fn pools(scene: &Scene<'_>, found: &mut Vec<Found>) {
    let mut ready: BTreeMap<&str, BTreeMap<Option<u32>, u32>> = BTreeMap::new();
    for link in scene.links.iter().filter(|link| role(link) == Role::Tap(Holder::Pool)) {
        let seen = |evidence: &str| Seen::of("tap", &link.name, evidence, scene.files_age());
        if link.carrier {
            let mut open = scene.say(seen("nobody has it by its alias, and a program has it open"), None);
            open.finding.fix = who_has(&link.name);
            found.push(open);
        } else if off_bridge(scene, link) {
            let gone = Remedy::RemoveTap(link.name.clone());
            let remedy = if scene.network.is_some() { Remedy::Attach } else { gone };
            found.push(scene.say(seen("an idle TAP that is on no bridge"), Some(remedy)));
        } else if let Some(bridge) = bridge_of(scene, link) {
            *ready.entry(&bridge.name).or_default().entry(link.tun_owner).or_default() += 1;
        }
    }
    for (bridge, users) in ready {
        found.push(pool(scene, bridge, &users));
    }
}

/// That so many TAPs of a bridge are ready: capacity, and no leak.
fn pool(scene: &Scene<'_>, bridge: &str, users: &BTreeMap<Option<u32>, u32>) -> Found {
    let users = users.iter().map(|(user, count)| match user {
        Some(uid) => format!("{count} of user {uid}"),
        None => format!("{count} of any user"),
    });
    let target = scene.network.as_ref().and_then(|network| network.idle_to_keep().ok());
    let kept = target.map_or_else(String::new, |target| format!("; `bg-tap pool fill` keeps {target}"));
    let evidence = format!("idle TAPs, ready for VMs: {}{kept}", users.collect::<Vec<_>>().join(", "));
    let mut found = scene.say(Seen::of("tap_pool", bridge, evidence, Duration::ZERO), None);
    found.finding.age_ms = u64::try_from(scene.files_age().as_millis()).unwrap_or(u64::MAX);
    if scene.network.is_some() && scene.instead.is_none() {
        found.finding.fix = "bg-tap pool drain".into();
    }
    found
}
