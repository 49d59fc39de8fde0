//! The temporary VM of a build: journaled and locked like any other, without a network card, and ended with the build
//! however that ends.

use super::provision::PROXY;
use super::{Base, BuildArgs};
use crate::build::image::{Plan, modules};
use crate::cli::Context;
use crate::disk::{ext4, seed::Home};
use crate::doc::{
    AbsPath, Accel, CloneMethod, Disk, Disks, Document, Guest, Identity, ImageRef, Kind, LaunchDisk, Name, SecondDisk,
    Spec, Undo, Vmm, VmmKind,
};
use crate::error::{Code, Context as _, Error, Result};
use crate::guest::http;
use crate::guest::live::Live;
use crate::guest::ssh::session::{Login, Session};
use crate::guest::ssh::{keys, wait_for_sshd};
use crate::ops::machine::{identity, launch_plan, link_kernel};
use crate::store::{MachineDir, Operation, random_id};
use crate::sys::fs::{Copied, clone_file};
use crate::sys::lock::Lock;
use crate::vmm::{self, Started};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The root disk's file, as in any VM.
const ROOT: &str = "root.ext4";
/// The work disk's, which a VM has that is left.
const WORK: &str = "work.ext4";
/// The disk of modules.
const MODULES: &str = "modules.ext4";

/// How long the agent may take to accept a shutdown.
const AGENT_WAIT: Duration = Duration::from_secs(10);

/// How long a guest may take to shut down: on a busy host, under emulation.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(120);

/// A running VM. Dropped, it is ended and nothing of it is left.
pub(super) struct BuildVm {
    // In this order: each needs those below it.
    session: Session,
    started: Started,
    operation: Operation,
    machine: MachineDir,
    _lock: Lock,
    doc: Document,
    live: Live,
    method: CloneMethod,
    authorized_key: String,
}

impl BuildVm {
    /// Clones and grows the base, boots it, and logs in.
    pub(super) fn start(cx: &mut Context<'_>, args: &BuildArgs, (base, plan): (&Base, &Plan)) -> Result<Self> {
        let deadline = Instant::now() + args.timeout;
        cx.stages.begin("claim");
        let store = cx.store();
        let id = random_id()?;
        let name = Name::parse(&format!("build-{}", &id[..8]))?;
        let machine = store.machine_dir(&name);
        let (mut operation, lock) = store.stage("image_build")?.publish(machine.path())?;
        let method = make_disks(cx, &machine, (base, plan))?;
        link_kernel(&machine, &base.kernel)?;
        let mut doc = document(cx, args, (&name, &id, base));
        cx.stages.begin("identity");
        let mut identity = identity(cx, &mut doc, &machine)?;
        identity.second_disk = if plan.has_modules() { SecondDisk::Modules } else { SecondDisk::None };
        identity.proxy_port = plan.has_packages().then_some(PROXY);
        let authorized_key = identity.authorized_keys.concat();
        let started = boot(cx, &doc, (&machine, &identity, &mut operation))?;
        doc.set::<Vmm>(started.vmm());
        cx.stages.begin("boot_guest");
        let live = Live::of(&doc)?;
        let stream = wait_for_sshd(&live, deadline).map_err(|e| with_console(e, &machine))?;
        cx.stages.begin("login");
        let guest: Guest = doc.require()?;
        let private_key = keys::private_key(&store);
        let login = Login { user: &guest.user, host_key: &guest.host_key, private_key: &private_key };
        let session = Session::open(stream, login, deadline)?;
        Ok(BuildVm { session, started, operation, machine, _lock: lock, doc, live, method, authorized_key })
    }

    /// Its name.
    pub(super) fn name(&self) -> &Name {
        self.machine.name()
    }

    /// The way in.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// The socket behind which it is.
    pub(super) fn vsock(&self) -> &Path {
        &self.started.vmm().vsock
    }

    /// A file in its directory.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.machine.file(name)
    }

    /// The line that this build alone has in `authorized_keys`.
    pub(super) fn authorized_key(&self) -> &str {
        &self.authorized_key
    }

    /// What it runs on.
    pub(super) fn kind(&self) -> VmmKind {
        self.started.vmm().kind
    }

    /// The error that explains the others: a VM that has ended.
    pub(super) fn explain(&self, e: Error) -> Error {
        self.live.explain(e)
    }

    /// Shuts the guest down and waits for its end. Gives the root disk, and what is left to take back.
    pub(super) fn shut_down(self, cx: &mut Context<'_>) -> Result<Ended> {
        cx.stages.begin("shutdown");
        drop(self.session);
        http::post_shutdown(&self.started.vmm().vsock, AGENT_WAIT).map_err(|e| self.live.explain(e))?;
        if !vmm::wait_end(self.started.state(), SHUTDOWN_WAIT)? {
            let message = format!("the guest did not shut down within {} s", SHUTDOWN_WAIT.as_secs());
            return Err(Error::new(Code::TimedOut, message));
        }
        drop(self.started);
        match self.machine.exit_info() {
            Some(exit) if exit.reason == "poweroff" => {}
            exit => {
                let how = exit.map_or_else(|| "without a word".into(), |e| format!("{} ({})", e.reason, e.status));
                return Err(Error::new(Code::VmmFailed, format!("the VM did not end by a shutdown but {how}")));
            }
        }
        Ok(Ended { machine: self.machine, operation: self.operation, _lock: self._lock })
    }

    /// Leaves it running as a VM of the store. The work disk is for its next start: in this run `/root` is the root
    /// disk's own.
    pub(super) fn keep(mut self, cx: &Context<'_>, base: &Base) -> Result<()> {
        let work = self.machine.file(WORK);
        Home::read(&base.rootfs.path)?.write_to(&work, cx.config.work_bytes)?;
        let root = Disk { path: AbsPath::new(self.machine.file(ROOT))?, method: self.method, from_seed: None };
        let work = Disk { path: AbsPath::new(work)?, method: CloneMethod::Built, from_seed: Some(false) };
        self.doc.set(&Disks { root, work });
        self.machine.save(&self.doc)?;
        self.started.keep()?;
        self.operation.commit()
    }
}

