//! What the guest agent answers on `GET /healthz`.

use serde::{Deserialize, Serialize};

/// The guest's health, as the agent sees it. The agent's replies are bounded by the host before they get here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// `ok` when root and work disk are mounted and sound, sshd answers, and nothing keeps root from logging in; HTTP status
    /// 200, else 503.
    pub status: HealthStatus,
    /// The agent's version, which is the host's.
    pub agent_version: String,
    /// The guest's `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Since the guest's kernel started, in milliseconds.
    pub uptime_ms: u64,
    /// The guest's host name.
    pub hostname: String,
    /// `ID` of `/etc/os-release`.
    pub distro: String,
    /// The name of process 1.
    pub init: String,
    /// Whether `/` is the root disk.
    pub root_mounted: bool,
    /// Whether `/root` is the work disk.
    pub work_mounted: bool,
    /// Whether sshd sends its banner.
    pub sshd_answers: bool,
    /// The guest's clock, in milliseconds since 1970 UTC.
    pub clock_unix_ms: u64,
    /// Used on the root file system.
    pub root_used_bytes: u64,
    /// The root file system's size; absent where the agent is too old to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_total_bytes: Option<u64>,
    /// Used on the work disk's file system.
    pub work_used_bytes: u64,
    /// The size of the work disk's file system; absent where the agent is too old to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work_total_bytes: Option<u64>,
    /// `MemAvailable`.
    pub memory_available_bytes: u64,
    /// What is wrong, in words; empty when nothing is. Entries that a repair kept apart are listed here too, and leave the
    /// status as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// What was done at this boot and somebody may want to know: a repair of the work disk. Nothing is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Health in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// Everything is there.
    Ok,
    /// sshd does not answer yet; disks are mounted.
    Starting,
    /// A disk is not mounted, or its file system is read-only, damaged or full; a repair failed; root cannot log in by its
    /// key; or the clock is wrong and cannot be set.
    Degraded,
}
