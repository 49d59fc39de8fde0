//! The network of a namespace: a bridge, TAPs on it, and addresses for guests.
//!
//! What belongs to a namespace lies in a directory of its own, by the namespace's inode:
//!
//! ```text
//! NET/INODE/network.json   what `bg-tap up` made; its bridge's index says whether it is still that one, and the kernel's
//!                          number of the namespace whether it is this namespace's: an inode is used again
//! NET/INODE/pool           which TAPs are idle: a hint, so that nobody has to look for one (module pool)
//! NET/INODE/leases         which VM has which address, since when, and in which store (module lease)
//! NET/INODE/hosts          how the VM at an address is named, and whose it is (module hosts)
//! NET/INODE/lock           up, down, fill and drain, one at a time
//! NET/INODE/{pool,leases}.lock  whose records are being changed
//! ```
//! Nothing is synced: it ends with the host's boot, as the namespace does. What is in the kernel names its owner: the
//! bridge by its name, a TAP by its alias, an nftables rule by its comment. Where they and a file differ, they are right.

pub mod dns;
pub mod hosts;
pub mod lease;
pub mod name;
pub mod nat;
pub mod pool;
pub mod standing;
pub mod subnet;

use hosts::Hosts;
use lease::Leases;
use lib_common::doc::{NETWORKS_DIR, NetworkRecord};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::{quote, typed_by_root};
use lib_common::sys::lock::Lock;
use lib_common::sys::netlink::Netlink;
use lib_common::sys::netlink::link::Link;
use lib_common::sys::netns;
use lib_common::sys::plain;
use lib_common::sys::records::Records;
use name::{Holder, MachineId};
use pool::Pool;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long those wait for the lock who have no configuration.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The files of the current network namespace.
#[derive(Clone, Debug)]
pub struct Space {
    root: PathBuf,
    dir: PathBuf,
    netns: u64,
    lock_wait: Duration,
}

/// A network that is up, with what it takes to work on it.
pub struct Open {
    /// Where it is.
    pub space: Space,
    /// What it is.
    pub record: NetworkRecord,
    /// A socket to the kernel.
    pub netlink: Netlink,
}

impl Space {
    /// Of the current namespace, in the directory `root` of all of them. Nothing is made yet.
    pub fn current(root: &Path, lock_wait: Duration) -> Result<Self> {
        let netns = lib_common::sys::netns::inode()?;
        lib_common::sys::owned::check_shared_dir(root).map_err(|e| {
            if e.code() == Code::Permission { e.also("it is the directory of networks: BG_NET_DIR") } else { e }
        })?;
        Ok(Space { dir: root.join(netns.to_string()), root: root.to_owned(), netns, lock_wait })
    }

    /// Of the current namespace, by its directory; `None` where that is another namespace's.
    fn at(dir: &Path) -> Result<Option<Self>> {
        let netns = lib_common::sys::netns::inode()?;
        let (Some(root), true) = (dir.parent(), dir.ends_with(netns.to_string())) else { return Ok(None) };
        Ok(Some(Space { dir: dir.to_owned(), root: root.to_owned(), netns, lock_wait: LOCK_WAIT }))
    }

    /// The namespace's inode.
    pub fn netns(&self) -> u64 {
        self.netns
    }

    /// The namespace's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where those of all namespaces are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The files of this namespace where they are unless that is configured; `None` where these are they.
    pub fn default_one(&self) -> Option<Self> {
        let root = PathBuf::from(NETWORKS_DIR);
        (self.root != root).then(|| Space { dir: root.join(self.netns.to_string()), root, ..self.clone() })
    }

