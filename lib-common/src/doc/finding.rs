//! `Finding`: one thing that an audit saw.

use serde::{Deserialize, Serialize};

/// A line of `bg-verify`, and what `bg-gc` reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// `banger/v1`.
    pub api_version: String,
    /// What it is: `process`, `machine`, `image`, `staging`, `runtime_dir`, `socket`, `file`, `lock`, `loop`, `mount`; of
    /// networks `tap`, `tap_pool`, `lease`, `bridge`, `port`, `nft`, `net_dir`, `subnet`, `route`.
    pub kind: String,
    /// Which one: a path, `PID:START_TIME` of a process, a device, an interface's name, an address or a network.
    pub id: String,
    /// Whose: a VM's or image's name or id, a bridge's user id, or empty where nobody can be named.
    pub owner: String,
    /// How long it has been there, in milliseconds.
    pub age_ms: u64,
    /// Why it is reported, in words.
    pub evidence: String,
    /// Whether it is a leak now; young things may yet be finished.
    pub is_leak: bool,
    /// A command that mends it.
    pub fix: String,
}
