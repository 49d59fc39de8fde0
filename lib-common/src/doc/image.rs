//! `Image`: a bootable kernel, a root file system, and what belongs to them.

use super::{AbsPath, Digest, Name, Section};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The whole document, for the schema and the manual; tools use [`super::Document`] and single sections.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Image {
    /// `banger/v1`.
    pub api_version: String,
    /// `Image`.
    pub kind: String,
    /// Its name in the store; absent before `bg-register`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// By `bg-kernel`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
    /// By `bg-rootfs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<Rootfs>,
    /// By `bg-image-build`, which replaces `rootfs` and `seed` too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    /// By `bg-seed build`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
    /// By `bg-register`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered: Option<Registered>,
    /// By every tool.
    #[serde(default)]
    pub timings: Vec<Timing>,
}

/// A bootable kernel bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// The kernel's release, as `uname -r` says it in the guest.
    pub version: String,
    /// The architecture, as `uname -m` says it.
    pub arch: String,
    /// The uncompressed ELF kernel.
    pub vmlinux: AbsPath,
    /// The base initrd: a raw cpio with the guest agent as `/init` and the modules that reach the root disk.
    pub initrd: AbsPath,
    /// The whole module tree (`…/lib/modules/VERSION`); absent for a kernel with everything built in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<AbsPath>,
    /// By the names of the fields above. That of `modules` is the digest of the sorted lines `sha256:… path`.
    #[serde(deserialize_with = "super::distinct")]
    pub digests: BTreeMap<String, Digest>,
}

/// A root file system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rootfs {
    /// `debian`.
    pub distro: String,
    /// The distribution's release, such as `bookworm`.
    pub release: String,
    /// An ext4 file system without a partition table.
    pub path: AbsPath,
    /// Its size.
    pub size_bytes: u64,
    /// Of the whole file, holes as zeros.
    pub digest: Digest,
    /// The packages: one JSON object a line, sorted: [`ManifestEntry`].
    pub manifest: AbsPath,
    /// Of the manifest.
    pub manifest_digest: Digest,
}

/// A line of a package manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManifestEntry {
    /// The package's name.
    pub name: String,
    /// Its version, as the package manager writes it.
    pub version: String,
    /// Its architecture, as the package manager writes it.
    pub architecture: String,
}

/// A line of the plan of a root file system: one package of the transaction, in its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanEntry {
    /// Name, version and revision: `vim-9.1_1`.
    pub pkgver: String,
    /// The directory or address that has it; null where a lock file decided.
    pub repository: Option<String>,
    /// `install`, or `remove` for a package that another one of the transaction replaces.
    pub action: String,
}

/// How a root file system was provisioned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// The packages that were asked for, sorted. What is installed is in the manifest.
    pub packages: Vec<String>,
    /// What was done, in order.
    pub steps: Vec<BuildStep>,
    /// Which VMM the temporary VM ran on.
    pub vmm: super::VmmKind,
}

/// One thing that a build did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildStep {
    /// What kind of step.
    pub kind: BuildStepKind,
    /// As it was asked for on the command line.
    pub what: String,
    /// How long it took, in milliseconds.
    pub ms: f64,
}

/// A kind of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BuildStepKind {
    /// The kernel's modules were installed.
    Modules,
    /// Packages were installed.
    Packages,
    /// Files were copied.
    Copy,
    /// A script was run.
    Run,
    /// The user had a shell.
    Shell,
}

impl BuildStepKind {
    /// Its word in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            BuildStepKind::Modules => "modules",
            BuildStepKind::Packages => "packages",
            BuildStepKind::Copy => "copy",
            BuildStepKind::Run => "run",
            BuildStepKind::Shell => "shell",
        }
    }
}

/// Prepared work disks, one a size: an ext4 whose root directory is the image's `/root`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// The digest of the rootfs that the seed was made from.
    pub source_digest: Digest,
    /// Smallest first.
    pub sizes: Vec<SeedSize>,
}

/// One prepared work disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeedSize {
    /// Its size.
    pub size_bytes: u64,
    /// The file.
    pub path: AbsPath,
    /// Of its content: the SHA-256 of the size in bytes (8 bytes, little-endian), then of each block of 4,096 bytes that
    /// is not all zeros, its offset (the same) and its bytes, in order.
    pub digest: Digest,
}

/// That the image is in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registered {
    /// Since when, RFC 3339 UTC.
    pub at: String,
    /// Its files as they were put there, by their names in its directory; without the module tree.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "super::distinct")]
    pub files: BTreeMap<String, FileFacts>,
}

/// By what a file that was changed is known without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileFacts {
    /// Its size.
    pub size_bytes: u64,
    /// When its content was last changed, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Its inode's number.
    pub inode: u64,
}

/// How long a stage of an operation took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// The tool.
    pub tool: String,
    /// The stage.
    pub stage: String,
    /// Wall time in milliseconds.
    pub ms: f64,
}

impl Section for Kernel {
    const NAME: &'static str = "kernel";
    const OWNER: &'static str = "bg-kernel";
}
impl Section for Rootfs {
    const NAME: &'static str = "rootfs";
    const OWNER: &'static str = "bg-rootfs";
}
impl Section for Build {
    const NAME: &'static str = "build";
    const OWNER: &'static str = "bg-image-build";
}
impl Section for Seed {
    const NAME: &'static str = "seed";
    const OWNER: &'static str = "bg-seed build";
}
impl Section for Registered {
    const NAME: &'static str = "registered";
    const OWNER: &'static str = "bg-register";
}
