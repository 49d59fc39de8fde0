//! `bg-image-build`: an image's root file system, cloned, grown, booted without a network card, provisioned over SSH, and
//! kept in the cache by the digest of all that went into it.

mod finish;
mod output;
pub(in crate::ops) mod provision;
mod shell;
pub(in crate::ops) mod vm;

use crate::cli::{Answer, Context, Source};
use crate::ops::machine::image_name;
use lib_common::doc::{Build, Document, Kernel, Kind, Name, Rootfs, Seed};
use lib_common::error::{Code, Error, Result};
use lib_image::build::image::{Plan, Recipe};
use lib_image::build::slot::Slot;
use lib_machine::guest::proxy::Admitted;
use provision::Job;
use shell::ByHand;
use std::path::PathBuf;
use std::time::Duration;
use vm::BuildVm;

/// What `bg-image-build` takes.
#[derive(Clone, Debug)]
pub struct BuildArgs {
    /// The image of the store to build on, instead of a document.
    pub base: Option<Name>,
    /// A file with the document of the base.
    pub file: Option<PathBuf>,
    /// What to do.
    pub recipe: Recipe,
    /// Hosts that the package manager may reach beside those of its own sources: `HOST[:PORT]`.
    pub allowed_hosts: Vec<String>,
    /// The temporary VM's memory; the configuration's where there is none.
    pub memory_mib: Option<u64>,
    /// Its processors.
    pub vcpu: Option<u32>,
    /// Leave the VM of a build that failed.
    pub keep_failed: bool,
    /// Build what was built before, too.
    pub force: bool,
    /// How long it may take.
    pub timeout: Duration,
}

/// What an image is built on.
pub(super) struct Base {
    doc: Document,
    /// The name of an image of the store, else a word for one that has none.
    image: Name,
    rootfs: Rootfs,
    kernel: Kernel,
}

/// What a build adds to the document.
pub(super) struct Made {
    rootfs: Rootfs,
    build: Build,
    seed: Seed,
}

/// Builds, or finds in the cache, and prints the document with the sections `rootfs`, `build` and `seed`. Prints nothing,
/// and gives [`Answer::No`], where the user has looked at it in a shell and does not want it.
///
/// # Errors
/// [`Code::CommandFailed`] for a step that failed, with the step, its status and the guest's last lines;
/// [`Code::TimedOut`]; what keeps a VM from running. Nothing is left then, unless it was asked for.
pub fn build(cx: &mut Context<'_>, args: &BuildArgs) -> Result<Answer> {
    let mut base = base(cx, args)?;
    cx.stages.begin("plan");
    let mut admitted = Admitted::default();
    args.allowed_hosts.iter().try_for_each(|host| admitted.add_host(host))?;
    let plan = Plan::of(&args.recipe, &base.rootfs, &base.kernel)?;
    let slot = Slot::new(cx.config.cache()?, "image", &plan.key)?;
    let anew = args.force || plan.shell;
    let found = if anew { None } else { finish::load(&slot) };
    let made = match found {
        Some(made) => Some(made),
        None => make(cx, args, (&base, Job { plan: &plan, admitted: &admitted }, (&slot, anew)))?,
    };
    let Some(made) = made else { return Ok(Answer::No) };
    base.doc.set(&made.rootfs);
    base.doc.set(&made.build);
    base.doc.set(&made.seed);
    cx.emit(base.doc)?;
    Ok(Answer::Done)
}

/// The document to build on. Of an image of the store its kernel and root file system are taken: name and registration
/// are that image's.
fn base(cx: &mut Context<'_>, args: &BuildArgs) -> Result<Base> {
    let from_store = args.base.is_some() || (args.file.is_none() && cx.stdin_is_terminal);
    let (doc, image) = if from_store {
        let store = cx.store();
        let name = image_name(&store, &cx.config, args.base.as_ref())?;
        let image = store.image(&name)?;
        let mut doc = Document::unnamed(Kind::Image);
        doc.set(&image.require::<Kernel>()?);
        doc.set(&image.require::<Rootfs>()?);
        (doc, name)
    } else {
        (cx.document(&Source { name: None, file: args.file.clone() }, Kind::Image)?, Name::parse("unregistered")?)
    };
    let (rootfs, kernel): (Rootfs, Kernel) = (doc.require()?, doc.require()?);
    Ok(Base { doc, image, rootfs, kernel })
}

fn make(
    cx: &mut Context<'_>,
    args: &BuildArgs,
    (base, job, (slot, replace)): (&Base, Job<'_>, (&Slot, bool)),
) -> Result<Option<Made>> {
    let by_hand = job.plan.shell.then(|| ByHand::new(base, args.timeout)).transpose()?;
    let mut vm = BuildVm::start(cx, args, (base, job.plan))?;
    match provision::run(cx, &mut vm, job, by_hand.as_ref()) {
        Ok(Some(done)) => finish::finish(cx, vm, (job.plan, done), (slot, base, replace)).map(Some),
        Ok(None) => Ok(None),
        // Whoever interrupts a build wants nothing of it.
        Err(e) if args.keep_failed && !matches!(e.code(), Code::Interrupted | Code::Terminated) => {
            Err(kept(cx, vm, base, e))
        }
        Err(e) => Err(e),
    }
}

/// The error with what to do with the VM that was left; if it could not be left, the error as it was.
fn kept(cx: &mut Context<'_>, vm: BuildVm, base: &Base, error: Error) -> Error {
    let name = vm.name().clone();
    match vm.keep(cx, base) {
        Ok(()) => {
            cx.remark(&format!(
                "the VM `{name}` was left: `bg-ssh {name}` enters it, `bg-vm rm --force {name}` removes it"
            ));
            error.hint(format!("bg-ssh {name}; bg-vm rm --force {name}")).detail("vm", name.as_str())
        }
        Err(e) => error.also(format!("the VM could not be left: {e}")),
    }
}
