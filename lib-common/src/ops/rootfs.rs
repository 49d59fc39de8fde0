//! The verbs of `bg-rootfs`: base root file systems, as a filter behind `bg-kernel` or as a source.

pub mod configure;

use crate::build::debian::{self, Places};
use crate::build::{manifest, void};
use crate::cli::{Answer, Context, Source};
use crate::doc::{Document, Kernel, Kind, Name, Rootfs};
use crate::error::{Code, Error, Result};
use std::time::Duration;

/// How long the packages' scripts of a whole root may take; without KVM they take minutes.
const CONFIGURE: Duration = Duration::from_secs(1800);

/// A recipe of one of the distributions.
#[derive(Clone, Debug)]
pub enum Recipe {
    /// Debian's.
    Debian(debian::Recipe),
    /// Void's.
    Void(void::Recipe),
    /// That of Void's releases.
    VoidRelease(void::release::Recipe),
}

/// What `bg-rootfs build` was given.
#[derive(Clone, Debug)]
pub struct BuildArgs {
    /// What to build.
    pub recipe: Recipe,
    /// Instead of stdin: the name of an image in the store, or (with a `/`) an `Image` document in a file.
    pub kernel: Option<String>,
    /// Whether a root that is in the cache will do.
    pub use_cache: bool,
    /// Whether the plan is printed and nothing made: Void alone.
    pub dry_run: bool,
}

/// Builds a root and puts the section `rootfs` into the document; or prints which packages it would have.
///
/// Errors: those of [`debian::build`], of [`void::plan`] and what follows, and of the document.
pub fn build(args: &BuildArgs, cx: &mut Context<'_>) -> Result<Answer> {
    match &args.recipe {
        Recipe::Void(recipe) if args.dry_run => {
            let planned = void::plan(recipe, cx.config.cache()?, &mut cx.stages)?;
            tell_changes(planned.plan(), cx);
            cx.emit_text(&manifest::render(planned.packages()));
            return Ok(Answer::Done);
        }
        _ => {}
    }
    let mut doc = document(args.kernel.as_deref(), cx)?;
    let rootfs = match &args.recipe {
        Recipe::Debian(recipe) => {
            let places = Places::new(cx.config.cache()?);
            debian::build(recipe, args.use_cache, &places, &mut cx.stages)?
        }
        Recipe::Void(recipe) => build_void(recipe, args.use_cache, &doc, cx)?,
        Recipe::VoidRelease(recipe) => build_void_release(recipe, args.use_cache, &doc, cx)?,
    };
    doc.set(&rootfs);
    cx.emit(doc)?;
    Ok(Answer::Done)
}

/// The packages are configured by a guest with the document's kernel; the lock file is written once that has gone well.
fn build_void(recipe: &void::Recipe, use_cache: bool, doc: &Document, cx: &mut Context<'_>) -> Result<Rootfs> {
    let kernel = kernel(doc)?;
    let planned = void::plan(recipe, cx.config.cache()?, &mut cx.stages)?;
    check_arch(planned.arch(), &kernel)?;
    tell_changes(planned.plan(), cx);
    let plan = planned.plan();
    if let Some(rootfs) = planned.cached().filter(|_| use_cache) {
        plan.pending().save()?;
        return Ok(rootfs);
    }
    let lock = plan.pending();
    let unconfigured = planned.make(&mut cx.stages)?;
    let rootfs = configured(unconfigured, &kernel, use_cache, cx)?;
    lock.save()?;
    Ok(rootfs)
}

/// The tarball is made an image's root by a guest with the document's kernel.
fn build_void_release(
    recipe: &void::release::Recipe,
    use_cache: bool,
    doc: &Document,
    cx: &mut Context<'_>,
) -> Result<Rootfs> {
    let kernel = kernel(doc)?;
    let checked = void::release::check(recipe, cx.config.cache()?, &mut cx.stages)?;
    check_arch(checked.arch(), &kernel)?;
    if let Some(rootfs) = checked.cached().filter(|_| use_cache) {
        return Ok(rootfs);
    }
    let unconfigured = checked.make(&mut cx.stages)?;
    configured(unconfigured, &kernel, use_cache, cx)
}

fn check_arch(arch: &str, kernel: &Kernel) -> Result<()> {
    if void::runs_on(arch, &kernel.arch) {
        return Ok(());
    }
    let message = format!("packages for {arch} cannot be configured by a kernel for {}", kernel.arch);
    Err(Error::new(Code::BadValue, message).hint("give packages for the kernel's architecture, or another --kernel"))
}

fn configured(root: void::Unconfigured, kernel: &Kernel, use_cache: bool, cx: &mut Context<'_>) -> Result<Rootfs> {
    configure::configure(cx, kernel, &root.image(), CONFIGURE)?;
    root.publish(use_cache, &mut cx.stages)
}

fn kernel(doc: &Document) -> Result<Kernel> {
    doc.require::<Kernel>().map_err(|e| {
        e.within("the packages of a Void root are configured in a guest, and that needs a kernel")
            .hint("bg-kernel build | bg-rootfs build --distro void; or --kernel NAME of an image that has one")
    })
}

/// What an update of the lock file changes.
fn tell_changes(plan: &void::obtain::Plan, cx: &mut Context<'_>) {
    match plan.changes() {
        Some([]) => cx.remark("the lock file is up to date"),
        Some(lines) => lines.iter().for_each(|line| cx.remark(line)),
        None => {}
    }
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