    /// Makes the directory. Everybody may look into it, and nobody else may change it, whatever the umask is.
    pub fn prepare(&self) -> Result<()> {
        let parent = self.root.parent().unwrap_or(Path::new("/"));
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent);
        made.map_err(|e| Error::io("make", parent, &e))?;
        for dir in [&self.root, &self.dir] {
            let make = || {
                std::fs::DirBuilder::new().mode(0o755).create(dir)?;
                std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))
            };
            match make() {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(Error::io("make", dir, &e)),
                _ => {}
            }
        }
        let meta = std::fs::symlink_metadata(&self.dir).map_err(|e| Error::io("read", &self.dir, &e))?;
        if !meta.is_dir() || meta.uid() != nix::unistd::geteuid().as_raw() {
            return Err(Error::new(Code::Permission, format!("{} is not a directory of yours", self.dir.display())));
        }
        if self.root == Path::new(NETWORKS_DIR) {
            // Root's other runtime files lie there too, in private directories; `bg-tap ls` has to get past them.
            let parent = Path::new("/run/banger");
            let opened = std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o711));
            opened.map_err(|e| Error::io("open up", parent, &e))?;
        }
        Ok(())
    }

    /// Removes all files of the network.
    pub fn remove(&self) -> Result<()> {
        lib_common::sys::fs::remove_dir(&self.dir)
    }

    /// Keeps others from changing bridge and pool as a whole. The directory has to be there.
    pub fn lock(&self) -> Result<Lock> {
        Lock::take(&self.dir.join("lock"), self.lock_wait)
            .map_err(|e| e.within("somebody else changes the network of this namespace"))
    }

    /// The same, if nobody does so now.
    pub fn try_lock(&self) -> Result<Option<Lock>> {
        Lock::try_take(&self.dir.join("lock"))
    }

    /// What `bg-tap up` has written, if it has. What it wrote in another namespace, which had this inode before, is none.
    pub fn record(&self) -> Result<Option<NetworkRecord>> {
        self.record_in("network.json")
    }

    /// The same of the file of that name.
    pub fn record_in(&self, file: &str) -> Result<Option<NetworkRecord>> {
        let path = self.dir.join(file);
        let remedy = || format!("{} && {}", typed_by_root(&format!("rm -r {}", quote(&path.to_string_lossy()))), up());
        let text = plain::read_text(&path, lib_common::doc::MAX_BYTES as u64);
        let Some(text) = text.map_err(|e| e.hint(remedy()))? else { return Ok(None) };
        let record = lib_common::doc::strict::<NetworkRecord>(&text)
            .map_err(|e| e.within(format!("{} is damaged", path.display())).hint(remedy()))?;
        Ok((record.netns_cookie == netns::cookie()).then_some(record))
    }

    /// Writes it.
    pub fn save(&self, record: &NetworkRecord) -> Result<()> {
        let text = format!("{}\n", lib_common::doc::to_json(record));
        lib_common::sys::fs::replace(&self.dir.join("network.json"), text.as_bytes(), 0o644)
    }

    /// Removes the files of pool and leases, which were another network's.
    pub fn clear_tables(&self) -> Result<()> {
        ["pool", "leases", "hosts"].iter().try_for_each(|file| Records::<1>::remove(&self.dir.join(file)))
    }

    /// Makes the files of pool and leases, where they are missing.
    pub fn create_tables(&self, record: &NetworkRecord) -> Result<()> {
        Pool::create(&self.dir.join("pool"))?;
        Leases::create(&self.dir.join("leases"), record.subnet)?;
        Hosts::create(&self.dir.join("hosts"), record.subnet)
    }
}

impl Open {
    /// The network of the current namespace; [`Code::NotFound`] where there is none. A bridge of that name with another index
    /// is somebody else's, and so may a bridge be that has the index by now.
    pub fn current(root: &Path, lock_wait: Duration) -> Result<Self> {
        Self::of(Space::current(root, lock_wait)?)
    }

    fn of(space: Space) -> Result<Self> {
        let record = space.record()?.ok_or_else(|| no_network(space.netns))?;
        let netlink = Netlink::route()?;
        match netlink.link(&record.bridge)? {
            Some(link) if link.index == record.bridge_index => Ok(Open { space, record, netlink }),
            _ => Err(no_bridge(&record.bridge)),
        }
    }

    /// Lets a guest reach other networks.
    pub fn admit(&self, id: &MachineId, address: Ipv4Addr) -> Result<()> {
        // Whoever makes the table anew has looked at who has a TAP.
        let _lock = self.space.lock()?;
        nat::apply(&nat::admission(id, address))
    }

    /// Keeps a guest from that again.
    fn dismiss(&self, id: &MachineId, address: Ipv4Addr) -> Result<()> {
        let _lock = self.space.lock()?;
        match nat::apply(&nat::dismissal(id, address)) {
            Err(_) if !nat::is_there() => Ok(()),
            other => other,
        }
    }

