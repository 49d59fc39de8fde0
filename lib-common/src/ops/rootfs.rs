//! The verbs of `bg-rootfs`: base root file systems, as a filter behind `bg-kernel` or as a source.

pub mod configure;

use crate::build::debian::{self, Places, Recipe};
use crate::cli::{Answer, Context, Source};
use crate::doc::{Document, Kernel, Kind, Name};
use crate::error::Result;

/// What `bg-rootfs build` was given.
#[derive(Clone, Debug)]
pub struct BuildArgs {
    /// What to build.
    pub recipe: Recipe,
    /// Instead of stdin: the name of an image in the store, or (with a `/`) an `Image` document in a file.
    pub kernel: Option<String>,
    /// Whether a root that is in the cache will do.
    pub use_cache: bool,
}

/// Builds a Debian root and puts the section `rootfs` into the document.
///
/// Errors: those of [`debian::build`] and of the document.
pub fn build(args: &BuildArgs, cx: &mut Context<'_>) -> Result<Answer> {
    let mut doc = document(args.kernel.as_deref(), cx)?;
    let places = Places::new(&cx.config.cache_dir);
    let rootfs = debian::build(&args.recipe, args.use_cache, &places, &mut cx.stages)?;
    doc.set(&rootfs);
    cx.emit(doc)?;
    Ok(Answer::Done)
}

/// The document to extend. Of an image in the store only the kernel is taken: name and registration are that image's.
fn document(kernel: Option<&str>, cx: &mut Context<'_>) -> Result<Document> {
    match kernel {
        Some(path) if path.contains('/') => cx.document(&Source { name: None, file: Some(path.into()) }, Kind::Image),
        Some(name) => {
            let image = cx.document(&Source { name: Some(Name::parse(name)?), file: None }, Kind::Image)?;
            let mut doc = Document::unnamed(Kind::Image);
            doc.set(&image.require::<Kernel>()?);
            Ok(doc)
        }
        None if cx.stdin_is_terminal => Ok(Document::unnamed(Kind::Image)),
        None => cx.document(&Source::default(), Kind::Image),
    }
}
