//! The bundle: whether its files are there and what its `bundle.json` says.

use crate::cli::Context;
use crate::ops::image::bundle::kernel_of;
use crate::ops::image::files::{Wrong, wrong};
use lib_common::digest;
use lib_common::doc::{BundlePart, Check, Digest, Kernel};
use lib_common::error::Result;
use lib_common::sys::cmd::quote;
use lib_machine::config::{Loaded, default_bundle_dir, mend_bundle};
use std::path::Path;

const NAME: &str = "bundle";

/// The largest file whose digest is computed, in bytes: half a second's work. Of larger ones, of trees and of seeds it is
/// seen whether they are there; whoever takes them over computes their digests.
const DIGESTED: u64 = 256 << 20;

/// No bundle is fine.
///
/// # Errors
/// The signal that came.
pub(super) fn check(cx: &Context<'_>) -> Result<Check> {
    let loaded = match cx.config.bundle() {
        Ok(Some(loaded)) => loaded,
        Ok(None) => return Ok(Check::new(NAME, true, "no bundle is used", "")),
        Err(e) => return Ok(Check::new(NAME, false, e.with_causes(), &mend_bundle())),
    };
    let (dir, shown) = (loaded.dir(), loaded.json().display());
    let mend = match dir == default_bundle_dir(&cx.config.state_dir) {
        true => mend_bundle(),
        false => format!("{} {}", mend_bundle(), quote(&dir.display().to_string())),
    };
    let mut faults = vec![];
    if loaded.bundle.arch != std::env::consts::ARCH {
        faults.push(format!("{shown} is for {}", loaded.bundle.arch));
    }
    for (key, path, part) in loaded.bundle.parts() {
        let at = loaded.at(path);
        let fault = fault(&at, loaded.bundle.digest(path), part)?;
        faults.extend(fault.map(|what| format!("{} ({key}) {}", at.display(), what.in_words())));
    }
    if !faults.is_empty() {
        return Ok(Check::new(NAME, false, faults.join("; "), &mend));
    }
    let versions = &loaded.bundle.versions;
    if versions.agent != env!("CARGO_PKG_VERSION") {
        let message = format!("the agent of {shown} is {}, and these tools are not", versions.agent);
        return Ok(Check::could_be_better(NAME, message, mend));
    }
    if !is_default_images(cx, loaded)? {
        let message = format!("the default image has another kernel than {shown}");
        return Ok(Check::could_be_better(NAME, message, "bg-image reconcile"));
    }
    Ok(Check::new(NAME, true, format!("{shown} is whole, with Linux {}", versions.kernel), ""))
}

fn fault(at: &Path, expected: Option<&Digest>, part: BundlePart) -> Result<Option<Wrong>> {
    let there = match part {
        BundlePart::File if at.metadata().is_ok_and(|file| file.is_file() && file.len() <= DIGESTED) => {
            return wrong(at, expected, digest::of_file);
        }
        BundlePart::File | BundlePart::Seed => at.is_file(),
        BundlePart::Tree => at.is_dir(),
    };
    Ok((!there).then_some(Wrong::Missing))
}

/// Whether the default image has the bundle's kernel, or there is none. An image that cannot be read is another check's.
fn is_default_images(cx: &Context<'_>, loaded: &Loaded) -> Result<bool> {
    let store = cx.store();
    let Ok(Some(name)) = store.default_image() else { return Ok(true) };
    let Ok(kernel) = store.image(&name).and_then(|doc| doc.require::<Kernel>()) else { return Ok(true) };
    Ok(kernel.digests == kernel_of(loaded)?.digests)
}
