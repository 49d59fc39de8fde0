//! A Debian root file system, from the host's own mirror. Made once for each recipe and state of apt's lists, kept in the
//! cache, and from there on found in milliseconds.
//!
//! [`sources`] and [`packages`] say what is installed, [`bootstrap`] installs it through [`filter`], which applies
//! [`overlay`].

pub mod bootstrap;
pub mod deb822;
pub mod filter;
pub mod overlay;
pub mod packages;
pub mod sources;

use crate::build::manifest;
use crate::build::rootfs::{self, IMAGE, Made, load};
use crate::build::slot::Slot;
use crate::disk::ext4;
use bootstrap::Bootstrap;
use lib_common::added::Added;
use lib_common::digest;
use lib_common::doc::{Digest, Rootfs};
use lib_common::error::{Code, Context, Error, Result};
use lib_common::sys::dirs::list;
use lib_common::timing::Stages;
use sources::Source;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The suite that is built unless another is asked for.
pub const DEFAULT_SUITE: &str = "bookworm";
/// The size unless another is asked for, in bytes.
pub const DEFAULT_SIZE: u64 = 2 << 30;

/// Changes whenever the same recipe would give another root.
const FORMAT: u32 = 1;
/// The latest time of any file where apt has no lists to tell: 2023-11-14.
const NO_LISTS_EPOCH: u64 = 1_700_000_000;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Debian's name for the release.
    pub suite: String,
    /// Of the file system, in bytes.
    pub size: u64,
    /// Values of `--packages`.
    pub packages: Vec<String>,
    /// A mirror instead of the host's own.
    pub mirror: Option<String>,
}

/// Where things are on this host.
#[derive(Clone, Debug)]
pub struct Places {
    /// The cache; roots go to `rootfs/`.
    pub cache_dir: PathBuf,
    /// apt's configuration.
    pub apt_dir: PathBuf,
    /// apt's package lists.
    pub apt_lists: PathBuf,
}

impl Places {
    /// On a Debian host.
    pub fn new(cache_dir: &Path) -> Self {
        Places {
            cache_dir: cache_dir.to_owned(),
            apt_dir: sources::APT_DIR.into(),
            apt_lists: "/var/lib/apt/lists".into(),
        }
    }
}

/// The root of `recipe`, from the cache or made now. An interrupted or failed build leaves nothing but, when killed, a
/// directory `rootfs/.tmp-…` that the next one removes; of many at once one works, and the others wait for what it makes.
/// `use_cache`: whether one that is there will do.
///
/// Stages: `cache`; where one is made, `check_host`, `bootstrap`, `digest`, `publish`.
///
/// Errors: [`Code::BadValue`] for a recipe that cannot be, [`Code::NotFound`] where the host has no source for the suite,
/// [`Code::Permission`] and [`Code::MissingProgram`] where the host cannot, [`Code::CommandFailed`] where it failed.
pub fn build(recipe: &Recipe, use_cache: bool, places: &Places, stages: &mut Stages) -> Result<Rootfs> {
    stages.begin("cache");
    let plan = Plan::of(recipe, places)?;
    let slot = Slot::new(&places.cache_dir, "rootfs", &plan.key)?;
    let cached = || load(slot.dir()).filter(|_| use_cache);
    if let Some(rootfs) = cached() {
        return Ok(rootfs);
    }
    stages.begin("check_host");
    bootstrap::check_user()?;
    ext4::probe()?;
    let _turn = use_cache.then(|| slot.turn()).transpose()?;
    if let Some(rootfs) = cached() {
        return Ok(rootfs);
    }
    let building = slot.begin()?;
    let rootfs = plan.make(building.path(), slot.dir(), stages)?;
    stages.begin("publish");
    slot.publish(building, rootfs, |_| cached())
}

/// Everything that decides what the root is, and the key that says so.
#[derive(Debug)]
struct Plan {
    size: u64,
    bootstrap: Bootstrap,
    added: Vec<Added>,
    key: Digest,
}

