//! `ImageDiff`: how two images differ.

use super::{ManifestEntry, Timing};
use serde::{Deserialize, Serialize};

/// From one image to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageDiff {
    /// `banger/v1`.
    pub api_version: String,
    /// `ImageDiff`.
    pub kind: String,
    /// The first image, as it was asked for: a name or a path.
    pub a: String,
    /// The second.
    pub b: String,
    /// By their manifests.
    pub packages: PackageDiff,
    /// The kernels' releases.
    pub kernel: Change<String>,
    /// How large they are.
    pub sizes: SizeDiff,
    /// How long it took.
    #[serde(default)]
    pub timings: Vec<Timing>,
}

/// How the packages of two images differ. One name with two architectures is two packages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PackageDiff {
    /// In the second alone, sorted.
    pub added: Vec<ManifestEntry>,
    /// In the first alone, sorted.
    pub removed: Vec<ManifestEntry>,
    /// In both, in another version, sorted.
    pub changed: Vec<PackageChange>,
}

/// A package of which two images have another version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PackageChange {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub architecture: String,
    /// The first image's version.
    pub from: String,
    /// The second's.
    pub to: String,
}

/// The same thing of two images; both are equal where nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "ChangeOf_{T}")]
#[serde(deny_unknown_fields)]
pub struct Change<T> {
    /// The first image's.
    pub from: T,
    /// The second's.
    pub to: T,
}

/// The sizes of two images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SizeDiff {
    /// The root file systems.
    pub rootfs_bytes: Change<u64>,
    /// What they take on the host's disk.
    pub allocated_bytes: Change<u64>,
}

impl PackageDiff {
    /// Whether the packages are the same.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

impl<T: PartialEq> Change<T> {
    /// Whether there is a difference.
    pub fn is_one(&self) -> bool {
        self.from != self.to
    }
}
