//! `bg-kernel`: a bundle of kernel, initrd and modules.

use crate::cli::{Answer, Context};
use lib_common::error::Result;
use lib_image::build::kernel::{Places, Source, build_in, document};
use lib_machine::config::Config;
use std::path::PathBuf;

/// `bg-kernel build`: an `Image` document, without a name, with the kernel of `source`. With `use_cache` a bundle that the cache has
/// is taken.
///
/// # Errors
/// Those of [`build_in`], and [`lib_common::error::Code::MissingFile`] without a guest agent.
pub fn build(cx: &mut Context<'_>, source: &Source, use_cache: bool) -> Result<Answer> {
    let kernel = build_in(source, use_cache, &places(&cx.config)?, &mut cx.stages)?;
    cx.emit(document(&kernel))?;
    Ok(Answer::Done)
}

/// Where the configuration has what a kernel's build needs.
fn places(config: &Config) -> Result<Places> {
    Ok(Places {
        depmod: "depmod".into(),
        cache_dir: config.cache()?.to_owned(),
        agent: config.agent_path()?,
        apt_lists: PathBuf::from("/var/lib/apt/lists"),
    })
}
