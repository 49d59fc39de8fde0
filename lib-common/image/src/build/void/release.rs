//! A Void root from the tarball that Void releases, instead of from packages. Its packages are configured already; what makes
//! an image of it is one script, in a guest as theirs would be.

use super::{ARCHES, EPOCH, FORMAT, Unconfigured, overlay};
use crate::build::rootfs::{IMAGE, Made, load};
use crate::build::slot::Slot;
use crate::disk::ext4;
use lib_common::added::Added;
use lib_common::digest;
use lib_common::doc::{Digest, ManifestEntry, Rootfs};
use lib_common::error::{Code, Context, Error, Result};
use lib_common::timing::Stages;
use lib_xbps::release::Release;
use lib_xbps::root::{Extra, Stopped, write_tarball};
use std::fmt::Write as _;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// What every guest needs, by package.
const NEEDED: &[&str] = &["bash", "iproute2", "openssh", "runit-void", "xbps"];

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The tarball, beside its sums and their signature.
    pub file: PathBuf,
    /// The key that is trusted instead of Void's.
    pub key: Option<PathBuf>,
    /// Of the file system, in bytes.
    pub size: u64,
}

/// A tarball that is what was signed.
#[derive(Debug)]
pub struct Checked {
    release: Release,
    size: u64,
    added: Vec<Added>,
    slot: Slot,
    key: Digest,
}

/// Checks the tarball.
///
/// Stages: `verify`.
///
/// # Errors
/// Those of [`Release::open`]; [`Code::BadValue`] for a size or an architecture that cannot be.
pub fn check(recipe: &Recipe, cache_dir: &Path, stages: &mut Stages) -> Result<Checked> {
    stages.begin("verify");
    ext4::check_size(recipe.size)?;
    let release = Release::open(&recipe.file, recipe.key.as_deref())?;
    if !ARCHES.contains(&&*release.arch) {
        let message = format!("{} is for {}, which no guest here is", recipe.file.display(), release.arch);
        return Err(Error::new(Code::BadValue, message).hint(format!("known: {}", ARCHES.join(", "))));
    }
    let added = overlay::added(&[]);
    let mut text = format!("banger rootfs {FORMAT} {}\nvoid {}\n", overlay::VERSION, release.name);
    let _ = writeln!(text, "release {}\nsize {}", release.digest.hex(), recipe.size);
    text.extend(added.iter().map(Added::key_line));
    let key = digest::of_bytes(text.as_bytes());
    let slot = Slot::new(cache_dir, "rootfs", &key)?;
    Ok(Checked { release, size: recipe.size, added, slot, key })
}

impl Checked {
    /// The architecture of its packages.
    pub fn arch(&self) -> &str {
        &self.release.arch
    }

    /// The root that is in the cache.
    pub fn cached(&self) -> Option<Rootfs> {
        load(self.slot.dir())
    }

    /// Makes the root, which is then to be configured, in a guest.
    ///
    /// Stages: `check_host`, `unpack`.
    ///
    /// # Errors
    /// [`Code::BadInput`], with the tarball's name, for what is hostile, damaged or lacks what every guest needs;
    /// [`Code::MissingProgram`], [`Code::CommandFailed`] where mke2fs cannot.
    pub fn make(self, stages: &mut Stages) -> Result<Unconfigured> {
        stages.begin("check_host");
        ext4::probe()?;
        stages.begin("unpack");
        let building = self.slot.begin()?;
        let Checked { release, size, added, slot, key } = self;
        let (name, release_date) = (release.name.clone(), release.date.clone());
        let image = building.path().join(IMAGE);
        let packages = write(release, &added, (&image, size, &key)).context("cannot build a Void root")?;
        if let Some(lacks) = NEEDED.iter().find(|needed| !packages.iter().any(|one| one.name == **needed)) {
            let message = format!("{name} lacks the package `{lacks}`, which every guest needs");
            return Err(Error::new(Code::BadInput, message).hint("build from packages: leave --from-rootfs away"));
        }
        let made = Made { distro: "void", release: release_date, size, packages };
        Ok(Unconfigured { building, slot, made, has_scripts: true })
    }
}

fn write(release: Release, added: &[Added], (image, size, id): (&Path, u64, &Digest)) -> Result<Vec<ManifestEntry>> {
    let format = ext4::Format { label: "rootfs", id, epoch: EPOCH, root_mode: 0o755 };
    let mut disk = ext4::make_from_tar(image, size, format)?;
    let arch = release.arch.clone();
    let extra = Extra { added, last: Some(overlay::LAST), keys: &[], is_system: true, arch: &arch, epoch: EPOCH };
    match write_tarball(release, &extra, BufWriter::with_capacity(128 << 10, &mut disk)) {
        Ok(packages) => disk.finish().map(|()| packages),
        Err(Stopped::Package(e)) => Err(e),
        Err(Stopped::Output(e)) => Err(disk.failure().unwrap_or_else(|| e.into())),
    }
}
