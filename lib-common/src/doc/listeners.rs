//! What listens in a guest: the agent's answer on `GET /listeners`, and the documents of `bg-vm ports`.

use super::Name;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The agent's answer. The host bounds it before it gets here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listeners {
    /// Sorted by protocol, port and address, each combination once.
    pub listeners: Vec<Listener>,
    /// So many more were left out.
    pub omitted: u64,
}

/// A socket that takes connections or datagrams.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The guest's address that it listens on; `0.0.0.0` and `::` are all of them.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The name of a process that has it, where one could be found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// That process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The word in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// A listener in a guest, and how it is reached from here: a line of `bg-vm ports`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortInfo {
    /// `banger/v1`.
    pub api_version: String,
    /// `Port`.
    pub kind: String,
    /// The VM.
    pub machine: Name,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The guest's address that it listens on; `0.0.0.0` and `::` are all of them.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The name of a process that has it, where one could be found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// That process, in the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Address and port to use on this host; absent where none leads there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<String>,
    /// Where no address leads there: a command that reaches it. Absent for UDP, which nothing carries then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
