//! The same QEMU with the same arguments, started by nobody but the benchmark: without shim, journal, record and monitor.
//! Kernel, initrd, identity and disks are as those of a VM of the suite, and so is the vsock device beside it.

use super::banger::tree_cpu_s;
use super::place::Place;
use super::ready::{Guest, Way};
use crate::summary::Samples;
use lib_common::doc::{
    Guest as GuestSection, Identity, ImageRef, Launch, Name, Spec, UP_PORT, Unit, Vmm, VmmKind, strict,
};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::{Child, Cmd, Streams};
use lib_common::sys::fs::{link_or_clone, private_dir, remove_dir};
use lib_common::sys::poll::wait;
use lib_common::sys::process::cmdline;
use lib_common::sys::socket::is_listening;
use lib_common::timing::{Stages, millis};
use lib_image::build::kernel::initrd;
use lib_image::disk::clone_disks;
use lib_machine::guest::ssh::keys::private_key;
use lib_machine::guest::vsock::served_at;
use lib_machine::store::id_of;
use lib_machine::vmm::files;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long vhost-device-vsock may take to listen.
const DEVICE_WITHIN: Duration = Duration::from_secs(10);

/// What a VM of the suite was started as.
pub(super) struct Bare {
    name: Name,
    image: ImageRef,
    spec: Spec,
    identity: Identity,
    host_key: String,
    qemu: Vec<String>,
    vsock: Vec<String>,
    old: [PathBuf; 2],
}

/// Directories of one VM, and what runs in them.
struct Running {
    dir: PathBuf,
    run: PathBuf,
    children: Vec<Child>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.children.clear();
        let _ = remove_dir(&self.run);
        let _ = remove_dir(&self.dir);
    }
}

impl Bare {
    /// Starts a VM of the suite, writes down how, and removes it.
    pub(super) fn of(place: &mut Place) -> Result<Self> {
        let name = place.new_name()?;
        let doc = place.run("bg-vm", &["create", name.as_str(), "--image", place.image.as_str()])?.machine()?;
        let (vmm, guest): (Vmm, GuestSection) = (doc.require()?, doc.require()?);
        let machine = place.store().machine(&name)?;
        let run = machine.runtime_dir(&id_of(&doc)?)?.to_path_buf();
        let read = |file: &str| fs_err::read_to_string(run.join(file));
        let launch: Launch = strict(&read(files::LAUNCH)?)?;
        let refused =
            |what: &str, hint: &str| Err(Error::new(Code::Usage, format!("bare QEMU is no match: {what}")).hint(hint));
        if vmm.kind != VmmKind::Qemu {
            return refused("VMs run on Firecracker here", "BG_VMM=qemu bg-bench create --against qemu");
        }
        if launch.net.is_some() {
            return refused("it would have no network card", "BG_NET=off bg-bench create --against qemu");
        }
        let device = machine.running(&id_of(&doc)?)?.and_then(|state| state.vsock_device);
        let device = device.ok_or_else(|| Error::new(Code::VmmFailed, "the VM has ended as soon as it ran"))?;
        let bare = Bare {
            image: doc.require()?,
            spec: doc.require()?,
            identity: strict(&read(files::IDENTITY)?)?,
            host_key: guest.host_key,
            qemu: without_parent(cmdline(vmm.pid)?),
            vsock: cmdline(device.pid)?,
            old: [machine.path().to_owned(), run],
            name,
        };
        place.run("bg-vm", &["rm", "--force", bare.name.as_str()])?;
        Ok(bare)
    }

