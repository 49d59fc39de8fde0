//! `bg-image bundle`: an image, the agent, the SSH key and Firecracker in one directory that can be moved; and the image of
//! such a bundle.

use super::named;
use super::reconcile::given;
use crate::cli::{Answer, Context};
use crate::ops::register::{Copy, publish};
use lib_common::digest;
use lib_common::doc::{
    API_VERSION, AbsPath, Bundle, BundleVersions, Digest, Document, Kernel, Kind, Name, RelPath, Rootfs, Seed,
    SeedSize, to_json,
};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::fs::{save, sync_all};
use lib_common::sys::program;
use lib_machine::config::{Config, Loaded, default_bundle_dir, mend_bundle};
use lib_machine::guest::ssh::keys;
use lib_machine::vmm::FirecrackerVersion;
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What `bg-image bundle` takes.
#[derive(Clone, Debug, Default)]
pub struct BundleArgs {
    /// The image; the default one without it.
    pub name: Option<Name>,
    /// A file with the document of the root file system that the image was provisioned from; `-` is stdin.
    pub base: Option<PathBuf>,
}

/// Prints `bundle.json`. The bundle takes the place of the one in the state directory at once.
///
/// # Errors
/// [`Code::NotFound`]; [`Code::MissingFile`] and [`Code::DigestMismatch`] for what is not as its record says.
pub fn bundle(cx: &mut Context<'_>, args: &BundleArgs) -> Result<Answer> {
    let base = args.base.as_deref().map(|path| given::<Rootfs>(cx, path)).transpose()?;
    let store = cx.store();
    let name = named(&store, args.name.as_ref())?;
    let record = store.image(&name)?;
    let image = Parts {
        kernel: record.require()?,
        rootfs: record.require()?,
        seed: record.section()?,
        base: base.map(|(_, rootfs)| rootfs),
        name,
    };
    keys::ensure_user_key(&store)?;
    cx.stages.begin("copy");
    let staging = store.stage("bundle")?;
    let home = default_bundle_dir(store.state_dir());
    let making = Making { copy: Copy { staging: &staging, home: home.clone() }, digests: BTreeMap::new() };
    let bundle = making.all(image, &keys::private_key(&store), &cx.config.without_bundle())?;
    let text = to_json(&bundle);
    save(&staging.path().join("bundle.json"), format!("{text}\n").as_bytes(), 0o600)?;
    sync_all(staging.path())?;
    let _lock = store.lock_images()?;
    publish(staging, &home)?;
    cx.emit_line(&text);
    Ok(Answer::Done)
}

/// What of an image goes into a bundle.
struct Parts {
    name: Name,
    kernel: Kernel,
    rootfs: Rootfs,
    seed: Option<Seed>,
    base: Option<Rootfs>,
}

/// A bundle in the making.
struct Making<'a> {
    copy: Copy<'a>,
    digests: BTreeMap<String, Digest>,
}

