//! A Void Linux root file system, of packages that are read on the host and configured in a guest. Made once for each set of
//! packages, kept in the cache, and from there on found in milliseconds.
//!
//! [`obtain`] says which packages and has them here, [`overlay`] what is added; [`lib_xbps`] knows the formats.

pub mod obtain;
pub mod overlay;
pub mod packages;
pub mod release;

use crate::build::rootfs::{self, IMAGE, Made, load};
use crate::build::slot::{Building, Slot};
use crate::disk::ext4;
use lib_common::digest;
use lib_common::doc::{Digest, ManifestEntry, Rootfs};
use lib_common::error::{Code, Context, Error, Result};
use lib_common::timing::Stages;
use lib_xbps::fetch::Fetcher;
use lib_xbps::key::{Key, pinned};
use lib_xbps::location::Location;
use lib_xbps::lock::Locked;
use lib_xbps::root::{Extra, Stopped, Unpacked, write_tar};
use obtain::{Plan, Request};
use std::fmt::Write as _;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// Changes whenever the same recipe would give another root.
const FORMAT: u32 = 2;
/// The time of every file: packages are rebuilt without their content changing, and a root follows its lock file alone.
/// 2023-11-14.
const EPOCH: u64 = 1_700_000_000;
/// There are no releases.
const RELEASE: &str = "rolling";
/// The architectures that Void has packages for and this project guests.
const ARCHES: &[&str] = &["x86_64", "x86_64-musl", "aarch64", "aarch64-musl"];

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// `x86_64`, `x86_64-musl`, …; this host's without one.
    pub arch: Option<String>,
    /// Of the file system, in bytes.
    pub size: u64,
    /// True for a root that boots: with the base's packages, and what banger adds to them. Else nothing is in it but what
    /// `packages` names and needs.
    pub base: bool,
    /// Values of `--packages`.
    pub packages: Vec<String>,
    /// Values of `--provider`: virtual packages, and what provides them.
    pub providers: Vec<(String, String)>,
    /// True if what repositories of other hosts have staged counts.
    pub staging: bool,
    /// Instead of Void's own.
    pub repositories: Vec<Location>,
    /// The key that is trusted instead of Void's.
    pub key: Option<PathBuf>,
    /// The lock file.
    pub lock: Option<PathBuf>,
    /// Whether the lock file is made anew.
    pub update: bool,
}

/// A recipe of which it is known which packages it means.
#[derive(Debug)]
pub struct Planned {
    arch: String,
    size: u64,
    base: bool,
    fetcher: Fetcher,
    keys: Vec<(Key, String)>,
    added: Vec<lib_common::added::Added>,
    plan: Plan,
    slot: Slot,
    key: Digest,
}

/// A root whose packages are not configured yet; dropped, it is removed.
#[derive(Debug)]
pub struct Unconfigured {
    building: Building,
    slot: Slot,
    made: Made,
    has_scripts: bool,
}

/// Finds out which packages are meant. Writes nothing but a new lock file's content, into the result.
///
/// Stages: `index`.
///
/// # Errors
/// [`Code::BadValue`] for a recipe that cannot be, [`Code::NotFound`] and [`Code::BadInput`] where packages are missing or
/// do not fit, [`Code::Permission`] for a repository that is not trusted; those of a download.
pub fn plan(recipe: &Recipe, cache_dir: &Path, stages: &mut Stages) -> Result<Planned> {
    stages.begin("index");
    ext4::check_size(recipe.size)?;
    let arch = arch(recipe.arch.as_deref())?;
    let wanted = packages::normalised(&recipe.packages, recipe.base)?;
    let providers = packages::providers(&recipe.providers, recipe.base);
    let repositories = match &recipe.repositories[..] {
        [] => vec![packages::voids_own(&arch)],
        given => given.to_vec(),
    };
    let trusted = match &recipe.key {
        Some(file) => vec![(Key::read(file)?, "the builder of this image".to_owned())],
        None => pinned()?.into_iter().map(|key| (key, "Void Linux".to_owned())).collect(),
    };
    let added = if recipe.base { overlay::added(&repositories) } else { vec![] };
    let is_remote = repositories.iter().any(Location::is_remote);
    let fetcher = Fetcher::new(cache_dir, trusted.iter().map(|(key, _)| key.clone()).collect(), recipe.staging);
    let (lock, update) = (recipe.lock.clone(), recipe.update);
    let request = Request { arch: arch.clone(), wanted, providers, repositories, lock, update };
    let plan = Plan::of(request, &fetcher)?;
    let mut text = format!("banger rootfs {FORMAT} {}\nvoid {arch}\nsize {}\n", overlay::VERSION, recipe.size);
    if !recipe.base {
        text += "no base\n";
    }
    for name in plan.wanted() {
        let _ = writeln!(text, "package {name}");
    }
    text += &plan.lock().render();
    text.extend(added.iter().map(lib_common::added::Added::key_line));
    let keys = if is_remote { trusted } else { vec![] };
    for (key, _) in &keys {
        let _ = writeln!(text, "key {}", key.fingerprint());
    }
    let key = digest::of_bytes(text.as_bytes());
    let slot = Slot::new(cache_dir, "rootfs", &key)?;
    Ok(Planned { arch, size: recipe.size, base: recipe.base, fetcher, keys, added, plan, slot, key })
}

