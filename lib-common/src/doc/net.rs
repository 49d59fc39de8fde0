//! Networks: the section `net` of a `Machine`, and the documents of `bg-tap`.

use super::{Cidr, Mac, Section, Timing};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Where the directories of networks are, one for each network namespace, unless the setting `net_dir` names another place.
pub const NETWORKS_DIR: &str = "/run/banger/net";

/// The VM's network card, as the host sees it. A VM that does not run keeps its addresses and has no TAP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// The inode of the network namespace (`/proc/PID/ns/net`) in which bridge and TAP are.
    pub netns: u64,
    /// The bridge.
    pub bridge: String,
    /// The TAP, a port of the bridge; absent when it was given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
    /// The guest's hardware address, made from the VM's id.
    pub mac: Mac,
    /// The guest's address, with the length of its network's prefix.
    pub address: Cidr,
    /// The host's address on the bridge.
    pub gateway: Ipv4Addr,
}

/// The network of a namespace: what `bg-tap up` made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// `banger/v1`.
    pub api_version: String,
    /// `Network`.
    pub kind: String,
    /// The inode of the network namespace.
    pub netns: u64,
    /// The bridge; its name has the user id of whoever made it.
    pub bridge: String,
    /// The guests' network.
    pub subnet: Cidr,
    /// The host's address on the bridge.
    pub gateway: Ipv4Addr,
    /// Whether guests that are to reach other networks do, with the host's addresses.
    pub nat: bool,
    /// The interfaces by which they do, that of the default route first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uplinks: Vec<String>,
    /// Networks of the host that guests may reach all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Cidr>,
    /// Whom guests that reach other networks ask for names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<Ipv4Addr>,
    /// TAPs.
    pub pool: PoolCount,
    /// By every tool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timings: Vec<Timing>,
}

/// How many TAPs there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolCount {
    /// Ready for a VM.
    pub idle: u32,
    /// In use by one.
    pub busy: u32,
    /// So many idle ones are kept.
    pub target: u32,
}

/// A TAP or the lease of an address: a line of `bg-tap ls` and `bg-tap pool ls`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TapInfo {
    /// `banger/v1`.
    pub api_version: String,
    /// `Tap`.
    pub kind: String,
    /// The device; absent where a VM has an address alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
    /// The id of the VM that has it; absent where nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// The VM's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// The user id that may open the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_uid: Option<u32>,
    /// Whether a program has the device open.
    pub open: bool,
}

/// What `bg-tap up` keeps of a network: `network.json` in the namespace's directory. Private.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRecord {
    /// The bridge.
    pub bridge: String,
    /// Its index: another bridge of that name is another network.
    pub bridge_index: u32,
    /// The kernel's number of the namespace: another one with that inode is another network. Absent where the kernel has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_cookie: Option<u64>,
    /// The guests' network.
    pub subnet: Cidr,
    /// The interfaces by which guests reach other networks, that of the default route first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uplinks: Vec<Uplink>,
    /// Networks of the host that guests may reach all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Cidr>,
    /// Whom guests that reach other networks ask for names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<Ipv4Addr>,
}

/// An interface by which guests reach other networks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Whether packets from there were not sent on before.
    pub forwarding_was_off: bool,
}

impl Section for Net {
    const NAME: &'static str = "net";
    const OWNER: &'static str = "bg-tap acquire";
}