    /// One VM, from nothing to its SSH and away again.
    pub(super) fn once(&self, place: &mut Place, samples: &mut Samples) -> Result<()> {
        let id = lib_common::sys::random::random_id()?;
        let (dir, run) = (place.path().join(format!("bare-{id}")), place.config.runtime_dir.join(&id[..12]));
        let mut vm = Running { dir, run, children: vec![] };
        private_dir(&vm.dir)?;
        private_dir(&vm.run)?;
        let identity = private_key(&place.store());
        let begun = Instant::now();
        clone_disks(&self.image, &self.spec, &vm.dir, &mut Stages::new("bg-bench", None))?;
        link_or_clone(&self.image.kernel.vmlinux, &vm.dir.join("vmlinux"))?;
        let socket = vm.run.join(files::VSOCK);
        let up = UnixListener::bind(served_at(&socket, UP_PORT))?;
        vm.children.push(self.moved(&self.vsock, &vm).spawn(Streams::default())?);
        let mut file = fs_err::File::create(vm.run.join(files::INITRD))?;
        initrd::assemble(&self.image.kernel.initrd, &self.identity, &mut file)?;
        wait_for_device(&vm.run.join(files::VHOST))?;
        vm.children.push(self.moved(&self.qemu, &vm).spawn(Streams::default())?);
        let started_ms = millis(begun.elapsed());
        let way = Way::Vsock { socket, up: Some(up) };
        let guest = Guest { name: &self.name, way, host_key: &self.host_key, identity: &identity, dir: place.path() };
        let deadline = begun + place.config.guest_deadline(Duration::from_secs(240));
        let children = &mut vm.children;
        let ready = guest.wait(deadline, || children.iter_mut().try_for_each(lives))?;
        let pids: Vec<i32> = vm.children.iter().map(Child::pid).collect();
        samples.add("qemu.create", 0, started_ms);
        samples.add("qemu.ready", 0, millis(ready.at - begun));
        samples.add("qemu.ssh_true", 0, ready.ssh_ms);
        samples.add_in(Unit::Count, "qemu.tries", 0, f64::from(ready.tries));
        samples.add_in(Unit::CpuS, "qemu.cpu_vmm", 0, tree_cpu_s(&pids));
        Ok(())
    }

    /// A command line as that VM's was, with this one's directories.
    fn moved(&self, argv: &[String], vm: &Running) -> Cmd {
        let [machine, run] = &self.old;
        let moved = |arg: &String| {
            [(machine, &vm.dir), (run, &vm.run)].into_iter().fold(arg.clone(), |arg, (old, new)| {
                let (old, new) = (old.to_string_lossy(), new.to_string_lossy());
                // In an option's value a comma is written twice.
                arg.replace(&*old, &new).replace(&old.replace(',', ",,"), &new.replace(',', ",,"))
            })
        };
        Cmd::new(&argv[0]).args(argv[1..].iter().map(moved))
    }
}

/// Without the monitor and the wait for it, with the console in a file, and with a name that no audit takes for a VM's.
fn without_parent(argv: Vec<String>) -> Vec<String> {
    let mut kept = vec![];
    let mut args = argv.into_iter();
    while let Some(arg) = args.next() {
        if arg == "-S" {
            continue;
        }
        let value = |args: &mut std::vec::IntoIter<String>| args.next().unwrap_or_default();
        match arg.as_str() {
            "-mon" => drop(value(&mut args)),
            "-name" => {
                value(&mut args);
                kept.extend([arg, "bench".into()]);
            }
            "-chardev" => match value(&mut args) {
                qmp if qmp.contains("id=qmp") => {}
                console if console.contains("id=console") => kept.extend([arg, "null,id=console".into()]),
                other => kept.extend([arg, other]),
            },
            _ => kept.push(arg),
        }
    }
    kept
}

fn lives(child: &mut Child) -> Result<()> {
    match child.try_wait()? {
        Some(status) => Err(child.failure(status)),
        None => Ok(()),
    }
}

fn wait_for_device(socket: &Path) -> Result<()> {
    let deadline = Instant::now() + DEVICE_WITHIN;
    while !is_listening(socket) {
        if Instant::now() >= deadline {
            return Err(Error::new(Code::TimedOut, "vhost-device-vsock did not listen in time"));
        }
        wait(&[], Some(Instant::now() + Duration::from_millis(1)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_parent_is_for_is_left_out_and_the_rest_stays() {
        let argv = "qemu -name banger:a:b -M microvm -no-reboot -S -chardev socket,id=qmp,fd=0 -mon chardev=qmp,mode=control \
            -chardev socket,id=console,fd=1 -serial chardev:console -chardev socket,id=vsock,path=/r/vhost.sock";
        let kept = without_parent(argv.split_whitespace().map(str::to_owned).collect()).join(" ");
        let expected = "qemu -name bench -M microvm -no-reboot -chardev null,id=console -serial chardev:console \
            -chardev socket,id=vsock,path=/r/vhost.sock";
        assert_eq!(kept, expected);
    }
}