    /// Its TAPs.
    pub fn pool(&self) -> Result<Pool<'_>> {
        Pool::open(&self.space.dir.join("pool"), self).map_err(mended_by_up)
    }

    /// How many idle TAPs are to be kept, for whoever may only look.
    pub fn idle_to_keep(&self) -> Result<u32> {
        Pool::target_in(&self.space.dir.join("pool")).map_err(mended_by_up)
    }

    /// Its leases.
    pub fn leases(&self) -> Result<Leases> {
        let leases = Leases::open(&self.space.dir.join("leases"), self.record.subnet, true).map_err(mended_by_up)?;
        Ok(leases.waiting(self.space.lock_wait))
    }

    /// The names of its VMs.
    pub fn hosts(&self, write: bool) -> Result<Hosts> {
        Hosts::open(&self.space.dir.join("hosts"), self.record.subnet, write).map_err(mended_by_up)
    }

    /// Its leases, to look at.
    pub fn leases_to_read(&self) -> Result<Leases> {
        Leases::open(&self.space.dir.join("leases"), self.record.subnet, false).map_err(mended_by_up)
    }

    /// Gives back an address whose VM has no TAP, and may be gone; gives the VM that had it.
    ///
    /// # Errors
    /// [`Code::InUse`] where a TAP has that address.
    pub fn give_up(&self, address: Ipv4Addr) -> Result<Option<MachineId>> {
        let leases = self.leases()?;
        let holder = leases.holder(address)?;
        self.refuse_used(address)?;
        let Some(id) = holder else { return Ok(None) };
        leases.give_up(&id, address)?;
        // Whoever has just found the VM's lease there is about to take a TAP for it: he has one when he is in no hurry any more.
        drop(self.pool()?.turn()?);
        if let Err(e) = self.refuse_used(address) {
            leases.note(&id, address)?;
            return Err(e);
        }
        Ok(Some(id))
    }

    fn refuse_used(&self, address: Ipv4Addr) -> Result<()> {
        let has = |link: &Link| match Holder::parse(&link.alias) {
            Some(Holder::Machine { address: at, .. }) => at == address,
            _ => false,
        };
        let Some((_, link)) = pool::look(&self.netlink)?.into_iter().find(|(_, link)| has(link)) else { return Ok(()) };
        let tap = &link.name;
        Err(Error::new(Code::InUse, format!("the address {address} is in use: a VM has the TAP `{tap}` with it"))
            .hint(format!("stop the VM first; bg-tap release --tap {tap} --with-address gives back both")))
    }

    /// What is wrong with its tables; each is made whole by `up`.
    pub fn damage(&self) -> Vec<String> {
        let lost = |n| {
            let path = self.space.dir.join("leases");
            let message = format!("{} is damaged: {n} addresses are taken and were never lent", path.display());
            Error::new(Code::BadInput, message)
        };
        let leases = self.leases_to_read().and_then(|leases| leases.damaged());
        let leases = leases.and_then(|n| if n == 0 { Ok(()) } else { Err(lost(n)) });
        let all = [self.idle_to_keep().map(drop), leases, self.hosts(false).map(drop)];
        all.into_iter().filter_map(Result::err).map(|e| e.with_causes()).collect()
    }

    /// Notes what VMs have by the aliases of these TAPs. Where a lease says otherwise the alias is right.
    pub fn note_holders(&self, taps: &[(u32, Link)]) -> Result<()> {
        let leases = self.leases()?;
        for (_, link) in taps {
            let Some(Holder::Machine { id, address, .. }) = Holder::parse(&link.alias) else { continue };
            leases.note(&id, address)?;
            let is_so = || Ok(self.netlink.link(&link.name)?.is_some_and(|now| now.alias == link.alias));
            leases.overrule(&id, address, is_so)?;
        }
        Ok(())
    }
}

