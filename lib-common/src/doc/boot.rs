//! How long a guest's boot took: what its agent says of it, and what lies beside a running VM's sockets. Private records.

use super::Timing;
use serde::{Deserialize, Serialize};

/// The line that the agent sends with its connection to [`super::UP_PORT`]. All three are the guest's CLOCK_BOOTTIME, in
/// microseconds since its kernel started; whole numbers, so there is nothing that is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootClock {
    /// `/init` began.
    pub init_us: u64,
    /// `/init` became the distribution's init.
    pub handover_us: u64,
    /// The agent listened.
    pub agent_us: u64,
}

/// `boot.json` in a VM's runtime directory, by `bg-shim`: there from the moment at which the guest has said that it is up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Which boot of this run: 0, or how often the guest has rebooted.
    pub reboots: u32,
    /// When it was up: the host's CLOCK_MONOTONIC in milliseconds.
    pub up_at_ms: f64,
    /// From the moment at which its processors ran until then, without a gap.
    pub timings: Vec<Timing>,
}

/// `ssh-banner.json`, `ssh-login.json` and `ssh-command.json` beside it, by the tool that saw it happen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// In which boot: [`Boot::reboots`].
    pub reboots: u32,
    /// Since when the tool was waiting for it: the host's CLOCK_MONOTONIC in milliseconds.
    pub since_ms: f64,
    /// When it happened, by the same clock.
    pub at_ms: f64,
}
