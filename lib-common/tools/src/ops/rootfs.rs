//! The verbs of `bg-rootfs`: base root file systems, as a filter behind `bg-kernel` or as a source.

pub mod configure;

use crate::cli::{Answer, Context, Source};
use lib_common::doc::{Document, Kernel, Kind, Name, Rootfs, to_json};
use lib_common::error::{Code, Error, Result};
use lib_image::build::debian::{self, Places};
use lib_image::build::{manifest, void};
use std::time::Duration;

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
    /// What is printed instead of making anything: Void alone.
    pub dry_run: Option<DryRun>,
    /// How long the packages' scripts may take.
    pub timeout: Duration,
}

/// How a plan is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DryRun {
    /// The packages as the root's manifest will list them.
    Manifest,
    /// The transaction: a line of JSON a package, in its order.
    Plan,
}

/// Builds a root and puts the section `rootfs` into the document; or prints which packages it would have.
///
/// Errors: those of [`debian::build`], of [`void::plan`] and what follows, and of the document.
pub fn build(args: &BuildArgs, cx: &mut Context<'_>) -> Result<Answer> {
    if let (Recipe::Void(recipe), Some(dry_run)) = (&args.recipe, args.dry_run) {
        let planned = void::plan(recipe, cx.config.cache()?, &mut cx.stages)?;
        tell(planned.plan(), cx);
        match dry_run {
            DryRun::Manifest => cx.emit_text(&manifest::render(planned.packages())),
            DryRun::Plan => planned.plan().entries().iter().for_each(|entry| cx.emit_line(&to_json(entry))),
        }
        return Ok(Answer::Done);
    }
    let mut doc = document(args.kernel.as_deref(), cx)?;
    let rootfs = match &args.recipe {
        Recipe::Debian(recipe) => {
            let places = Places::new(cx.config.cache()?);
            debian::build(recipe, args.use_cache, &places, &mut cx.stages)?
        }
        Recipe::Void(recipe) => build_void(recipe, args, &doc, cx)?,
        Recipe::VoidRelease(recipe) => build_void_release(recipe, args, &doc, cx)?,
    };
    doc.set(&rootfs);
    cx.emit(doc)?;
    Ok(Answer::Done)
}

/// The packages are configured by a guest with the document's kernel, if one of them has a script; the lock file is written
/// once that has gone well.
fn build_void(recipe: &void::Recipe, args: &BuildArgs, doc: &Document, cx: &mut Context<'_>) -> Result<Rootfs> {
    let before = if recipe.base { Some(kernel(doc)?) } else { None };
    let planned = void::plan(recipe, cx.config.cache()?, &mut cx.stages)?;
    let arch = planned.arch().to_owned();
    before.iter().try_for_each(|kernel| check_arch(&arch, kernel))?;
    tell(planned.plan(), cx);
    let lock = planned.plan().pending();
    if let Some(rootfs) = planned.cached().filter(|_| args.use_cache) {
        lock.save()?;
        return Ok(rootfs);
    }
    let unconfigured = planned.make(&mut cx.stages)?;
    let rootfs = if unconfigured.has_scripts() {
        let kernel = before.map_or_else(|| kernel(doc), Ok)?;
        check_arch(&arch, &kernel)?;
        configured(unconfigured, &kernel, args, cx)?
    } else {
        unconfigured.publish(args.use_cache, &mut cx.stages)?
    };
    lock.save()?;
    Ok(rootfs)
}

/// The tarball is made an image's root by a guest with the document's kernel.
fn build_void_release(
    recipe: &void::release::Recipe,
    args: &BuildArgs,
    doc: &Document,
    cx: &mut Context<'_>,
) -> Result<Rootfs> {
    let kernel = kernel(doc)?;
    let checked = void::release::check(recipe, cx.config.cache()?, &mut cx.stages)?;
    check_arch(checked.arch(), &kernel)?;
    if let Some(rootfs) = checked.cached().filter(|_| args.use_cache) {
        return Ok(rootfs);
    }
    let unconfigured = checked.make(&mut cx.stages)?;
    configured(unconfigured, &kernel, args, cx)
}

fn check_arch(arch: &str, kernel: &Kernel) -> Result<()> {
    if void::runs_on(arch, &kernel.arch) {
        return Ok(());
    }
    let message = format!("packages for {arch} cannot be configured by a kernel for {}", kernel.arch);
    Err(Error::new(Code::BadValue, message).hint("give packages for the kernel's architecture, or another --kernel"))
}

fn configured(root: void::Unconfigured, kernel: &Kernel, args: &BuildArgs, cx: &mut Context<'_>) -> Result<Rootfs> {
    configure::configure(cx, kernel, &root.image(), args.timeout)?;
    root.publish(args.use_cache, &mut cx.stages)
}

fn kernel(doc: &Document) -> Result<Kernel> {
    doc.require::<Kernel>().map_err(|e| {
        e.within("the packages of a Void root are configured in a guest, and that needs a kernel")
            .hint("bg-kernel build | bg-rootfs build --distro void; or --kernel NAME of an image that has one")
    })
}

/// What is worth a remark, and what an update of the lock file changes.
fn tell(plan: &void::obtain::Plan, cx: &mut Context<'_>) {
    plan.remarks().iter().for_each(|line| cx.remark(line));
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