impl Open {
    /// What a VM of the caller's has. A document may name any id: what is lent for another user's VM stays lent.
    fn give_back_all(&self, id: &MachineId, with_address: bool) -> Result<()> {
        let uid = nix::unistd::geteuid().as_raw();
        let is_its = |link: &Link| {
            let its = matches!(Holder::parse(&link.alias), Some(Holder::Machine { id: of, .. }) if of == *id);
            its && link.tun_owner.is_none_or(|owner| owner == uid)
        };
        let pool = self.pool()?;
        for (_, link) in pool::look(&self.netlink)?.into_iter().filter(|(_, link)| is_its(link)) {
            pool.give_back(&link.name, Some(id))?;
        }
        let leases = self.leases()?;
        let Some(address) = (if with_address { leases.of(id)? } else { None }) else { return Ok(()) };
        match self.hosts(false)?.user_of(id, address)? {
            Some(user) if user != uid => Ok(()),
            _ => leases.give_up(id, address),
        }
    }
}

/// What makes the network, as this caller has to type it.
fn up() -> String {
    typed_by_root("bg-tap up")
}

/// Tables that cannot be opened `up` makes anew, from what the kernel knows.
fn mended_by_up(e: Error) -> Error {
    if matches!(e.code(), Code::BadInput | Code::MissingFile) { e.hint(up()) } else { e }
}

/// There is no network in this namespace.
pub fn no_network(netns: u64) -> Error {
    Error::new(Code::NotFound, format!("there is no network in this network namespace ({netns})")).hint(up())
}

/// The bridge that `bg-tap up` made is not there any more.
pub fn no_bridge(bridge: &str) -> Error {
    Error::new(Code::NotFound, format!("the bridge `{bridge}` of this network is gone")).hint(up())
}

/// Gives back the TAP of a VM that has ended; an address stays. What was given back already is fine, and so is a network
/// that is gone.
pub fn give_back(network_dir: &Path, tap: &str, id: &str) -> Result<()> {
    let Some(network) = open_at(network_dir)? else { return Ok(()) };
    network.pool()?.give_back(tap, Some(&name::machine_id(id)?)).map(drop)
}

/// Checks that a VM's TAP is there, is the VM's by its alias, and is on the network's bridge: a VMM that runs as root makes a TAP
/// that is missing, on no bridge.
///
/// # Errors
/// [`Code::NotFound`] says which of these is not so.
pub fn check_lent(network_dir: &Path, tap: &str, id: &str) -> Result<()> {
    let id = name::machine_id(id)?;
    let wrong = |what: &str| Err(Error::new(Code::NotFound, format!("the VM's TAP `{tap}` {what}")));
    let Some(network) = open_at(network_dir)? else { return wrong("is gone with its network") };
    let Some(link) = network.netlink.link(tap)? else { return wrong("is gone") };
    match Holder::parse(&link.alias) {
        Some(Holder::Machine { id: of, .. }) if of == id => {}
        _ => return wrong("is not this VM's any more"),
    }
    if link.master == network.record.bridge_index { Ok(()) } else { wrong("is not on its bridge") }
}

/// Gives back whatever TAP a VM of the caller's has, and its address where that is said.
pub fn give_back_all(network_dir: &Path, id: &str, with_address: bool) -> Result<()> {
    let Some(network) = open_at(network_dir)? else { return Ok(()) };
    network.give_back_all(&name::machine_id(id)?, with_address)
}

/// The same with its address, where the VM has one. That it has none costs no look at every link.
pub fn give_back_held(network_dir: &Path, id: &str) -> Result<()> {
    let Some(network) = open_at(network_dir)? else { return Ok(()) };
    let id = name::machine_id(id)?;
    if network.leases_to_read()?.of(&id)?.is_some() { network.give_back_all(&id, true) } else { Ok(()) }
}

/// The network of that directory; `None` where it is gone with its namespace or without it.
fn open_at(dir: &Path) -> Result<Option<Open>> {
    let Some(space) = Space::at(dir)? else {
        let inode = dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        return match inode {
            Some(inode) if netns::is_alive(inode)? => Err(elsewhere(inode)),
            _ => Ok(None),
        };
    };
    match Open::of(space) {
        Err(e) if e.code() == Code::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// The TAP is in another namespace than the caller.
pub fn elsewhere(netns: u64) -> Error {
    Error::new(Code::NotFound, format!("the VM's TAP is in another network namespace ({netns})"))
        .hint("run it there: nsenter --net=/proc/PID/ns/net")
}
