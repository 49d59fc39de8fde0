//! plan, clone, create: a VM's document, its disks, and both with its start in one process.

use super::limits;
use super::start::{Claimed, choosing, launch};
use crate::cli::{Answer, Context};
use crate::config::Config;
use crate::doc::{
    AbsPath, Disks, Document, ImageRef, Kernel, KernelArgs, Kind, LaunchDisk, Name, Rootfs, Seed, Spec, State, Status,
    Undo, VmmChoice,
};
use crate::error::{Code, Error, Result};
use crate::ops::tap;
use crate::size::bytes;
use crate::store::{MachineDir, Store, random_id};
use crate::sys::fs::{link_or_clone, sync_dir};
use crate::sys::owned;

/// What `bg-vm plan` takes; what is not given comes from the configuration.
#[derive(Clone, Debug, Default)]
pub struct PlanArgs {
    /// The VM's name.
    pub name: Option<Name>,
    /// The image's name.
    pub image: Option<Name>,
    /// Processors.
    pub vcpu: Option<u32>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
    /// More memory than the host has is meant.
    pub overcommit: bool,
    /// The root disk's size; none is the image's own.
    pub root_bytes: Option<u64>,
    /// The work disk's size.
    pub work_bytes: Option<u64>,
    /// Whether it has a network card; where its user may have one, if that is not said.
    pub net: Option<bool>,
    /// Whether it reaches other networks.
    pub nat: bool,
    /// Which VMM.
    pub vmm: Option<VmmChoice>,
    /// Appended to its kernel's command line.
    pub kernel_args: Option<KernelArgs>,
}

/// What `bg-vm create` takes.
#[derive(Clone, Debug, Default)]
pub struct CreateArgs {
    /// The plan.
    pub plan: PlanArgs,
    /// Make it and do not start it.
    pub no_start: bool,
}

/// `bg-vm plan`: the document of a VM that does not exist yet. Changes nothing.
pub fn plan(cx: &mut Context<'_>, args: &PlanArgs) -> Result<Answer> {
    let doc = planned(cx, args)?;
    cx.emit(doc)?;
    Ok(Answer::Done)
}

/// `bg-seed clone`: claims the VM's name and makes its disks. The creation stays open for `bg-vm start`.
pub fn clone(cx: &mut Context<'_>, source: &crate::cli::Source) -> Result<Answer> {
    let mut doc = cx.document(source, Kind::Machine)?;
    is_new(&cx.store(), &crate::store::id_of(&doc)?)?;
    let claimed = claim(cx, &mut doc, "create")?;
    claimed.operation.hand_on();
    cx.emit(doc)?;
    Ok(Answer::Done)
}

/// Refuses a document that has the id of a VM that is there. A damaged record is its own VM's matter.
fn is_new(store: &Store, id: &str) -> Result<()> {
    for name in store.machine_names()? {
        let machine = store.machine_dir(&name);
        if machine.document().and_then(|doc| crate::store::id_of(&doc)).is_ok_and(|other| other == id) {
            return Err(crate::store::id_is_taken(id, Some(machine.path())));
        }
    }
    Ok(())
}

/// `bg-vm create`: plan, clone and start in one process.
pub fn create(cx: &mut Context<'_>, args: &CreateArgs) -> Result<Answer> {
    cx.stages.begin("plan");
    let mut doc = planned(cx, &args.plan)?;
    let intents = if args.no_start { vec![] } else { super::start::intents(cx, &doc)? };
    let choosing = if args.no_start { None } else { Some(choosing(cx, &doc)?) };
    let claimed = claim_unsynced(cx, &mut doc, ("create", &intents))?;
    let doc = match choosing {
        Some(choosing) => launch(cx, doc, claimed, choosing)?,
        None => finish_without_start(cx, doc, claimed)?,
    };
    let has_card = doc.has("net");
    cx.emit(doc)?;
    if has_card && !args.no_start {
        tap::refill_after(cx)?;
    }
    Ok(Answer::Done)
}

