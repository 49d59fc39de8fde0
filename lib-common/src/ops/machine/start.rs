//! start, restart: identity, VMM, record.

use super::create::{launch_disks, own_disks};
use super::{Target, for_each, is_running, let_leave, not_made, targets};
use crate::cli::{Answer, Context};
use crate::disk::look;
use crate::doc::{
    AbsPath, Accel, Document, Guest, Identity, ImageRef, Kernel, Launch, LaunchDisk, LaunchNet, MAX_BYTES, Name,
    SecondDisk, Secret, Spec, State, Status, Undo, Vmm,
};
use crate::error::{Code, Error, Result};
use crate::guest::ssh::keys;
use crate::ops::tap;
use crate::store::{MachineDir, Operation, id_of};
use crate::sys::lock::Lock;
use crate::sys::{limits, owned, thread};
use crate::vmm::{self, Choosing, Started, bootcheck};
use std::path::PathBuf;
use std::time::Duration;

/// How long a start looks at a work disk. A millisecond is usual, four where the journal is pending.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// A VM whose lock is held and whose operation is open.
pub(in crate::ops) struct Claimed {
    pub machine: MachineDir,
    // Before the lock, which is held until all is undone.
    pub operation: Operation,
    pub lock: Lock,
}

/// `bg-vm start`: the last step of a pipeline that creates, or VMs of the store.
pub fn start(cx: &mut Context<'_>, names: &[Name], file: Option<PathBuf>) -> Result<Answer> {
    let targets = targets(cx, names, file)?;
    let mut last_has_card = false;
    for_each(cx, &targets, |cx, target| {
        let doc = match &target.given {
            Some(doc) => finish(cx, doc.clone())?,
            None => None,
        };
        let doc = doc.map_or_else(|| start_one(cx, target), Ok)?;
        last_has_card = doc.has("net");
        cx.emit(doc)
    })?;
    if last_has_card {
        tap::refill_after(cx)?;
    }
    Ok(Answer::Done)
}

/// `bg-vm restart`: stop, then start.
pub fn restart(cx: &mut Context<'_>, names: &[Name], args: &super::StopArgs) -> Result<Answer> {
    let targets = targets(cx, names, args.file.clone())?;
    for_each(cx, &targets, |cx, target| {
        super::stop::stop_one(cx, target, args)?;
        let doc = start_one(cx, target)?;
        cx.emit(doc)
    })?;
    Ok(Answer::Done)
}

/// Finishes what `bg-seed clone` began; `None` for a VM that is in the store already.
fn finish(cx: &mut Context<'_>, doc: Document) -> Result<Option<Document>> {
    cx.stages.begin("lock");
    let machine = cx.store().machine(&doc.name()?).map_err(|e| not_made(&doc, e))?;
    let lock = machine.lock()?;
    if machine.record_file().exists() {
        return Ok(None);
    }
    let Some(operation) = machine.journal().resume()? else {
        return Err(Error::new(
            Code::BadDocument,
            format!("the VM `{}` was not made by `bg-seed clone`", machine.name()),
        ));
    };
    let its = Undo::StopVm { runtime_dir: machine.runtime_dir(&id_of(&doc)?)? };
    if !operation.intents().contains(&its) {
        // Dropped, it would be undone, and it is another pipeline's.
        operation.hand_on();
        let message = format!("the VM `{}` is another one by now: it has another id", machine.name());
        return Err(Error::new(Code::BadDocument, message).hint("plan it again, under a name that is free"));
    }
    let choosing = choosing(cx, &doc)?;
    launch(cx, doc, Claimed { machine, operation, lock }, choosing).map(Some)
}

fn start_one(cx: &mut Context<'_>, target: &Target) -> Result<Document> {
    let (machine, lock) = target.lock(cx)?;
    if machine.record_file().exists() {
        // Of a start whose tool was killed the VM is just ending.
        machine.journal().undo_open()?;
    }
    let_leave(&machine)?;
    let mut doc = machine.current()?;
    // What is printed has the times of this start.
    doc.remove("timings");
    if is_running(&doc)? {
        let (id, name) = (id_of(&doc)?, &target.name);
        if machine.running(&id)?.is_none() {
            let message = format!("the VM `{name}` has lost its bg-shim, and its VMM still lives");
            return Err(Error::new(Code::InUse, message).hint(format!("bg-vm kill {name} && bg-vm start {name}")));
        }
        if machine.lost(&id)?.is_some() {
            let message = format!("the VM `{name}` runs, and cannot be reached: its runtime directory is gone");
            return Err(Error::new(Code::InUse, message).hint(format!("bg-vm restart {name}")));
        }
        match doc.section::<Status>()?.and_then(|status| status.paused) {
            Some(paused) => cx.remark(&format!("{} runs already, and is paused: {paused}", target.name)),
            None => cx.remark(&format!("{} runs already", target.name)),
        }
        return target.answer(doc);
    }
    doc.remove("status");
    cx.stages.begin("look_at_work");
    if work_is_nested(&doc, &machine) {
        let message = "has its content nested in /root/root; the guest mends it at this start";
        cx.remark(&format!("the work disk of `{}` {message}", target.name));
    }
    cx.stages.begin("journal");
    let operation = machine.journal().begin("start")?;
    let choosing = choosing(cx, &doc)?;
    let doc = launch(cx, doc, Claimed { machine, operation, lock }, choosing)?;
    let mut answer = target.answer(doc.clone())?;
    if target.given.is_some() {
        answer.append_timings_of(&doc)?;
    }
    Ok(answer)
}

