//! `Bench`: what was measured, on what, and whether it is fast enough.

use super::Timing;
use serde::{Deserialize, Serialize};

/// What `bg-bench` measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Bench {
    /// `banger/v1`.
    pub api_version: String,
    /// `Bench`.
    pub kind: String,
    /// What was measured: `tap`.
    pub subject: String,
    /// Whether every bar was met.
    pub ok: bool,
    /// The machine.
    pub host: BenchHost,
    /// How often each thing was done in turn with the others.
    pub runs: u32,
    /// What was measured.
    pub measures: Vec<Measure>,
    /// The same work done otherwise, by turns.
    pub against: Vec<Comparison>,
    /// How fast it has to be.
    pub bars: Vec<Bar>,
    /// How long measuring took.
    #[serde(default)]
    pub timings: Vec<Timing>,
}

/// A machine on which something was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BenchHost {
    /// The kernel's release.
    pub kernel: String,
    /// The processor's model, where it has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// How many processors there are.
    pub cpus: u32,
    /// The load average of the minute before.
    pub load_before: f64,
    /// The load average at the end.
    pub load_after: f64,
}

/// How long something took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// What, in snake_case.
    pub name: String,
    /// How many devices were there.
    pub devices: u32,
    /// `ms`.
    pub unit: String,
    /// How many samples.
    pub n: u32,
    /// The median.
    pub p50: f64,
    /// 95 of 100 were not slower.
    pub p95: f64,
    /// 99 of 100 were not slower.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
    /// All of them, in the order in which they were taken; only with `--samples`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<f64>,
}

/// How often as long the same work takes done otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The measure.
    pub measure: String,
    /// The measure of the other way.
    pub other: String,
    /// How many devices were there.
    pub devices: u32,
    /// The other's median through this one's: above 1 this one is faster.
    pub ratio: f64,
}

/// A figure of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// The median.
    P50,
    /// 99 of 100 were not slower.
    P99,
}

/// How long something may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Bar {
    /// The measure.
    pub measure: String,
    /// How many devices were there.
    pub devices: u32,
    /// Its figure that counts.
    pub figure: Figure,
    /// The most that it may be, in milliseconds.
    pub limit_ms: f64,
    /// What it was.
    pub measured_ms: f64,
    /// Whether that is fast enough.
    pub ok: bool,
}