/// A VM that has been shut down. Dropped, its directory is removed.
pub(super) struct Ended {
    operation: Operation,
    machine: MachineDir,
    _lock: Lock,
}

impl Ended {
    /// The root disk.
    pub(super) fn root(&self) -> PathBuf {
        self.machine.file(ROOT)
    }

    /// A file in its directory.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.machine.file(name)
    }

    /// Removes it.
    pub(super) fn remove(self) -> Result<()> {
        self.operation.undo()
    }
}

fn make_disks(cx: &mut Context<'_>, machine: &MachineDir, (base, plan): (&Base, &Plan)) -> Result<CloneMethod> {
    cx.stages.begin("clone_root");
    let root = machine.file(ROOT);
    if !base.rootfs.path.is_file() {
        let error = Error::new(Code::MissingFile, format!("the base's disk {} is not there", base.rootfs.path));
        return Err(error.hint("build the base again; the cache may have been emptied"));
    }
    let method = match clone_file(&base.rootfs.path, &root)? {
        Copied::Reflink => CloneMethod::Reflink,
        Copied::Extents => CloneMethod::SparseCopy,
    };
    if plan.size > base.rootfs.size_bytes {
        cx.stages.begin("grow_root");
        ext4::grow(&root, plan.size).context("cannot grow the root disk")?;
    }
    if plan.has_modules() {
        cx.stages.begin("modules_disk");
        modules::make_disk(&base.kernel, &machine.file(MODULES))?;
    }
    Ok(method)
}

/// Its document, as `bg-vm plan` would make it.
fn document(cx: &Context<'_>, args: &BuildArgs, (name, id, base): (&Name, &str, &Base)) -> Document {
    let mut doc = Document::new(Kind::Machine, name);
    doc.set_string("id", id);
    doc.set(&Spec {
        image: base.image.clone(),
        vcpu: args.vcpu.unwrap_or(cx.config.vcpu),
        memory_mib: args.memory_mib.unwrap_or(cx.config.memory_mib),
        root_bytes: 0,
        work_bytes: cx.config.work_bytes,
        net: false,
        nat: false,
        vmm: cx.config.vmm,
    });
    let (rootfs, kernel) = (base.rootfs.clone(), base.kernel.clone());
    doc.set(&ImageRef { name: base.image.clone(), rootfs, kernel, seed: None });
    doc
}

/// Starts the VMM. The VM lives no longer than this process.
fn boot(
    cx: &mut Context<'_>,
    doc: &Document,
    (machine, identity, operation): (&MachineDir, &Identity, &mut Operation),
) -> Result<Started> {
    cx.stages.begin("vmm_choice");
    let spec: Spec = doc.require()?;
    let choice = vmm::choose(spec.vmm)?;
    if choice.accel == Accel::Tcg {
        cx.remark(&format!("slow: {}", choice.chosen_because));
    }
    let programs = vmm::Programs::find(&cx.config)?;
    let shim = programs.shim.clone();
    let mut launch = launch_plan(cx, doc, machine, (choice, programs))?;
    launch.disks.push(LaunchDisk { path: AbsPath::new(machine.file(ROOT))?, read_only: false });
    if identity.second_disk == SecondDisk::Modules {
        launch.disks.push(LaunchDisk { path: AbsPath::new(machine.file(MODULES))?, read_only: true });
    }
    operation.intend(Undo::StopVm { runtime_dir: launch.runtime_dir.clone() })?;
    let mut started = vmm::start(&launch, identity, &shim, &mut cx.stages)?;
    started.hold()?;
    Ok(started)
}

/// A guest that does not come up: its console is gone with it, so its end goes into the error.
fn with_console(e: Error, machine: &MachineDir) -> Error {
    let console = std::fs::read(machine.console()).unwrap_or_default();
    let text = String::from_utf8_lossy(&console).into_owned();
    let lines: Vec<&str> = text.lines().rev().take(20).collect();
    let last = lines.iter().find(|l| !l.trim().is_empty()).map(|l| l.trim().to_owned());
    let error = match e.code() {
        Code::TimedOut => e.hint("--timeout gives the build more time"),
        Code::NotRunning => e.hint("`make build`, and build kernel and image again, if the suite was replaced since"),
        _ => return e,
    };
    let error = error.detail("console", lines.into_iter().rev().collect::<Vec<_>>().join("\n"));
    match last {
        Some(line) => error.also(format!("the guest's console ends with: {line}")),
        None => error,
    }
}