/// Whether the guest will find its work disk stale. A disk that cannot be read is the guest's to complain of.
fn work_is_nested(doc: &Document, machine: &MachineDir) -> bool {
    own_disks(doc, machine).is_ok_and(|disks| look::is_nested_within(&disks.work.path, LOOK_WITHIN))
}

/// Starts the VMM, saves the record, and only then lets the VM stay: whatever is killed before that, the shim ends it.
pub(super) fn launch(
    cx: &mut Context<'_>,
    mut doc: Document,
    claimed: Claimed,
    choosing: Choosing,
) -> Result<Document> {
    // Dropped in reverse: the lock is held until all is undone.
    let Claimed { lock, machine, mut operation } = claimed;
    let is_new = !machine.record_file().exists();
    let card = tap::attach(cx, &mut doc, (&mut operation, is_new))?;
    cx.stages.begin("identity");
    let mut identity = identity(cx, &mut doc, &machine)?;
    // The disk works while the VMM starts.
    let settling = thread::spawn({
        let machine = machine.clone();
        move || if is_new { machine.settle() } else { Ok(()) }
    })?;
    let mut hardware = Hardware { disks: launch_disks(&doc, &machine)?, net: None, vmm: choosing };
    if let Some(card) = card {
        (identity.net, identity.hosts, hardware.net) = (Some(card.identity), card.hosts, Some(card.launch));
    }
    let started = boot(cx, &doc, (&machine, &mut operation), (&identity, hardware))
        .map_err(|e| if is_new { removed(&machine, e) } else { e })?;
    cx.stages.begin("record");
    doc.set::<Vmm>(started.vmm());
    doc.append_timings(&cx.stages.take_before("save"))?;
    settling.join().map_err(|_| Error::new(Code::Internal, "the thread that syncs has panicked"))??;
    machine.save(&doc)?;
    let intents = operation.intents().to_vec();
    operation.commit()?;
    if let Err(e) = started.keep() {
        return Err(if is_new { removed(&machine, not_kept(&machine, intents, e)) } else { e });
    }
    drop(lock);
    doc.set(&Status { state: State::Running, exit: None, paused: None });
    Ok(doc)
}

/// A new VM that ended before it was kept was never there: what its creation did is taken back. It was saved first, since whoever
/// is killed between the two would leave a VM in use that counts as half made.
fn not_kept(machine: &MachineDir, intents: Vec<Undo>, error: Error) -> Error {
    match machine.journal().begin_with("create", intents).and_then(Operation::undo) {
        Ok(()) => error,
        Err(left) => error.also(left.to_string()),
    }
}

/// The error of a creation, which takes the VM's directory with it, logs and all.
fn removed(machine: &MachineDir, error: Error) -> Error {
    let name = machine.name();
    let instead = format!("`bg-vm create {name} --no-start && bg-vm start {name}` keeps the VM and its logs");
    error.without_files(machine.path(), Some(&instead))
}

/// What a creation with a start will have to take back, should it fail: known before it begins.
pub(super) fn intents(cx: &Context<'_>, doc: &Document) -> Result<Vec<Undo>> {
    let machine = cx.store().machine_dir(&doc.name()?);
    let card = tap::intent(cx, doc, true)?;
    let vmm = Undo::StopVm { runtime_dir: machine.runtime_dir(&id_of(doc)?)? };
    Ok(card.into_iter().chain([vmm]).collect())
}

/// What the guest finds.
pub(in crate::ops) struct Hardware {
    /// Its disks, in its order.
    pub disks: Vec<LaunchDisk>,
    /// Its network card.
    pub net: Option<LaunchNet>,
    /// What it runs on.
    pub vmm: Choosing,
}

/// Begins to choose what the VM of that document runs on.
pub(in crate::ops) fn choosing(cx: &Context<'_>, doc: &Document) -> Result<Choosing> {
    Choosing::begin(doc.require::<Spec>()?.vmm, &cx.config)
}

