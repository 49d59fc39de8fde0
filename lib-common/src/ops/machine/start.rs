//! start, restart: identity, VMM, record.

use super::create::own_disks;
use super::{is_running, targets};
use crate::cli::{Answer, Context, Source};
use crate::doc::{
    AbsPath, Accel, Document, Guest, Identity, Kind, Launch, LaunchDisk, Name, SecondDisk, Spec, Undo, Vmm,
};
use crate::error::{Code, Error, Result};
use crate::guest::ssh::keys;
use crate::store::{MachineDir, Operation, id_of};
use crate::sys::lock::Lock;
use crate::vmm;
use std::path::PathBuf;

/// A VM whose lock is held and whose operation is open.
pub(super) struct Claimed {
    pub machine: MachineDir,
    pub operation: Operation,
    pub lock: Lock,
}

/// `bg-vm start`: the last step of a pipeline that creates, or a VM of the store by its name.
pub fn start(cx: &mut Context<'_>, names: &[Name], file: Option<PathBuf>) -> Result<Answer> {
    if names.is_empty() {
        let doc = cx.document(&Source { name: None, file }, Kind::Machine)?;
        let doc = start_document(cx, doc)?;
        cx.emit(doc)?;
        return Ok(Answer::Done);
    }
    for name in names {
        let doc = start_name(cx, name)?;
        cx.emit(doc)?;
    }
    Ok(Answer::Done)
}

/// `bg-vm restart`: stop, then start.
pub fn restart(cx: &mut Context<'_>, names: &[Name], args: &super::StopArgs) -> Result<Answer> {
    for name in targets(cx, names, args.file.clone())? {
        super::stop::stop_one(cx, &name, args)?;
        let doc = start_name(cx, &name)?;
        cx.emit(doc)?;
    }
    Ok(Answer::Done)
}

/// Finishes what `bg-seed clone` began. A document of a VM that is in the store already starts that one.
fn start_document(cx: &mut Context<'_>, doc: Document) -> Result<Document> {
    cx.stages.begin("lock");
    let machine = cx.store().machine(&doc.name()?)?;
    let lock = machine.lock()?;
    if machine.record_file().exists() {
        let recorded = id_of(&machine.document()?)?;
        if recorded != id_of(&doc)? {
            let message = format!("the document is of another VM than the one named `{}`", machine.name());
            return Err(Error::new(Code::BadDocument, message));
        }
        drop(lock);
        return start_name(cx, machine.name());
    }
    let Some(operation) = machine.journal().resume()? else {
        return Err(Error::new(
            Code::BadDocument,
            format!("the VM `{}` was not made by `bg-seed clone`", machine.name()),
        ));
    };
    launch(cx, doc, Claimed { machine, operation, lock })
}

fn start_name(cx: &mut Context<'_>, name: &Name) -> Result<Document> {
    cx.stages.begin("lock");
    let machine = cx.store().machine(name)?;
    let lock = machine.lock()?;
    let doc = machine.current()?;
    if is_running(&doc)? {
        cx.remark(&format!("{name} runs already"));
        return Ok(doc);
    }
    cx.stages.begin("journal");
    let operation = machine.journal().begin("start")?;
    let mut doc = machine.document()?;
    doc.remove("timings");
    launch(cx, doc, Claimed { machine, operation, lock })
}

/// Starts the VMM, saves the record, and only then lets the VM stay: whatever is killed before that, the shim ends it.
pub(super) fn launch(cx: &mut Context<'_>, mut doc: Document, claimed: Claimed) -> Result<Document> {
    let Claimed { machine, mut operation, lock } = claimed;
    let spec: Spec = doc.require()?;
    cx.stages.begin("identity");
    let identity = identity(cx, &mut doc, &machine)?;
    cx.stages.begin("vmm_choice");
    let choice = vmm::choose(spec.vmm)?;
    if choice.accel == Accel::Tcg {
        cx.remark(&format!("slow: {}", choice.chosen_because));
    }
    let programs = vmm::Programs::find(&cx.config)?;
    let shim = programs.shim.clone();
    let mut launch = launch_plan(cx, &doc, &machine, (choice, programs))?;
    let disks = own_disks(&doc, &machine)?;
    let disk = |path| LaunchDisk { path, read_only: false };
    launch.disks = vec![disk(disks.root.path), disk(disks.work.path)];
    cx.stages.begin("journal");
    operation.intend(Undo::StopVm { runtime_dir: launch.runtime_dir.clone() })?;
    let started = vmm::start(&launch, &identity, &shim, &mut cx.stages)?;
    cx.stages.begin("record");
    doc.set::<Vmm>(started.vmm());
    doc.append_timings(&cx.stages.take_before("save"))?;
    machine.save(&doc)?;
    operation.commit()?;
    started.keep()?;
    drop(lock);
    Ok(doc)
}

/// How the VM of that document is started; its disks are the caller's to add.
pub(in crate::ops) fn launch_plan(
    cx: &Context<'_>,
    doc: &Document,
    machine: &MachineDir,
    (choice, programs): (vmm::Choice, vmm::Programs),
) -> Result<Launch> {
    let spec: Spec = doc.require()?;
    let machine_id = id_of(doc)?;
    let own = |name: &str| AbsPath::new(machine.file(name));
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
        disks: vec![],
        cid: vmm::CID,
        console: AbsPath::new(machine.console())?,
        console_bytes: cx.config.console_bytes,
        exit_file: AbsPath::new(machine.exit_file())?,
        log: own("shim.log")?,
        vmm_program: programs.vmm,
        vsock_program: programs.vsock,
    })
}

/// Host key and `guest` section: made with the VM, kept for its life.
pub(super) fn prepare_guest(doc: &mut Document, machine: &MachineDir) -> Result<(String, Guest)> {
    let file = machine.host_key();
    if let (Some(guest), Ok(pem)) = (doc.section::<Guest>()?, std::fs::read_to_string(&file)) {
        return Ok((pem, guest));
    }
    let key = keys::new_host_key()?;
    crate::sys::fs::save(&file, key.private_pem().as_bytes(), 0o600)?;
    let guest = Guest { host_key: key.public_line().to_owned(), user: "root".into() };
    doc.set(&guest);
    Ok((key.private_pem().to_owned(), guest))
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
    })
}
