//! A root file system in its slot of the cache: the image, its manifest, and the record of both. Knows no distribution.

use super::manifest;
use fs_err as fs;
use lib_common::doc::{self, AbsPath, Digest, ManifestEntry, Rootfs};
use lib_common::error::Result;
use lib_common::sys::thread;
use std::path::Path;

/// The image's name.
pub const IMAGE: &str = "rootfs.ext4";
/// The manifest's.
pub const MANIFEST: &str = "manifest";
/// The record's.
pub const RECORD: &str = "rootfs.json";

/// What there is to say of an image before it is looked at.
#[derive(Clone, Debug)]
pub struct Made {
    /// `debian`.
    pub distro: &'static str,
    /// The distribution's release.
    pub release: String,
    /// Of the file system, in bytes.
    pub size: u64,
    /// What is installed.
    pub packages: Vec<ManifestEntry>,
}

/// Writes manifest and record beside the image in `dir`; the record's paths are those in `becomes`.
pub fn seal(made: Made, dir: &Path, becomes: &Path) -> Result<Rootfs> {
    let digest = digest_and_sync(&dir.join(IMAGE))?;
    let manifest = manifest::render(made.packages);
    let rootfs = Rootfs {
        distro: made.distro.into(),
        release: made.release,
        path: AbsPath::new(becomes.join(IMAGE))?,
        size_bytes: made.size,
        digest,
        manifest: AbsPath::new(becomes.join(MANIFEST))?,
        manifest_digest: manifest::digest(&manifest),
    };
    save(&dir.join(MANIFEST), &manifest)?;
    save(&dir.join(RECORD), &(doc::to_json(&rootfs) + "\n"))?;
    Ok(rootfs)
}

/// The root in a directory of the cache. One that was damaged since (a file is gone or of another size) is none. Its
/// digest is not computed again: that is for who boots from it.
pub fn load(dir: &Path) -> Option<Rootfs> {
    let rootfs: Rootfs = doc::strict(&fs::read_to_string(dir.join(RECORD)).ok()?).ok()?;
    let here = rootfs.path.parent() == Some(dir) && rootfs.manifest.parent() == Some(dir);
    let size = fs::metadata(&rootfs.path).ok()?.len();
    let manifest = fs::metadata(&rootfs.manifest).ok()?.len();
    (here && size == rootfs.size_bytes && manifest > 0).then_some(rootfs)
}

/// The image's digest, while another thread waits until it is on the disk: a cache hit believes what it finds.
fn digest_and_sync(image: &Path) -> Result<Digest> {
    let file = fs::File::open(image)?;
    std::thread::scope(|scope| {
        let synced = thread::scoped(scope, || file.sync_all())?;
        let digest = lib_common::digest::of_file(image);
        synced.join().unwrap_or_else(|_| Err(std::io::Error::other("a sync panicked")))?;
        digest
    })
}

/// Writes a file durably; its directory has no name yet.
fn save(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::File::open(path)?.sync_all()?)
}
