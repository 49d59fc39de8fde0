//! bg-seed: build, check. (clone is `machine::clone`: it claims a VM's name.)

use crate::cli::{Answer, Context, Source};
use crate::ops::image::files::record_facts;
use crate::ops::machine::is_running;
use lib_common::digest;
use lib_common::doc::{AbsPath, Check, Disks, Document, Kind, Name, Rootfs, Seed, SeedSize};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::fs::{remove_file, sync_all};
use lib_image::build::slot::Slot;
use lib_image::disk::seed;
use lib_machine::store::save_record;
use std::path::Path;

/// Changes whenever the same root would give other seeds.
const FORMAT: u32 = 1;

/// What `bg-seed build` takes.
#[derive(Clone, Debug, Default)]
pub struct BuildArgs {
    /// Whose seed.
    pub source: Source,
    /// Sizes in bytes; [`seed::DEFAULT_SIZES`] where none is given.
    pub sizes: Vec<u64>,
}

/// `bg-seed build`: the section `seed`. For an image of the store its record is changed too.
pub fn build(cx: &mut Context<'_>, args: &BuildArgs) -> Result<Answer> {
    let doc = cx.document(&args.source, Kind::Image)?;
    let mut sizes = if args.sizes.is_empty() { seed::DEFAULT_SIZES.to_vec() } else { args.sizes.clone() };
    sizes.sort_unstable();
    sizes.dedup();
    let doc = match &args.source.name {
        Some(name) => into_store(cx, name, &sizes)?,
        None => into_cache(cx, doc, &sizes)?,
    };
    cx.emit(doc)?;
    Ok(Answer::Done)
}

/// In the cache, by the digest of the rootfs and the sizes.
fn into_cache(cx: &mut Context<'_>, mut doc: Document, sizes: &[u64]) -> Result<Document> {
    let rootfs: Rootfs = doc.require()?;
    let key =
        sizes.iter().fold(format!("banger seed {FORMAT}\n{}\n", rootfs.digest), |key, size| format!("{key}{size}\n"));
    let slot = Slot::new(cx.config.cache()?, "seed", &digest::of_bytes(key.as_bytes()))?;
    if !is_whole(slot.dir(), sizes) {
        make_in_cache(cx, (&rootfs, sizes), &slot)?;
    }
    cx.stages.begin("digest");
    let sizes = sizes.iter().map(|size| described(slot.dir(), *size)).collect::<Result<Vec<_>>>()?;
    doc.set(&Seed { source_digest: rootfs.digest, sizes });
    Ok(doc)
}

/// Of many at once, one makes them.
fn make_in_cache(cx: &mut Context<'_>, (rootfs, sizes): (&Rootfs, &[u64]), slot: &Slot) -> Result<()> {
    let _turn = slot.turn()?;
    if is_whole(slot.dir(), sizes) {
        return Ok(());
    }
    let building = slot.begin()?;
    seed::build(&rootfs.path, sizes, building.path(), &mut cx.stages)?;
    cx.stages.begin("publish");
    slot.publish(building, (), |there| is_whole(there, sizes).then_some(()))
}

/// Whether a directory of the cache has seeds of these sizes.
fn is_whole(dir: &Path, sizes: &[u64]) -> bool {
    sizes.iter().all(|size| dir.join(seed::file_name(*size)).metadata().is_ok_and(|m| m.len() == *size))
}

fn described(dir: &Path, size_bytes: u64) -> Result<SeedSize> {
    let path = dir.join(seed::file_name(size_bytes));
    Ok(SeedSize { size_bytes, digest: digest::of_content(&path)?, path: AbsPath::new(path)? })
}

/// In the image's directory. Built beside it; then record and files change while nobody else changes the image. A file that
/// the record does not name, such as one that a kill left, is found by the audit.
pub(super) fn into_store(cx: &mut Context<'_>, name: &Name, sizes: &[u64]) -> Result<Document> {
    let store = cx.store();
    let rootfs: Rootfs = store.image(name)?.require()?;
    let staging = store.stage("seed")?;
    let mut built = seed::build(&rootfs.path, sizes, staging.path(), &mut cx.stages)?;
    cx.stages.begin("record");
    sync_all(staging.path())?;
    let _lock = store.lock_images()?;
    let mut doc = store.image(name)?;
    if doc.require::<Rootfs>()? != rootfs {
        return Err(Error::new(Code::InUse, format!("the image `{name}` was replaced while its seeds were made"))
            .hint(format!("bg-seed build {name}")));
    }
    let old: Option<Seed> = doc.section()?;
    let home = store.image_dir(name);
    for size in &mut built {
        let to = home.join(seed::file_name(size.size_bytes));
        std::fs::rename(&size.path, &to).map_err(|e| Error::io("rename to", &to, &e))?;
        size.path = AbsPath::new(to)?;
    }
    let seed = Seed { source_digest: rootfs.digest, sizes: built };
    doc.set(&seed);
    record_facts(&mut doc, &home)?;
    doc.append_timings(&cx.stages.take_before("save"))?;
    save_record(&home.join("image.json"), &doc)?;
    let replaced = old.into_iter().flat_map(|old| old.sizes).map(|size| size.path);
    for path in replaced.filter(|path| seed.sizes.iter().all(|size| size.path != *path)) {
        remove_file(&path)?;
    }
    Ok(doc)
}

/// `bg-seed check` of an image's seeds: a [`Report`]; exit 1 when a check failed.
pub fn check_image(cx: &mut Context<'_>, source: &Source) -> Result<Answer> {
    let doc = cx.document(source, Kind::Image)?;
    let rootfs: Rootfs = doc.require()?;
    cx.stages.begin("check");
    let checks = match doc.section::<Seed>()? {
        Some(seed) => seed::check_seed(&seed, &rootfs.digest)?,
        None => vec![Check {
            name: "seed_present".into(),
            ok: false,
            message: "the image has no seed; its work disks are built anew".into(),
            fix: source.name.as_ref().map(|name| format!("bg-seed build {name}")),
        }],
    };
    let subject = source.name.as_ref().map_or_else(|| "seed".into(), |n| format!("seed of {n}"));
    cx.report(subject, checks)
}

/// `bg-seed check --vm`: the work disk of a VM that does not run.
pub fn check_machine(cx: &mut Context<'_>, name: &Name) -> Result<Answer> {
    let machine = cx.store().machine(name)?;
    let _lock = machine.lock()?;
    let doc = machine.current()?;
    if is_running(&doc)? {
        return Err(Error::new(Code::InUse, format!("the VM `{name}` runs, and its disk is in use"))
            .hint(format!("bg-vm stop {name}")));
    }
    cx.stages.begin("check");
    let disks: Disks = doc.require()?;
    let checks = lib_image::disk::check_disk(&disks.work.path, name)?;
    cx.report(format!("work disk of {name}"), checks)
}
