//! What `bg-tap` made: TAPs, leases, bridges, rules, files. It is in the kernel, with its owner's name on it, so it is found
//! when the state directory is lost, and when the network's own files are.
//!
//! Where there is neither a directory of this namespace nor a link or table of ours, one list of links and one question are
//! all that this costs.

mod fabric;
mod mend;
mod owners;
mod taps;

pub use mend::mend;

use super::{Found, Remedy as Any, YOUNG, age_ms, finding};
use lib_common::doc::{Name, NetworkRecord};
use lib_common::error::Result;
use lib_common::sys::netlink::Netlink;
use lib_common::sys::netlink::link::Link;
use lib_machine::config::Config;
use lib_machine::net::lease::store_tag;
use lib_machine::net::name::MachineId;
use lib_machine::net::standing::{Lender, Role, may_take, role};
use lib_machine::net::{Open, Space, nat};
use lib_machine::store::Store;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

/// How to take a thing of a network away.
#[derive(Debug)]
pub enum Remedy {
    /// Give a TAP back.
    GiveBack {
        /// The device.
        tap: String,
        /// The VM that its alias names.
        id: MachineId,
        /// That VM, where the store knows it.
        vm: Option<Name>,
        /// The address too, which the VM has no more.
        address: Option<Ipv4Addr>,
    },
    /// Give an address up.
    GiveUp(MachineId, Ipv4Addr),
    /// Put idle TAPs back on the bridge.
    Attach,
    /// Remove a TAP that nobody has and no network can use.
    RemoveTap(String),
    /// Remove a bridge without ports, and what belonged to it.
    Bridge(String),
    /// Remove the rules of a bridge that is gone.
    Rules,
    /// Remove the files of a network whose bridge is gone.
    Files,
    /// Remove the files of a namespace that has ended.
    DeadFiles(PathBuf),
}

/// What is looked at, and who looks.
struct Scene<'a> {
    store: &'a Store,
    space: Space,
    netlink: Netlink,
    links: Vec<Link>,
    /// The network that is up.
    network: Option<Open>,
    /// What `up` wrote of one that is not.
    stale: Option<NetworkRecord>,
    /// Why nothing may be taken away, as what to type instead.
    instead: Option<String>,
    now: bool,
    tag: u64,
}

/// One thing, before it is said.
struct Seen {
    kind: &'static str,
    id: String,
    owner: String,
    evidence: String,
    age: Duration,
}

/// What nobody has any more in the network of this namespace, what is in its way, and how many TAPs are ready.
pub fn networks(store: &Store, config: &Config, now: bool) -> Result<Vec<Found>> {
    let space = Space::current(&config.net_dir, config.lock_wait)?;
    let mut found = fabric::dead_spaces(&space)?;
    let netlink = Netlink::route()?;
    let links = netlink.links()?;
    let uid = nix::unistd::geteuid().as_raw();
    // Before the directory: who makes a table has made that.
    let has_rules = uid == 0 && nat::is_there();
    if !has_rules && links.iter().all(|link| role(link) == Role::Foreign) && !space.dir().exists() {
        return Ok(found);
    }
    let recorded = space.record();
    let damage = recorded.as_ref().err().cloned();
    let (live, stale) = match recorded.ok().flatten() {
        Some(r) if is_there(&links, &r) => (Some(r), None),
        other => (None, other),
    };
    let network = match live {
        Some(record) => Some(Open { space: space.clone(), record, netlink: Netlink::route()? }),
        None => None,
    };
    let tag = store_tag(uid, store.state_dir());
    let mut scene = Scene { store, space, netlink, links, network, stale, instead: None, now, tag };
    scene.instead = match &damage {
        Some(e) => e.get_hint().map(str::to_owned),
        None => scene.managed_elsewhere()?.or_else(|| scene.refused(uid)),
    };
    if let Some(damage) = damage {
        let age = scene.files_age();
        found.push(scene.say(Seen::of("net_dir", scene.space.dir().display(), damage.with_causes(), age), None));
    }
    taps::taps(&scene, &mut found)?;
    fabric::fabric(&scene, &mut found)?;
    Ok(found)
}

/// Whether the bridge of a record is there.
fn is_there(links: &[Link], record: &NetworkRecord) -> bool {
    links.iter().any(|link| link.name == record.bridge && link.index == record.bridge_index)
}

impl Seen {
    fn of(kind: &'static str, id: impl ToString, evidence: impl Into<String>, age: Duration) -> Self {
        Seen { kind, id: id.to_string(), owner: String::new(), evidence: evidence.into(), age }
    }

    fn owned(self, owner: String) -> Self {
        Seen { owner, ..self }
    }
}

impl Scene<'_> {
    /// The network is another net directory's: the usual one's, while another one is configured.
    fn managed_elsewhere(&self) -> Result<Option<String>> {
        let Some(usual) = self.space.default_one().filter(|_| self.network.is_none()) else { return Ok(None) };
        // What is damaged may be its own.
        let there = usual.record().map_or(true, |r| r.is_some_and(|r| is_there(&self.links, &r)));
        Ok(there.then(|| format!("BG_NET_DIR={} bg-verify", lib_common::doc::NETWORKS_DIR)))
    }

    /// Who may change the network: root, and who made it.
    fn refused(&self, uid: u32) -> Option<String> {
        let made = match std::fs::symlink_metadata(self.space.dir()) {
            Ok(meta) => meta.uid() == uid,
            Err(_) => self.links.iter().any(|link| role(link) == Role::Bridge(uid)),
        };
        (uid != 0 && !made).then(|| "sudo bg-verify | sudo bg-gc".into())
    }

    /// How long nobody has taken, made or given back a TAP here: nothing of this network is younger than that.
    fn files_age(&self) -> Duration {
        let ages = ["pool", "leases", "network.json", "."].map(|file| self.space.dir().join(file));
        let ages = ages.iter().filter(|path| path.exists()).map(|path| age_ms(path)).min();
        Duration::from_millis(ages.unwrap_or(0))
    }

    /// A finding; a leak, once it is old, where it has a remedy.
    fn say(&self, seen: Seen, remedy: Option<Remedy>) -> Found {
        self.say_of(seen, remedy, Lender::This)
    }

    fn say_of(&self, seen: Seen, remedy: Option<Remedy>, lender: Lender) -> Found {
        let mut f = finding(seen.kind, seen.id, seen.evidence);
        (f.owner, f.age_ms) = (seen.owner, u64::try_from(seen.age.as_millis()).unwrap_or(u64::MAX));
        if remedy.is_none() {
            f.fix = "bg-tap up".into();
        }
        if let Some(instead) = &self.instead {
            f.fix.clone_from(instead);
        }
        let remedy = remedy.filter(|_| self.instead.is_none());
        // Where it may be another store's it has to be old whatever was asked for.
        let remedy = remedy.filter(|_| lender == Lender::This || may_take(seen.age, YOUNG, self.now, lender));
        Found { finding: f, remedy: remedy.map_or(Any::Report, Any::Network) }
    }
}
