//! The network of a namespace: a bridge, TAPs on it, and addresses for guests.
//!
//! What belongs to a namespace lies in a directory of its own, by the namespace's inode:
//!
//! ```text
//! NET/INODE/network.json   what `bg-tap up` made; its bridge's index says whether it is still that one
//! NET/INODE/pool           which TAPs are idle: a hint, so that nobody has to look for one (module pool)
//! NET/INODE/leases         which VM has which address, since when, and in which store (module lease)
//! NET/INODE/lock           up, down, fill and drain, one at a time
//! ```
//! Nothing is synced: it ends with the host's boot, as the namespace does. What is in the kernel names its owner: the
//! bridge by its name, a TAP by its alias, an nftables rule by its comment. Where they and a file differ, they are right.

pub mod lease;
pub mod name;
pub mod nat;
pub mod pool;
pub mod standing;
pub mod subnet;

use crate::config::Config;
use crate::doc::NetworkRecord;
use crate::error::{Code, Error, Result};
use crate::sys::lock::Lock;
use crate::sys::netlink::Netlink;
use lease::Leases;
use pool::Pool;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the directories of namespaces are, unless it is configured.
pub const DEFAULT_DIR: &str = "/run/banger/net";

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
    /// Of the current namespace. Nothing is made yet.
    pub fn current(config: &Config) -> Result<Self> {
        let netns = crate::sys::netns::inode()?;
        let root = config.net_dir.clone();
        Ok(Space { dir: root.join(netns.to_string()), root, netns, lock_wait: config.lock_wait })
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
        let root = PathBuf::from(DEFAULT_DIR);
        (self.root != root).then(|| Space { dir: root.join(self.netns.to_string()), root, ..self.clone() })
    }

    /// Makes the directory. Everybody may look into it, and nobody else may change it.
    pub fn prepare(&self) -> Result<()> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.dir);
        made.map_err(|e| Error::io("make", &self.dir, &e))?;
        let meta = std::fs::symlink_metadata(&self.dir).map_err(|e| Error::io("read", &self.dir, &e))?;
        if !meta.is_dir() || meta.uid() != nix::unistd::geteuid().as_raw() {
            return Err(Error::new(Code::Permission, format!("{} is not a directory of yours", self.dir.display())));
        }
        if self.root == Path::new(DEFAULT_DIR) {
            // Root's other runtime files lie there too, in private directories; `bg-tap ls` has to get past them.
            let parent = Path::new("/run/banger");
            let opened = std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o711));
            opened.map_err(|e| Error::io("open up", parent, &e))?;
        }
        Ok(())
    }

    /// Removes all files of the network.
    pub fn remove(&self) -> Result<()> {
        crate::sys::fs::remove_dir(&self.dir)
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

    /// What `bg-tap up` has written, if it has.
    pub fn record(&self) -> Result<Option<NetworkRecord>> {
        let path = self.dir.join("network.json");
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                crate::doc::strict(&text).map(Some).map_err(|e| e.within(format!("{} is damaged", path.display())))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", &path, &e)),
        }
    }

    /// Writes it.
    pub fn save(&self, record: &NetworkRecord) -> Result<()> {
        let text = format!("{}\n", crate::doc::to_json(record));
        crate::sys::fs::replace(&self.dir.join("network.json"), text.as_bytes(), 0o644)
    }

    /// Removes the files of pool and leases, which were another network's.
    pub fn clear_tables(&self) -> Result<()> {
        ["pool", "leases"].iter().try_for_each(|file| crate::sys::fs::remove_file(&self.dir.join(file)))
    }

    /// Makes the files of pool and leases, where they are missing.
    pub fn create_tables(&self, record: &NetworkRecord) -> Result<()> {
        Pool::create(&self.dir.join("pool"))?;
        Leases::create(&self.dir.join("leases"), record.subnet)
    }
}

impl Open {
    /// The network of the current namespace; [`Code::NotFound`] where there is none.
    pub fn current(config: &Config) -> Result<Self> {
        let space = Space::current(config)?;
        let record = space.record()?.ok_or_else(|| no_network(space.netns))?;
        let netlink = Netlink::route()?;
        Ok(Open { space, record, netlink })
    }

    /// Its TAPs.
    pub fn pool(&self) -> Result<Pool<'_>> {
        Pool::open(&self.space.dir.join("pool"), self)
    }

    /// How many idle TAPs are to be kept, for whoever may only look.
    pub fn idle_to_keep(&self) -> Result<u32> {
        Pool::target_in(&self.space.dir.join("pool"))
    }

    /// Its leases.
    pub fn leases(&self) -> Result<Leases> {
        Leases::open(&self.space.dir.join("leases"), self.record.subnet, true)
    }

    /// Its leases, to look at.
    pub fn leases_to_read(&self) -> Result<Leases> {
        Leases::open(&self.space.dir.join("leases"), self.record.subnet, false)
    }
}

/// There is no network in this namespace.
pub fn no_network(netns: u64) -> Error {
    Error::new(Code::NotFound, format!("there is no network in this network namespace ({netns})"))
        .hint("as root: bg-tap up")
}