impl Planned {
    /// The packages.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The architecture of its packages.
    pub fn arch(&self) -> &str {
        &self.arch
    }

    /// Them as the root's manifest lists them.
    pub fn packages(&self) -> Vec<ManifestEntry> {
        let entry = |one: &Locked| ManifestEntry {
            name: one.pkgver.name().into(),
            version: one.pkgver.version().into(),
            architecture: one.arch.clone(),
        };
        self.plan.lock().packages().map(entry).collect()
    }

    /// The root that is in the cache.
    pub fn cached(&self) -> Option<Rootfs> {
        load(self.slot.dir())
    }

    /// Makes the root, whose packages are then to be configured, in a guest.
    ///
    /// Stages: `check_host`, `fetch`, `unpack`.
    ///
    /// # Errors
    /// [`Code::BadInput`] and [`Code::DigestMismatch`], with the package's name, for what is not as it should be;
    /// [`Code::MissingProgram`], [`Code::CommandFailed`] where mke2fs cannot; those of a download.
    pub fn make(self, stages: &mut Stages) -> Result<Unconfigured> {
        stages.begin("check_host");
        ext4::probe()?;
        stages.begin("fetch");
        let unpacked = self.plan.obtain(&self.fetcher, &mut |text| stages.note(text))?;
        stages.begin("unpack");
        let building = self.slot.begin()?;
        let packages = self.packages();
        let has_scripts = self.base || unpacked.iter().any(|one| one.package.install.is_some());
        self.write(unpacked, has_scripts, &building.path().join(IMAGE)).context("cannot build a Void root")?;
        let made = Made { distro: "void", release: RELEASE.into(), size: self.size, packages };
        Ok(Unconfigured { building, slot: self.slot, made, has_scripts })
    }

    /// What runs scripts has the directories of a system.
    fn write(&self, unpacked: Vec<Unpacked>, is_system: bool, image: &Path) -> Result<()> {
        let format = ext4::Format { label: "rootfs", id: &self.key, epoch: EPOCH, root_mode: 0o755 };
        let mut disk = ext4::make_from_tar(image, self.size, format)?;
        let last = self.base.then_some(overlay::LAST);
        let (keys, arch) = (&*self.keys, &*self.arch);
        let extra = Extra { added: &self.added, last, keys, is_system, arch, epoch: EPOCH };
        match write_tar(unpacked, &extra, BufWriter::with_capacity(128 << 10, &mut disk)) {
            Ok(()) => disk.finish(),
            Err(Stopped::Package(e)) => Err(e),
            Err(Stopped::Output(e)) => Err(disk.failure().unwrap_or_else(|| e.into())),
        }
    }
}

impl Unconfigured {
    /// The image, which is to be configured in place.
    pub fn image(&self) -> PathBuf {
        self.building.path().join(IMAGE)
    }

    /// True if its packages, or banger, have scripts that are to be run in it.
    pub fn has_scripts(&self) -> bool {
        self.has_scripts
    }

    /// Gives the configured root its place. `use_cache`: whether one that somebody else has made meanwhile will do.
    ///
    /// Stages: `digest`, `publish`.
    pub fn publish(self, use_cache: bool, stages: &mut Stages) -> Result<Rootfs> {
        stages.begin("digest");
        let rootfs = rootfs::seal(self.made, self.building.path(), self.slot.dir())?;
        stages.begin("publish");
        self.slot.publish(self.building, rootfs, |dir| load(dir).filter(|_| use_cache))
    }
}

/// Whether guests of the machine architecture (as `uname -m` says it) can run packages for that one of Void's.
pub fn runs_on(arch: &str, machine: &str) -> bool {
    arch.strip_suffix("-musl").unwrap_or(arch) == machine
}

fn arch(given: Option<&str>) -> Result<String> {
    let arch = given.unwrap_or(std::env::consts::ARCH);
    if ARCHES.contains(&arch) {
        return Ok(arch.to_owned());
    }
    let message = format!("`{}` is no architecture of Void's", arch.escape_debug());
    Err(Error::new(Code::BadValue, message).hint(format!("known: {}", ARCHES.join(", "))))
}

#[cfg(test)]
mod tests;