/// Starts the VMM for the VM of that document, and has the journal say so before.
pub(in crate::ops) fn boot(
    cx: &mut Context<'_>,
    doc: &Document,
    (machine, operation): (&MachineDir, &mut Operation),
    (identity, hardware): (&Identity, Hardware),
) -> Result<Started> {
    cx.stages.begin("vmm_choice");
    let Hardware { disks, net, vmm } = hardware;
    let choice = vmm.wait()?;
    if let Some(warning) = &choice.warning {
        cx.remark(&format!("warning: {warning}"));
    }
    if choice.accel == Accel::Tcg {
        cx.remark(&format!("slow: {}", choice.chosen_because));
    }
    let programs = vmm::Programs::find(&cx.config, &choice)?;
    let shim = programs.shim.clone();
    let launch = launch_plan(cx, doc, machine, (choice, programs, disks, net))?;
    cx.stages.begin("boot_check");
    let (kernel, mend) = kernel_of(doc)?;
    let line = bootcheck::command_line(launch.kind, launch.accel, &launch.kernel_args);
    for cost in bootcheck::before_launch(&launch, (&kernel, &mend), &line)? {
        cx.remark(&cost);
    }
    cx.stages.begin("journal");
    operation.intend(Undo::StopVm { runtime_dir: launch.runtime_dir.clone() })?;
    vmm::start(&launch, identity, &shim, &mut cx.stages)
}

/// The kernel of a VM, and what makes a better one: its image's, or the document's own where it is made of none.
fn kernel_of(doc: &Document) -> Result<(Kernel, String)> {
    match doc.section::<ImageRef>()? {
        Some(image) => Ok((image.kernel, format!("{} {}", bootcheck::MEND, image.name))),
        None => Ok((doc.require()?, "bg-kernel build".into())),
    }
}

/// How the VM of that document is started.
fn launch_plan(
    cx: &Context<'_>,
    doc: &Document,
    machine: &MachineDir,
    (choice, programs, disks, net): (vmm::Choice, vmm::Programs, Vec<LaunchDisk>, Option<LaunchNet>),
) -> Result<Launch> {
    let spec: Spec = doc.require()?;
    let machine_id = id_of(doc)?;
    let own = |name: &str| AbsPath::new(machine.file(name));
    for name in ["vmlinux", "initrd"] {
        owned::is_file(&machine.file(name))?;
    }
    Ok(Launch {
        runtime_dir: machine.runtime_dir(&machine_id)?,
        machine_id,
        name: machine.name().clone(),
        kind: choice.kind,
        accel: choice.accel,
        chosen_because: choice.chosen_because,
        vcpu: spec.vcpu,
        memory_mib: spec.memory_mib,
        kernel: own("vmlinux")?,
        initrd: own("initrd")?,
        disks,
        net,
        cid: vmm::CID,
        console: AbsPath::new(machine.console())?,
        console_bytes: cx.config.console_bytes,
        exit_file: AbsPath::new(machine.exit_file())?,
        log: own("shim.log")?,
        vmm_program: programs.vmm,
        vmm_version: programs.version,
        vsock_program: programs.vsock,
        kernel_args: spec.kernel_args,
        boot_timeout_ms: u64::try_from(cx.config.boot_timeout.as_millis()).unwrap_or(u64::MAX),
    })
}

/// Host key and `guest` section: made with the VM, kept for its life.
pub(super) fn prepare_guest(doc: &mut Document, machine: &MachineDir) -> Result<(Secret, Guest)> {
    limits::hide_memory()?;
    let file = machine.host_key();
    if let (Some(guest), Some(pem)) = (doc.section::<Guest>()?, owned::read(&file, MAX_BYTES as u64)?) {
        let damaged = || Error::new(Code::BadInput, format!("{} is not an OpenSSH private key", file.display()));
        return Ok((String::from_utf8(pem).map_err(|_| damaged())?.into(), guest));
    }
    let key = keys::new_host_key()?;
    // On disk by `settle`.
    crate::sys::fs::replace(&file, key.private_pem().as_bytes(), 0o600)?;
    let guest = Guest { host_key: key.public_line().to_owned(), user: "root".into() };
    doc.set(&guest);
    Ok((key.private_pem().to_owned().into(), guest))
}

/// Who the guest is, with a work disk; its host key is made with the VM, and goes into the document.
pub(in crate::ops) fn identity(cx: &Context<'_>, doc: &mut Document, machine: &MachineDir) -> Result<Identity> {
    let (host_key, guest) = prepare_guest(doc, machine)?;
    Ok(Identity {
        machine_id: id_of(doc)?,
        hostname: machine.name().to_string(),
        authorized_keys: vec![keys::ensure_user_key(&cx.store())?],
        host_key,
        host_key_public: guest.host_key,
        second_disk: SecondDisk::Work,
        proxy_port: None,
        net: None,
        hosts: vec![],
        configure: false,
    })
}
