//! `Bundle`: everything that VMs are made of and run with, in one directory; `bundle.json` in it.

use super::{Digest, Document, Name, RelPath, bad, distinct, strict};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What `agent_path` was called when the agent was a ping helper.
const LEGACY: [&str; 2] = ["ping_helper_path", "vsock_ping_helper_path"];

/// The files of a bundle. Their paths are relative to the directory of `bundle.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// `banger/v1`.
    pub api_version: String,
    /// `Bundle`.
    pub kind: String,
    /// The image that it was made from.
    pub name: Name,
    /// The architecture, as `uname -m` says it.
    pub arch: String,
    /// The guest agent.
    pub agent_path: RelPath,
    /// The private half of the key that logs in to every guest.
    pub ssh_key_path: RelPath,
    /// The uncompressed ELF kernel.
    pub kernel_path: RelPath,
    /// The base initrd.
    pub initrd_path: RelPath,
    /// The whole module tree (`…/lib/modules/VERSION`); absent for a kernel with everything built in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules_path: Option<RelPath>,
    /// The root file system that VMs are made from by default.
    pub rootfs_path: RelPath,
    /// The root file system before it was provisioned; absent where nobody gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_rootfs_path: Option<RelPath>,
    /// Prepared work disks, smallest first.
    #[serde(default)]
    pub work_seed_paths: Vec<RelPath>,
    /// The packages of `rootfs_path`: one [`super::ManifestEntry`] a line.
    pub packages_path: RelPath,
    /// A Firecracker; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firecracker_path: Option<RelPath>,
    /// Of what these files are.
    pub versions: BundleVersions,
    /// By the paths above: of files; of `modules_path` that of a kernel's `modules`; of work seeds that of their content.
    #[serde(deserialize_with = "distinct")]
    pub digests: BTreeMap<String, Digest>,
}

/// The versions of a bundle's parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BundleVersions {
    /// The suite's, and so the agent's.
    pub agent: String,
    /// The kernel's release.
    pub kernel: String,
    /// The root file system's distribution.
    pub distro: String,
    /// The distribution's release.
    pub release: String,
    /// Firecracker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firecracker: Option<String>,
}

/// What kind of thing a path of a bundle leads to, which says how its digest is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundlePart {
    /// A file.
    File,
    /// A directory.
    Tree,
    /// A sparse file, by its content.
    Seed,
}

impl Bundle {
    /// Reads `bundle.json`. Also gives the old names of keys that it has.
    ///
    /// # Errors
    /// [`crate::Code::BadDocument`], also where an old and the new name of a key say different things.
    pub fn parse(bytes: &[u8]) -> Result<(Self, Vec<&'static str>)> {
        let mut doc = Document::parse_any(bytes)?;
        match doc.string("kind")?.as_deref() {
            Some("Bundle") => {}
            other => return Err(bad(format!("this is a document of kind `{}`, not `Bundle`", other.unwrap_or("")))),
        }
        let mut found = vec![];
        for old in LEGACY {
            let Some(value) = doc.string(old)? else { continue };
            if doc.string("agent_path")?.is_some_and(|agent| agent != value) {
                let error = bad(format!("`{old}` is another name of `agent_path`, and they say different things"));
                return Err(error.hint(format!("leave out `{old}`")));
            }
            doc.remove(old);
            doc.set_string("agent_path", &value);
            found.push(old);
        }
        let bundle: Bundle = strict(&doc.to_line())?;
        match bundle.parts().iter().find(|(_, path, _)| bundle.digest(path).is_none()) {
            Some((key, path, _)) => Err(bad(format!("`digests` has no `{path}`, which `{key}` names"))),
            None => Ok((bundle, found)),
        }
    }

    /// The digest of what a path leads to.
    pub fn digest(&self, path: &RelPath) -> Option<&Digest> {
        self.digests.get(path.as_str())
    }

    /// Every path, its key, and what it leads to.
    pub fn parts(&self) -> Vec<(&'static str, &RelPath, BundlePart)> {
        let mut parts = vec![
            ("agent_path", &self.agent_path, BundlePart::File),
            ("ssh_key_path", &self.ssh_key_path, BundlePart::File),
            ("kernel_path", &self.kernel_path, BundlePart::File),
            ("initrd_path", &self.initrd_path, BundlePart::File),
            ("rootfs_path", &self.rootfs_path, BundlePart::File),
            ("packages_path", &self.packages_path, BundlePart::File),
        ];
        parts.extend(self.base_rootfs_path.iter().map(|path| ("base_rootfs_path", path, BundlePart::File)));
        parts.extend(self.firecracker_path.iter().map(|path| ("firecracker_path", path, BundlePart::File)));
        parts.extend(self.modules_path.iter().map(|path| ("modules_path", path, BundlePart::Tree)));
        parts.extend(self.work_seed_paths.iter().map(|path| ("work_seed_paths", path, BundlePart::Seed)));
        parts
    }
}
