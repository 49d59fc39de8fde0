//! Kernel bundles: an uncompressed kernel, the initrd that every VM starts from, and the modules. Made once for each
//! kernel and agent, kept in the cache, and from there on found in milliseconds.
//!
//! [`cache`] finds and keeps bundles, [`bundle`] makes them from a package ([`deb`]) or a file ([`bzimage`]).

pub mod archive;
pub mod bundle;
pub mod bzimage;
pub mod cache;
pub mod deb;
pub mod elf;
pub mod initrd;
pub mod modules;
pub mod unpack;

use super::slot::Slot;
use crate::config::Config;
use crate::doc::{Document, Kernel, Kind};
use crate::error::{Code, Error, Result};
use crate::sys::signal;
use crate::timing::Stages;
use std::path::{Path, PathBuf};

/// The package that stands for Debian's newest kernel for VMs.
pub const DEFAULT_PACKAGE: &str = "linux-image-cloud-amd64";

/// Where a kernel comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A Debian package, by its name; apt downloads it.
    Package(String),
    /// A Debian package, as a file.
    Deb(PathBuf),
    /// A kernel as a file: an ELF, or a bzImage.
    Vmlinux {
        /// The kernel.
        file: PathBuf,
        /// Its modules, `…/lib/modules/VERSION`; without them everything has to be built in.
        modules: Option<PathBuf>,
        /// Its release, for a kernel that does not say it.
        version: Option<String>,
    },
}

/// Where things are on this host.
#[derive(Clone, Debug)]
pub struct Places {
    /// The cache: bundles go to `kernel/`, packages to `debs/`.
    pub cache_dir: PathBuf,
    /// The guest agent's static binary.
    pub agent: PathBuf,
    /// apt's package lists.
    pub apt_lists: PathBuf,
    /// depmod; it need not be there.
    pub depmod: PathBuf,
}

impl Places {
    /// As configured.
    pub fn of(config: &Config) -> Result<Self> {
        Ok(Places {
            depmod: "depmod".into(),
            cache_dir: config.cache()?.to_owned(),
            agent: config.agent_path()?,
            apt_lists: PathBuf::from("/var/lib/apt/lists"),
        })
    }
}

/// An `Image` document, without a name, with the kernel of `source`. `use_cache`: whether a bundle that is there will do.
///
/// Errors: those of [`build_in`], and [`Code::MissingFile`] without a guest agent.
pub fn build(source: &Source, use_cache: bool, config: &Config, stages: &mut Stages) -> Result<Document> {
    let kernel = build_in(source, use_cache, &Places::of(config)?, stages)?;
    let mut doc = Document::unnamed(Kind::Image);
    doc.set(&kernel);
    Ok(doc)
}

/// The bundle of `source`, from the cache or made now. An interrupted or failed build leaves nothing but, when killed, a
/// directory `kernel/.tmp-…` that the next one removes; of many at once one works, and the others wait for what it makes.
///
/// Stages: `cache`; where one is made, `resolve` and `download` (a package by name), `extract` (a package), `unpack`,
/// `modules`, `initrd`, `digest`, `publish`.
///
/// Errors: [`Code::MissingFile`] for an input that is not there, those of [`bundle::make`].
pub fn build_in(source: &Source, use_cache: bool, places: &Places, stages: &mut Stages) -> Result<Kernel> {
    stages.begin("cache");
    let slot = Slot::new(&places.cache_dir, "kernel", &cache::key(source, places)?)?;
    let cached = || cache::load(slot.dir()).filter(|_| use_cache);
    if let Some(kernel) = cached() {
        return Ok(kernel);
    }
    let _turn = use_cache.then(|| slot.turn()).transpose()?;
    if let Some(kernel) = cached() {
        return Ok(kernel);
    }
    let building = slot.begin()?;
    let site = bundle::Site { work: building.path(), becomes: slot.dir(), fresh: !use_cache };
    // Whatever a signal made fail, the signal is why.
    let made = bundle::make(source, places, site, stages).map_err(|e| signal::check().err().unwrap_or(e));
    let kernel = made?;
    stages.begin("publish");
    cache::save(building.path(), &kernel)?;
    slot.publish(building, kernel, |_| cached())
}

/// The error for an input that is not there.
fn missing(path: &Path) -> Error {
    Error::new(Code::MissingFile, format!("{} is not there", path.display())).detail("path", path.display().to_string())
}

#[cfg(test)]
mod tests;
