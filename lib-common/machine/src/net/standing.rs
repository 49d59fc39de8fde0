//! Whether what is lent is still somebody's: what an audit makes of a TAP, a lease, a bridge. Pure.

use super::name::{Holder, bridge_owner, number};
use lib_common::sys::netlink::link::Link;
use std::net::Ipv4Addr;
use std::time::Duration;

/// What the store that is audited knows of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vm {
    /// Nothing.
    Unknown,
    /// Somebody works on it, or might.
    Busy,
    /// It is there.
    Known {
        /// Whether it runs.
        running: bool,
        /// The TAP of this namespace that its record names.
        tap: Option<String>,
        /// Its address in the network of this namespace.
        address: Option<Ipv4Addr>,
    },
}

/// For whose VM something was lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lender {
    /// For one of the store that is audited.
    This,
    /// For one of a store that is another, or that nobody can name.
    Other,
}

/// What is to be said of a thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: it is somebody's.
    Fine,
    /// That it is there: somebody uses it, whom this store does not know, or a person has to decide.
    Seen(String),
    /// That nobody has it any more.
    Abandoned(String),
}

/// A link of `bg-tap`'s, by its name, kind and alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A bridge, of that user.
    Bridge(u32),
    /// A TAP with an alias of ours.
    Tap(Holder),
    /// A TAP of ours by its name, which stays and says nothing of whose it is.
    Nameless,
    /// None of ours.
    Foreign,
}

/// What a link is. What others made under a name like ours is theirs; a TAP that does not stay is just being made.
pub fn role(link: &Link) -> Role {
    match (link.kind.as_str(), bridge_owner(&link.name), number(&link.name)) {
        ("bridge", Some(uid), _) => Role::Bridge(uid),
        ("tun", _, Some(_)) => match Holder::parse(&link.alias) {
            Some(holder) => Role::Tap(holder),
            None if link.alias.is_empty() && link.persistent => Role::Nameless,
            None => Role::Foreign,
        },
        _ => Role::Foreign,
    }
}

/// Of a TAP that a VM has. What a program has open is nobody's to take.
pub fn lent_tap(link: &Link, vm: &Vm) -> Standing {
    let open = if link.carrier { "a program has it open" } else { "no program has it open" };
    let what = match vm {
        Vm::Busy => return Standing::Fine,
        Vm::Unknown => "this store does not know the VM",
        Vm::Known { running: true, tap, .. } if tap.as_ref() == Some(&link.name) => return Standing::Fine,
        Vm::Known { running: true, .. } => "the VM runs without it",
        Vm::Known { running: false, .. } => "the VM does not run",
    };
    let evidence = format!("{what}, and {open}");
    if link.carrier { Standing::Seen(evidence) } else { Standing::Abandoned(evidence) }
}

/// Of an address that was lent and is on no TAP. A VM that does not run keeps its address, so that of another store is fine.
pub fn lease(at: Ipv4Addr, vm: &Vm, lender: Lender) -> Standing {
    match vm {
        Vm::Busy => Standing::Fine,
        Vm::Known { address, .. } if *address == Some(at) => Standing::Fine,
        Vm::Known { address: Some(other), .. } => Standing::Abandoned(format!("the VM has another address, {other}")),
        Vm::Known { address: None, .. } => Standing::Abandoned("the VM has no address by its record".into()),
        Vm::Unknown if lender == Lender::Other => Standing::Fine,
        Vm::Unknown => Standing::Abandoned("it was lent to a VM of this store, which is not there any more".into()),
    }
}

/// Of a bridge that no file names; `ports` is what is plugged in.
pub fn stray_bridge(ports: &[&Link]) -> Standing {
    let taps = ports.iter().filter(|link| matches!(role(link), Role::Tap(_))).count();
    match (taps, ports.len()) {
        (0, 0) => Standing::Abandoned("a bridge without a port, and no file says what it is for".into()),
        (0, n) => Standing::Seen(format!("no file says what it is for, and it has {n} ports of somebody else")),
        (n, _) => Standing::Seen(format!("the files of its network are lost, and {n} TAPs of bg-tap are on it")),
    }
}

/// Whether a thing of that age may be taken. `now` counts what is young too, but not where it may be another store's.
pub fn may_take(age: Duration, young: Duration, now: bool, lender: Lender) -> bool {
    age >= young || (now && lender == Lender::This)
}

#[cfg(test)]
mod tests;