/// The document of a VM that does not exist yet.
pub(in crate::ops) fn planned(cx: &mut Context<'_>, args: &PlanArgs) -> Result<Document> {
    let store = cx.store();
    let image_name = image_name(&store, &cx.config, args.image.as_ref())?;
    let image = store.image(&image_name)?;
    let (rootfs, kernel) = (image.require::<Rootfs>()?, image.require::<Kernel>()?);
    let name = args.name.as_ref().ok_or_else(|| Error::new(Code::Usage, "a name is needed"))?;
    if store.machine_dir(name).path().exists() {
        return Err(taken(&store.machine_dir(name)));
    }
    let root_bytes = args.root_bytes.unwrap_or(0);
    if root_bytes != 0 && root_bytes < rootfs.size_bytes {
        let (wanted, least) = (bytes(root_bytes), bytes(rootfs.size_bytes));
        let message = format!("a root disk of {wanted} is too small for `{image_name}`");
        let least = format!("{least} ({} bytes) is the least, and what is taken without it", rootfs.size_bytes);
        return Err(Error::new(Code::BadValue, message).hint(least));
    }
    let net = has_card(cx, args)?;
    let spec = Spec {
        image: image_name.clone(),
        vcpu: args.vcpu.unwrap_or(cx.config.vcpu),
        memory_mib: args.memory_mib.unwrap_or(cx.config.memory_mib),
        overcommit: args.overcommit,
        root_bytes,
        work_bytes: args.work_bytes.unwrap_or(cx.config.work_bytes),
        net,
        nat: args.nat,
        vmm: args.vmm.unwrap_or(cx.config.vmm),
        kernel_args: args.kernel_args.clone().unwrap_or_else(|| cx.config.kernel_args.clone()),
    };
    limits::check(name, &spec)?;
    let mut doc = Document::new(Kind::Machine, name);
    doc.set_string("id", &random_id()?);
    doc.set(&spec);
    doc.set(&ImageRef { name: image_name, rootfs, kernel, seed: image.section::<Seed>()? });
    Ok(doc)
}

/// Whether the VM gets a network card: as it was said, else where its user may have one.
fn has_card(cx: &mut Context<'_>, args: &PlanArgs) -> Result<bool> {
    match args.net.or(cx.config.net) {
        Some(false) if args.nat => {
            return Err(Error::new(Code::Usage, "a VM without a network card reaches no other networks"));
        }
        Some(net) => return Ok(net),
        None => {}
    }
    let Some(why) = tap::refused() else { return Ok(true) };
    if args.nat {
        return Err(Error::new(Code::Permission, format!("the VM gets no network card: {why}"))
            .hint("root may lend it one: man bg-tap, EXAMPLES"));
    }
    // Who is no root has not asked for one, and is not told each time that there is none.
    if tap::own_uid() == 0 {
        cx.remark(&format!("without a network card: {why} (`--no-net` says so, `man bg-tap` how to have one)"));
    }
    Ok(false)
}

/// The image that was asked for, else the configured one, else the default.
pub(in crate::ops) fn image_name(store: &Store, config: &Config, asked: Option<&Name>) -> Result<Name> {
    if let Some(name) = asked.or(config.image.as_ref()) {
        return Ok(name.clone());
    }
    store.default_image()?.ok_or_else(|| {
        Error::new(Code::NotFound, "there is no default image")
            .hint("bg-kernel build | bg-rootfs build --distro debian | bg-seed build | bg-register --name debian")
    })
}

fn taken(machine: &MachineDir) -> Error {
    let name = machine.name();
    let status = machine.listed().ok().flatten().and_then(|doc| doc.section::<Status>().ok().flatten());
    let (what, hint) = match status.map(|status| status.state) {
        Some(state) if state.lives() => {
            (", and it runs", format!("`bg-ssh {name}` opens a shell in it, `bg-vm rm --force {name}` removes it"))
        }
        Some(State::Incomplete) => (", half made", "`bg-verify | bg-gc` removes what is half made".into()),
        _ => ("", format!("`bg-vm start {name}` starts it, `bg-vm rm {name}` removes it")),
    };
    Error::new(Code::Exists, format!("there is a VM `{name}` already{what}"))
        .hint(format!("{hint}; or take another name"))
}

/// Claims the name by a rename that never replaces, then makes the disks in the VM's own directory. `operation` is how the
/// journal calls it.
pub(in crate::ops) fn claim(cx: &mut Context<'_>, doc: &mut Document, operation: &str) -> Result<Claimed> {
    let machine = cx.store().machine_dir(&doc.name()?);
    // With its id: whoever goes on with it has to have the same.
    let vmm = Undo::StopVm { runtime_dir: machine.runtime_dir(&crate::store::id_of(doc)?)? };
    let claimed = claim_unsynced(cx, doc, (operation, &[vmm]))?;
    sync_dir(&cx.store().machines_dir())?;
    Ok(claimed)
}