impl Plan {
    fn of(recipe: &Recipe, places: &Places) -> Result<Self> {
        ext4::check_size(recipe.size)?;
        let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if recipe.suite.is_empty() || recipe.suite.starts_with('-') || !recipe.suite.bytes().all(fine) {
            let message = format!("`{}` is not the name of a suite", recipe.suite.escape_debug());
            return Err(Error::new(Code::BadValue, message).hint("such as bookworm or trixie"));
        }
        let sources = match &recipe.mirror {
            Some(uri) => vec![Source::of_mirror(uri, &recipe.suite)?],
            None => sources::choose(&sources::read(&places.apt_dir)?, &recipe.suite, architecture())?,
        };
        let (apt_options, guest_options) = bootstrap::apt_options()?;
        let (lists, newest) = apt_lists(&places.apt_lists, &sources)?;
        let bootstrap = Bootstrap {
            suite: recipe.suite.clone(),
            packages: packages::normalised(&recipe.packages)?,
            sources: sources.iter().map(Source::to_line).collect(),
            apt_options,
            epoch: newest.unwrap_or(NO_LISTS_EPOCH),
        };
        let added = overlay::added(&sources, &guest_options);
        let key = digest::of_bytes(key_text(recipe.size, &bootstrap, &added, &lists).as_bytes());
        Ok(Plan { size: recipe.size, bootstrap, added, key })
    }

    /// Makes image, manifest and record in `dir`; the record's paths are those in `becomes`.
    fn make(&self, dir: &Path, becomes: &Path, stages: &mut Stages) -> Result<Rootfs> {
        stages.begin("bootstrap");
        let image = dir.join(IMAGE);
        let format = ext4::Format { label: "rootfs", id: &self.key, epoch: self.bootstrap.epoch, root_mode: 0o755 };
        let passed = bootstrap::run(&self.bootstrap, &self.added, (&image, self.size), format)
            .context(format!("cannot build a Debian root of `{}`", self.bootstrap.suite))?;
        stages.begin("digest");
        let packages = manifest::of_dpkg_status(&passed.dpkg_status);
        let (release, size) = (self.bootstrap.suite.clone(), self.size);
        rootfs::seal(Made { distro: "debian", release, size, packages }, dir, becomes)
    }
}

/// The text whose digest is the key. It has a line for everything that counts, so what differs in any of it differs in
/// the key.
fn key_text(size: u64, bootstrap: &Bootstrap, added: &[Added], lists: &[String]) -> String {
    let mut text = format!("banger rootfs {FORMAT} {}\ndebian {}\nsize {size}\n", overlay::VERSION, bootstrap.suite);
    let _ = writeln!(text, "arch {}\nepoch {}", architecture(), bootstrap.epoch);
    let parts = [("package", &bootstrap.packages), ("source", &bootstrap.sources), ("apt", &bootstrap.apt_options)];
    for (kind, lines) in parts {
        for line in lines {
            let _ = writeln!(text, "{kind} {}", line.escape_debug());
        }
    }
    text.extend(added.iter().map(Added::key_line));
    for line in lists {
        let _ = writeln!(text, "list {line}");
    }
    text
}

/// A line for each of apt's lists of these suites, sorted, and the newest's time: so the cache follows the host's
/// `apt-get update`. apt gives a list the time at which the mirror changed it.
fn apt_lists(dir: &Path, sources: &[Source]) -> Result<(Vec<String>, Option<u64>)> {
    let (mut lines, mut newest) = (vec![], None);
    for entry in list(dir)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let of_ours = sources.iter().any(|s| name.contains(&format!("_dists_{}_", s.suite)));
        if !of_ours || !(name.contains("Release") || name.contains("_Packages")) {
            continue;
        }
        let meta = entry.metadata().map_err(|e| Error::io("read", &entry.path(), &e))?;
        newest = newest.max(u64::try_from(meta.mtime()).ok());
        lines.push(format!("{} {} {}", name.escape_debug(), meta.len(), meta.mtime()));
    }
    lines.sort_unstable();
    Ok((lines, newest))
}

/// This host's architecture, as Debian says it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "i386",
        other => other,
    }
}

#[cfg(test)]
mod tests;
