//! From a provisioned VM to an image in the cache: shut down, checked, digested, with its manifest and work seeds, and
//! whole under its key at once.

use super::provision::{Done, LOG};
use super::vm::BuildVm;
use super::{Base, Made};
use crate::cli::Context;
use lib_common::digest;
use lib_common::doc::{AbsPath, Digest, Document, Kind, Rootfs, Seed, SeedSize};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::fs::clone_file;
use lib_common::sys::thread;
use lib_image::build::image::Plan;
use lib_image::build::manifest;
use lib_image::build::slot::Slot;
use lib_image::disk::ext4;
use lib_image::disk::seed;
use lib_machine::store::read_record;
use std::path::Path;

const IMAGE: &str = "rootfs.ext4";
const MANIFEST: &str = "manifest";
const RECORD: &str = "image.json";

/// Makes the image and removes the VM.
pub(super) fn finish(
    cx: &mut Context<'_>,
    vm: BuildVm,
    (plan, done): (&Plan, Done),
    (slot, base, replace): (&Slot, &Base, bool),
) -> Result<Made> {
    let ended = vm.shut_down(cx)?;
    cx.stages.begin("check");
    ext4::ensure_clean(&ended.root())?;
    cx.stages.begin("move");
    let building = slot.begin()?;
    let (dir, becomes) = (building.path(), slot.dir());
    let image = dir.join(IMAGE);
    move_file(&ended.root(), &image)?;
    move_file(&ended.file(LOG), &dir.join(LOG))?;
    ended.remove()?;
    let (digest, mut sizes) = digest_and_seeds(cx, &image, dir)?;
    for size in &mut sizes {
        size.path = AbsPath::new(becomes.join(seed::file_name(size.size_bytes)))?;
    }
    cx.stages.begin("publish");
    let made = Made {
        rootfs: Rootfs {
            distro: base.rootfs.distro.clone(),
            release: base.rootfs.release.clone(),
            path: AbsPath::new(becomes.join(IMAGE))?,
            size_bytes: plan.size,
            digest: digest.clone(),
            manifest: AbsPath::new(becomes.join(MANIFEST))?,
            manifest_digest: manifest::digest(&done.manifest),
        },
        build: done.build,
        seed: Seed { source_digest: digest, sizes },
    };
    fs_err::write(dir.join(MANIFEST), &done.manifest)?;
    lib_machine::store::save_record(&dir.join(RECORD), &record(&made))?;
    slot.publish(building, made, |_| load(slot).filter(|_| !replace))
}

/// The image in the cache. One that was damaged since (a file is gone or of another size) is none. Digests are not
/// checked again: that is for who registers or boots it.
pub(super) fn load(slot: &Slot) -> Option<Made> {
    let doc = read_record(&slot.dir().join(RECORD), Kind::Image).ok()??;
    let made = Made { rootfs: doc.require().ok()?, build: doc.require().ok()?, seed: doc.require().ok()? };
    let sized = |path: &Path, size: u64| path.starts_with(slot.dir()) && path.metadata().is_ok_and(|m| m.len() == size);
    let whole = sized(&made.rootfs.path, made.rootfs.size_bytes)
        && made.rootfs.manifest.metadata().is_ok_and(|m| m.len() > 0)
        && made.seed.sizes.iter().all(|one| sized(&one.path, one.size_bytes));
    whole.then_some(made)
}

/// The digest of the image, which takes a second, and meanwhile its seeds.
fn digest_and_seeds(cx: &mut Context<'_>, image: &Path, dir: &Path) -> Result<(Digest, Vec<SeedSize>)> {
    std::thread::scope(|scope| {
        let hashing = thread::scoped(scope, || digest::of_file(image))?;
        let sizes = seed::build(image, seed::DEFAULT_SIZES, dir, &mut cx.stages)?;
        cx.stages.begin("digest");
        let digest = hashing.join().unwrap_or_else(|_| Err(Error::new(Code::Internal, "a digest panicked")))?;
        Ok((digest, sizes))
    })
}

fn record(made: &Made) -> Document {
    let mut doc = Document::unnamed(Kind::Image);
    doc.set(&made.rootfs);
    doc.set(&made.build);
    doc.set(&made.seed);
    doc
}

/// By a rename where state and cache are on one file system.
fn move_file(from: &Path, to: &Path) -> Result<()> {
    match std::fs::rename(from, to) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::CrossesDevices => clone_file(from, to).map(drop),
        Err(e) => Err(Error::io("move to", to, &e)),
    }
}