/// The same, with what will be done later said at once. The name is not on disk yet: see [`MachineDir::settle`].
fn claim_unsynced(cx: &mut Context<'_>, doc: &mut Document, (operation, intents): (&str, &[Undo])) -> Result<Claimed> {
    let store = cx.store();
    let machine = store.machine_dir(&doc.name()?);
    let (spec, image): (Spec, ImageRef) = (doc.require()?, doc.require()?);
    limits::check(machine.name(), &spec)?;
    limits::warn(cx, machine.name(), &spec);
    machine.check_id(&crate::store::id_of(doc)?)?;
    if doc.has("disks") {
        return Err(Error::new(Code::BadDocument, "the document has `disks` already"));
    }
    let seeds = image.seed.iter().flat_map(|seed| &seed.sizes).map(|size| &size.path);
    store.check_files([&image.kernel.vmlinux, &image.kernel.initrd, &image.rootfs.path].into_iter().chain(seeds))?;
    cx.stages.begin("lock");
    let staged = store.stage_with(operation, intents)?;
    let (lock, operation) = staged.publish_unsynced(machine.path()).map_err(|e| match e.code() {
        Code::Exists => taken(&machine),
        _ => e,
    })?;
    let disks: Disks = crate::disk::clone_disks(&image, &spec, machine.path(), &mut cx.stages)?;
    cx.stages.begin("kernel_link");
    link_kernel(&machine, &image.kernel)?;
    is_as_planned(&store, &image)?;
    doc.set(&disks);
    Ok(Claimed { machine, operation, lock })
}

/// Links kernel and initrd into the VM's directory, so that replacing or removing the image does not change the VM.
pub(in crate::ops) fn link_kernel(machine: &MachineDir, kernel: &Kernel) -> Result<()> {
    for (from, to) in [(&kernel.vmlinux, "vmlinux"), (&kernel.initrd, "initrd")] {
        if !from.is_file() {
            return Err(Error::new(Code::MissingFile, format!("{from} is not there"))
                .hint("build and register the image again"));
        }
        link_or_clone(from, &machine.file(to))?;
    }
    Ok(())
}

/// What was copied is of one image, the one that was planned with: it was neither removed nor replaced meanwhile. Asked
/// after the copying, so that nobody has to wait for that.
fn is_as_planned(store: &Store, image: &ImageRef) -> Result<()> {
    let now = store.image(&image.name)?;
    let is_same = now.require::<Rootfs>()? == image.rootfs && now.require::<Kernel>()? == image.kernel;
    let seeds = now.section::<Seed>()?.map(|seed| seed.sizes).unwrap_or_default();
    // A seed of one more size may have been made since.
    let known = image.seed.iter().flat_map(|seed| &seed.sizes).all(|size| seeds.contains(size));
    if is_same && known {
        return Ok(());
    }
    let message = format!("the image `{}` was replaced since the VM was planned", image.name);
    Err(Error::new(Code::BadDocument, message).hint("plan it again"))
}

fn finish_without_start(cx: &mut Context<'_>, mut doc: Document, claimed: Claimed) -> Result<Document> {
    cx.stages.begin("identity");
    super::start::prepare_guest(&mut doc, &claimed.machine)?;
    cx.stages.begin("record");
    // The guest of a VM that starts does so with its disks, as soon as it mounts them.
    let disks: Disks = doc.require()?;
    [disks.root.path, disks.work.path].iter().try_for_each(|disk| sync_dir(disk))?;
    claimed.machine.settle()?;
    claimed.machine.save(&doc)?;
    claimed.operation.commit()?;
    doc.set(&Status { state: State::Stopped, exit: None, paused: None });
    Ok(doc)
}

/// The disks of a document as the VMM gets them, checked: see [`own_disks`].
pub(in crate::ops) fn launch_disks(doc: &Document, machine: &MachineDir) -> Result<Vec<LaunchDisk>> {
    let disks = own_disks(doc, machine)?;
    Ok([disks.root.path, disks.work.path].map(|path| LaunchDisk { path, read_only: false }).into())
}

/// The disks of a document, checked: regular files of the caller's in the VM's own directory, not links to somewhere else.
pub(super) fn own_disks(doc: &Document, machine: &MachineDir) -> Result<Disks> {
    let disks: Disks = doc.require()?;
    let expected = |path: &AbsPath, name: &str| path.to_path_buf() == machine.file(name);
    if !expected(&disks.root.path, "root.ext4") || !expected(&disks.work.path, "work.ext4") {
        return Err(Error::new(Code::BadDocument, format!("the disks are not those of the VM `{}`", machine.name())));
    }
    for path in [&disks.root.path, &disks.work.path] {
        if !owned::is_file(path)? {
            let message = format!("the disk {path} is not there");
            return Err(Error::new(Code::MissingFile, message).hint(format!("bg-vm rm {}", machine.name())));
        }
    }
    Ok(disks)
}
