//! Where images and VMs are: whether their disks can share blocks, how much room there is, and the images' seeds.

use super::Caller;
use crate::cli::Context;
use crate::cli::table::size;
use lib_common::doc::{Check, Document, Name, Rootfs, Seed};
use lib_common::error::{Error, Result};
use lib_common::sys::cmd::quote;
use lib_common::sys::fs::{can_reflink, free_bytes};
use lib_machine::store::Store;
use std::path::{Path, PathBuf};

/// With less no image can be built and no VM be used for long, in bytes.
const LEAST: u64 = 1 << 30;
/// With less it is soon full: an image and a VM that is worked in take as much.
const AMPLE: u64 = 8 << 30;

pub(super) fn checks(cx: &Context<'_>, caller: &Caller) -> Result<Vec<Check>> {
    let (state, cache) = (&cx.config.state_dir, &cx.config.cache_dir);
    let ask = |dir: &Path| existing(dir).and_then(|there| free_bytes(there).ok());
    let shares = existing(state).map(can_reflink).unwrap_or_else(|| Ok(false));
    let mut checks = vec![
        reflink(state, shares, caller),
        space("state_space", (state, ask(state)), "bg-verify | bg-gc"),
        space("cache_space", (cache, ask(cache)), &format!("rm -r {}", quote(&cache.display().to_string()))),
    ];
    checks.extend(images(&cx.store())?);
    Ok(checks)
}

/// The directory, or the nearest one above it that is there: it is made when it is needed.
fn existing(dir: &Path) -> Option<&Path> {
    dir.ancestors().find(|dir| dir.is_dir())
}

/// `shares`: whether two files of the state directory can have blocks in common.
pub(super) fn reflink(state: &Path, shares: Result<bool>, caller: &Caller) -> Check {
    let name = "reflink";
    let shown = state.display();
    match shares {
        Ok(true) => Check::new(name, true, format!("disks in {shown} share blocks with their image"), ""),
        Ok(false) => {
            let message =
                format!("the file system of {shown} shares no blocks, so each VM's disks are copied, without holes");
            Check::could_be_better(name, message, on_btrfs(caller))
        }
        Err(e) => {
            let fix = format!(
                "export BG_STATE_DIR={}",
                quote(&PathBuf::from("/var/tmp").join(&caller.name).display().to_string())
            );
            Check::new(name, false, format!("no file can be made in {shown}: {}", e.with_causes()), &fix)
        }
    }
}

/// A state directory of one's own that can.
fn on_btrfs(caller: &Caller) -> String {
    let (file, dir) = ("/var/tmp/banger.btrfs", "/mnt/banger");
    let steps = [
        format!("truncate -s 64G {file}"),
        format!("mkfs.btrfs -q {file}"),
        format!("mkdir -p {dir}"),
        format!("mount -o loop {file} {dir}"),
        format!("chown {} {dir}", caller.name),
    ];
    let steps: Vec<String> = steps.iter().map(|step| caller.sudo(step)).collect();
    format!("{} && export BG_STATE_DIR={dir}/state", steps.join(" && "))
}

/// `free`: bytes, where they could be asked for.
pub(super) fn space(name: &str, (dir, free): (&Path, Option<u64>), fix: &str) -> Check {
    let shown = dir.display();
    let Some(free) = free else {
        return Check::new(
            name,
            false,
            format!("the file system of {shown} cannot be asked for its free space"),
            "mount",
        );
    };
    let message = format!("{} are free for {shown}", size(free));
    match free {
        ..LEAST => Check::new(name, false, format!("{message}, and {} is the least that works", size(LEAST)), fix),
        LEAST..AMPLE => Check::could_be_better(name, format!("{message}, which is soon used up"), fix),
        AMPLE.. => Check::new(name, true, message, ""),
    }
}

/// A check for each image of the store.
fn images(store: &Store) -> Result<Vec<Check>> {
    let names = store.image_names()?;
    if names.is_empty() {
        let fix = "bg-kernel build | bg-rootfs build --distro debian | bg-seed build | bg-register --name debian";
        return Ok(vec![Check::could_be_better("images", "no image is registered yet", fix)]);
    }
    Ok(names.iter().map(|name| seeds(name, store.image(name))).collect())
}

/// Whether the seeds of an image are there, and made from its root file system. `bg-seed check` looks into them.
pub(super) fn seeds(image: &Name, record: Result<Document>) -> Check {
    let name = format!("seeds_{}", image.as_str().replace('-', "_"));
    let sections = record.and_then(|doc| Ok((doc.require::<Rootfs>()?, doc.section::<Seed>()?)));
    let (rootfs, seed) = match sections {
        Ok(sections) => sections,
        Err(e) => return damaged(&name, image, &e),
    };
    let Some(seed) = seed.filter(|seed| !seed.sizes.is_empty()) else {
        let message = format!("{image} has no seeds, so each VM's work disk is a new file system, a second or more");
        return Check::could_be_better(&name, message, format!("bg-seed build {image}"));
    };
    let fix = format!("bg-image reconcile {image}");
    let is_there = |path: &Path, size: u64| path.metadata().is_ok_and(|file| file.is_file() && file.len() == size);
    let gone: Vec<&str> =
        seed.sizes.iter().filter(|one| !is_there(&one.path, one.size_bytes)).map(|one| one.path.as_str()).collect();
    if !gone.is_empty() {
        let message = format!("of {image} are missing or cut off: {}; a VM cannot be made", gone.join(", "));
        return Check::new(&name, false, message, &fix);
    }
    if seed.source_digest != rootfs.digest {
        let message = format!("the seeds of {image} were made from another root file system");
        return Check::new(&name, false, message, &fix);
    }
    let sizes: Vec<String> = seed.sizes.iter().map(|one| size(one.size_bytes)).collect();
    Check::new(&name, true, format!("{image} has seeds of {}", sizes.join(", ")), "")
}

fn damaged(name: &str, image: &Name, e: &Error) -> Check {
    let message = format!("the record of {image} cannot be read: {}", e.with_causes());
    Check::new(name, false, message, &format!("bg-image rm {image}"))
}
