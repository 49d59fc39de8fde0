//! The temporary VM of a build: without a network card, its root disk the base, grown, and no work disk.

use super::provision::PROXY;
use super::{Base, BuildArgs};
use crate::cli::Context;
use crate::ops::machine::{Claimed, identity, link_kernel};
use crate::ops::temporary::{self, Temporary};
use lib_common::doc::{
    AbsPath, CloneMethod, Disk, Disks, Document, ImageRef, Kind, LaunchDisk, Name, SecondDisk, Spec, VmmKind,
};
use lib_common::error::{Code, Context as _, Error, Result};
use lib_common::sys::fs::clone_file;
use lib_common::sys::random::random_id;
use lib_image::build::image::{Plan, modules};
use lib_image::disk::clone::{ROOT_FILE, WORK_FILE};
use lib_image::disk::{ext4, seed::Home};
use lib_machine::guest::ssh::session::Session;
use lib_machine::store::MachineDir;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The disk of modules.
pub(in crate::ops) const MODULES: &str = "modules.ext4";

/// A running VM. Dropped, it is ended and nothing of it is left.
pub(super) struct BuildVm {
    // In this order: the session needs the VM.
    session: Session,
    vm: Temporary,
    method: CloneMethod,
    authorized_key: String,
}

impl BuildVm {
    /// Clones and grows the base, boots it, and logs in.
    pub(super) fn start(cx: &mut Context<'_>, args: &BuildArgs, (base, plan): (&Base, &Plan)) -> Result<Self> {
        let deadline = Instant::now() + args.timeout;
        cx.stages.begin("claim");
        let store = cx.store();
        let (id, name) = (random_id()?, temporary::new_name("build")?);
        let machine = store.machine_dir(&name);
        let (lock, operation) = store.stage("image_build")?.publish(machine.path())?;
        let method = make_disks(cx, &machine, (base, plan))?;
        link_kernel(&machine, &base.kernel)?;
        let mut doc = document(cx, args, (&name, &id, base));
        cx.stages.begin("identity");
        let mut identity = identity(cx, &mut doc, &machine)?;
        identity.second_disk = if plan.has_modules() { SecondDisk::Modules } else { SecondDisk::None };
        identity.proxy_port = plan.has_packages().then_some(PROXY);
        let authorized_key = identity.authorized_keys.concat();
        let mut disks = vec![LaunchDisk { path: AbsPath::new(machine.file(ROOT_FILE))?, read_only: false }];
        if plan.has_modules() {
            disks.push(LaunchDisk { path: AbsPath::new(machine.file(MODULES))?, read_only: true });
        }
        let vm = Temporary::boot(cx, doc, Claimed { machine, operation, lock }, (&identity, disks))?;
        let session = vm.login(cx, deadline)?;
        Ok(BuildVm { session, vm, method, authorized_key })
    }

    /// Its name.
    pub(super) fn name(&self) -> &Name {
        self.vm.name()
    }

    /// The way in.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// The socket behind which it is.
    pub(super) fn vsock(&self) -> &Path {
        &self.vm.vmm().vsock
    }

    /// A file in its directory.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.vm.file(name)
    }

    /// The line that this build alone has in `authorized_keys`.
    pub(super) fn authorized_key(&self) -> &str {
        &self.authorized_key
    }

    /// What it runs on.
    pub(super) fn kind(&self) -> VmmKind {
        self.vm.vmm().kind
    }

    /// The error that explains the others: a VM that has ended.
    pub(super) fn explain(&self, e: Error) -> Error {
        self.vm.explain(e)
    }

    /// Shuts the guest down and waits for its end. Gives what is left to take back.
    pub(super) fn shut_down(self, cx: &mut Context<'_>) -> Result<temporary::Ended> {
        cx.stages.begin("shutdown");
        drop(self.session);
        self.vm.power_off()?;
        Ok(self.vm.ended())
    }

    /// Leaves it running as a VM of the store.
    pub(super) fn keep(mut self, cx: &Context<'_>, base: &Base) -> Result<()> {
        drop(self.session);
        record(cx, &mut self.vm, (base, self.method))?;
        self.vm.keep()
    }

    /// A shell in it on a terminal: to other tools it is a VM of the store meanwhile. The session of the build, which has
    /// been silent for as long as the user liked, is a new one afterwards, with the whole `timeout` before it.
    pub(super) fn shell(&mut self, cx: &mut Context<'_>, (base, tty): (&Base, &File), timeout: Duration) -> Result<()> {
        record(cx, &mut self.vm, (base, self.method))?;
        self.vm.shell(cx, tty)?;
        self.session = self.vm.login(cx, Instant::now() + timeout)?;
        Ok(())
    }
}

/// Makes it a VM of the store. The work disk is for its next start: in this run `/root` is the root disk's own.
fn record(cx: &Context<'_>, vm: &mut Temporary, (base, method): (&Base, CloneMethod)) -> Result<()> {
    vm.record(|doc, machine| {
        let work = machine.file(WORK_FILE);
        if !work.exists() {
            Home::read(&base.rootfs.path)?.write_to(&work, cx.config.work_bytes)?;
        }
        let root = Disk { path: AbsPath::new(machine.file(ROOT_FILE))?, method, from_seed: None };
        let work = Disk { path: AbsPath::new(work)?, method: CloneMethod::Built, from_seed: Some(false) };
        doc.set(&Disks { root, work });
        Ok(())
    })
}

fn make_disks(cx: &mut Context<'_>, machine: &MachineDir, (base, plan): (&Base, &Plan)) -> Result<CloneMethod> {
    cx.stages.begin("clone_root");
    let root = machine.file(ROOT_FILE);
    if !base.rootfs.path.is_file() {
        let error = Error::new(Code::MissingFile, format!("the base's disk {} is not there", base.rootfs.path));
        return Err(error.hint("build the base again; the cache may have been emptied"));
    }
    let method = clone_file(&base.rootfs.path, &root)?.into();
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
    let usual = temporary::spec(cx, base.image.clone());
    doc.set(&Spec {
        vcpu: args.vcpu.unwrap_or(usual.vcpu),
        memory_mib: args.memory_mib.unwrap_or(usual.memory_mib),
        ..usual
    });
    let (rootfs, kernel) = (base.rootfs.clone(), base.kernel.clone());
    doc.set(&ImageRef { name: base.image.clone(), rootfs, kernel, seed: None });
    doc
}