impl Making<'_> {
    fn all(mut self, image: Parts, key: &Path, config: &Config) -> Result<Bundle> {
        let Parts { name, mut kernel, rootfs, seed, base } = image;
        self.copy.kernel(&mut kernel)?;
        let of = |key: &str| kernel.digests.get(key);
        let kernel_path = self.record(&kernel.vmlinux, of("vmlinux"))?;
        let initrd_path = self.record(&kernel.initrd, of("initrd"))?;
        let modules_path = kernel.modules.as_ref().map(|tree| self.record(tree, of("modules"))).transpose()?;
        let rootfs_path = self.known(&rootfs.path, "rootfs.ext4", &rootfs.digest)?;
        let packages_path = self.known(&rootfs.manifest, "packages", &rootfs.manifest_digest)?;
        let base_rootfs_path = match &base {
            Some(base) if base.digest == rootfs.digest => Some(rootfs_path.clone()),
            Some(base) => Some(self.known(&base.path, "base-rootfs.ext4", &base.digest)?),
            None => None,
        };
        let mut work_seed_paths = vec![];
        for size in seed.iter().flat_map(|seed| &seed.sizes) {
            let copied = self.copy.seed(size)?;
            work_seed_paths.push(self.record(&copied, Some(&size.digest))?);
        }
        let (firecracker_path, firecracker) = self.firecracker(config)?;
        Ok(Bundle {
            api_version: API_VERSION.into(),
            kind: "Bundle".into(),
            name,
            arch: kernel.arch,
            agent_path: self.file(&config.agent_path()?, "guest-agent", 0o755)?,
            ssh_key_path: self.file(key, "id_ed25519", 0o600)?,
            kernel_path,
            initrd_path,
            modules_path,
            rootfs_path,
            base_rootfs_path,
            work_seed_paths,
            packages_path,
            firecracker_path,
            versions: BundleVersions {
                agent: env!("CARGO_PKG_VERSION").into(),
                kernel: kernel.version,
                distro: rootfs.distro,
                release: rootfs.release,
                firecracker,
            },
            digests: self.digests,
        })
    }

    /// Copies a file whose digest is promised.
    fn known(&mut self, from: &AbsPath, name: &str, digest: &Digest) -> Result<RelPath> {
        let copied = self.copy.file(from, name, digest)?;
        self.record(&copied, Some(digest))
    }

    /// Copies a file of the host.
    fn file(&mut self, from: &Path, name: &str, mode: u32) -> Result<RelPath> {
        let from = AbsPath::new(fs_err::canonicalize(from)?)?;
        let path = self.known(&from, name, &digest::of_file(&from)?)?;
        fs_err::set_permissions(self.copy.staging.path().join(name), Permissions::from_mode(mode))?;
        Ok(path)
    }

    /// The Firecracker of this host and its version. One that cannot be used is none.
    fn firecracker(&mut self, config: &Config) -> Result<(Option<RelPath>, Option<String>)> {
        let Some(found) = config.firecracker_path()?.and_then(|path| program::find(&path).ok()) else {
            return Ok((None, None));
        };
        let version = match FirecrackerVersion::of(&found) {
            Ok(version) => version,
            Err(e) if matches!(e.code(), Code::Interrupted | Code::Terminated) => return Err(e),
            Err(_) => return Ok((None, None)),
        };
        Ok((Some(self.file(&found, "firecracker", 0o755)?), Some(version.to_string())))
    }

    /// Notes the digest of what was copied, and gives its path in the bundle.
    fn record(&mut self, copied: &AbsPath, digest: Option<&Digest>) -> Result<RelPath> {
        let relative = copied.strip_prefix(&self.copy.home).unwrap_or(copied);
        let path = RelPath::new(relative)?;
        self.digests.extend(digest.map(|digest| (path.as_str().to_owned(), digest.clone())));
        Ok(path)
    }
}

/// The image of a bundle, as a document for the store.
///
/// # Errors
/// [`Code::MissingFile`] for a file whose size has to be known and that is not there.
pub(in crate::ops) fn image_of(loaded: &Loaded) -> Result<Document> {
    let bundle = &loaded.bundle;
    let at = |path: &RelPath| AbsPath::new(loaded.at(path));
    let digest = |path: &RelPath| {
        let none =
            || Error::new(Code::BadDocument, format!("the bundle has no digest of `{path}`")).hint(mend_bundle());
        bundle.digest(path).cloned().ok_or_else(none)
    };
    let size = |path: &RelPath| {
        let file = loaded.at(path);
        let gone = |e| Error::io("read", &file, &e).with_code(Code::MissingFile).hint(mend_bundle());
        file.metadata().map(|file| file.len()).map_err(gone)
    };
    let mut doc = Document::new(Kind::Image, &bundle.name);
    doc.set(&kernel_of(loaded)?);
    let rootfs = Rootfs {
        distro: bundle.versions.distro.clone(),
        release: bundle.versions.release.clone(),
        path: at(&bundle.rootfs_path)?,
        size_bytes: size(&bundle.rootfs_path)?,
        digest: digest(&bundle.rootfs_path)?,
        manifest: at(&bundle.packages_path)?,
        manifest_digest: digest(&bundle.packages_path)?,
    };
    let seeds = bundle
        .work_seed_paths
        .iter()
        .map(|path| Ok(SeedSize { size_bytes: size(path)?, path: at(path)?, digest: digest(path)? }));
    let sizes = seeds.collect::<Result<Vec<_>>>()?;
    if !sizes.is_empty() {
        doc.set(&Seed { source_digest: rootfs.digest.clone(), sizes });
    }
    doc.set(&rootfs);
    Ok(doc)
}

/// The kernel of a bundle.
pub(in crate::ops) fn kernel_of(loaded: &Loaded) -> Result<Kernel> {
    let bundle = &loaded.bundle;
    let parts = [
        ("vmlinux", Some(&bundle.kernel_path)),
        ("initrd", Some(&bundle.initrd_path)),
        ("modules", bundle.modules_path.as_ref()),
    ];
    let digest = |path: &RelPath| bundle.digest(path).cloned();
    let digests = parts.into_iter().filter_map(|(key, path)| Some((key.to_owned(), digest(path?)?))).collect();
    Ok(Kernel {
        version: bundle.versions.kernel.clone(),
        arch: bundle.arch.clone(),
        vmlinux: AbsPath::new(loaded.at(&bundle.kernel_path))?,
        initrd: AbsPath::new(loaded.at(&bundle.initrd_path))?,
        modules: bundle.modules_path.as_ref().map(|path| AbsPath::new(loaded.at(path))).transpose()?,
        digests,
    })
}
