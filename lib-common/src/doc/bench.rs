//! `Bench`: what was measured, on what, and whether it is fast enough.

use super::{Accel, Timing};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What `bg-bench` measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bench {
    /// `banger/v1`.
    pub api_version: String,
    /// `Bench`.
    pub kind: String,
    /// What was measured: `tap`, `create` or `host_part`.
    pub subject: String,
    /// Whether every bar was met.
    pub ok: bool,
    /// The machine.
    pub host: BenchHost,
    /// What it was done with, in words, where that is a choice: image, sizes, network card, the others' options.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub setup: BTreeMap<String, String>,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BenchHost {
    /// The kernel's release.
    pub kernel: String,
    /// The processor's model, where it has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// How many processors there are.
    pub cpus: u32,
    /// On what guests' processors run, where guests ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accel: Option<Accel>,
    /// The type of the file system of the disks, where disks were made: `ext4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_system: Option<String>,
    /// Whether files share blocks there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reflink: Option<bool>,
    /// The load average of the minute before.
    pub load_before: f64,
    /// The load average at the end.
    pub load_after: f64,
}

/// How long something took, or how often or how fast it was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// What: `acquire_warm`, `ready`; a stage of a tool is `bg-vm.lock`, and what another side did is `qemu.ready`.
    pub name: String,
    /// How many were there meanwhile: devices, or VMs.
    pub existing: u32,
    /// In what its figures are.
    pub unit: Unit,
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
    /// All of them, in the order in which they were taken; by `bg-bench tap` only with `--samples`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<f64>,
}

/// How often as long the same work takes done otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The measure.
    pub measure: String,
    /// The measure of the other way.
    pub other: String,
    /// How many were there meanwhile.
    pub existing: u32,
    /// The other's median through this one's: above 1 this one is faster.
    pub ratio: f64,
    /// The lower end of the 95 % confidence interval of `ratio`, where that was asked of the samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Its upper end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
}

/// In what a measure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Seconds of processor time.
    CpuS,
    /// How many in a second: the more the better.
    PerS,
    /// How often.
    Count,
}

/// A figure of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// The median.
    P50,
    /// 99 of 100 were not slower.
    P99,
}

/// How long something may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bar {
    /// The measure.
    pub measure: String,
    /// How many were there meanwhile.
    pub existing: u32,
    /// Its figure that counts.
    pub figure: Figure,
    /// The most that it may be, in milliseconds.
    pub limit_ms: f64,
    /// What it was.
    pub measured_ms: f64,
    /// Whether that is fast enough.
    pub ok: bool,
}

/// How two `Bench` documents differ: the answer of `bg-bench compare`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BenchDiff {
    /// `banger/v1`.
    pub api_version: String,
    /// `BenchDiff`.
    pub kind: String,
    /// What both measured.
    pub subject: String,
    /// Whether nothing became slower than `fail_above`.
    pub ok: bool,
    /// The ratio that is too much, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_above: Option<f64>,
    /// What both have.
    pub measures: Vec<MeasureDiff>,
    /// How long comparing took.
    #[serde(default)]
    pub timings: Vec<Timing>,
}

/// A measure of two documents, A and B.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeasureDiff {
    /// Its name.
    pub name: String,
    /// How many were there meanwhile.
    pub existing: u32,
    /// In what its figures are.
    pub unit: Unit,
    /// How many samples A has.
    pub a_n: u32,
    /// How many B has.
    pub b_n: u32,
    /// A's median.
    pub a_p50: f64,
    /// B's median.
    pub b_p50: f64,
    /// B's median through A's, or A's through B's where more is better: above 1 B is slower.
    pub ratio: f64,
    /// The lower end of the 95 % confidence interval of `ratio`.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Whether it was judged: there was a limit, and both have enough samples.
    pub judged: bool,
    /// Whether it is not slower than the limit, as far as can be told.
    pub ok: bool,
}
