//! The checks of an initrd: its format, its length, and whether the modules in it are those that the guest cannot do
//! without, made for this kernel and in an order that works.

use super::{Facts, Loaded, not_checked};
use lib_common::doc::{Check, VmmKind};
use lib_image::build::kernel::initrd::ALIGNMENT;
use std::collections::BTreeSet;

/// Modules that belong together.
struct Group {
    /// Of the check.
    name: &'static str,
    modules: &'static [&'static str],
    /// What comes of their absence.
    loss: &'static str,
    /// Whether that is no more than a loss.
    spared: bool,
}

const GROUPS: [Group; 5] = [
    Group {
        name: "virtio_modules",
        modules: &["virtio", "virtio_ring", "virtio_mmio", "virtio_blk"],
        loss: "the guest would wait for its disks without end",
        spared: false,
    },
    Group { name: "ext4_module", modules: &["ext4"], loss: "the guest could not mount its root disk", spared: false },
    Group {
        name: "vsock_modules",
        modules: &["vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"],
        loss: "nobody could reach the guest",
        spared: false,
    },
    Group { name: "net_module", modules: &["virtio_net"], loss: "the guest has no network card", spared: true },
    Group { name: "rng_module", modules: &["virtio_rng"], loss: "the guest may wait for randomness", spared: true },
];

pub(super) fn checks(facts: &Facts<'_>) -> Vec<Check> {
    let mut checks = vec![format(facts)];
    if facts.initrd.wrong.is_some() {
        let groups = GROUPS.iter().map(|group| group.name);
        let others = ["initrd_padding"].into_iter().chain(groups).chain(["module_order", "module_version"]);
        checks.extend(others.map(|name| not_checked(name, "the initrd cannot be read", facts.mend)));
        return checks;
    }
    checks.push(padded(facts));
    checks.extend(GROUPS.iter().map(|group| group.check(facts)));
    checks.push(order(facts));
    checks.push(version(facts));
    checks
}

fn format(facts: &Facts<'_>) -> Check {
    let name = "initrd_format";
    match (&facts.initrd.wrong, facts.initrd.init) {
        (Some(wrong), _) => {
            // The identity of each boot is appended, and the kernel looks for it only behind a raw archive.
            let message = format!("the initrd cannot be appended to: {wrong}");
            Check::new(name, false, message, facts.mend)
        }
        (None, false) => Check::new(name, false, "the initrd has no /init, which the kernel would run", facts.mend),
        (None, true) => Check::new(name, true, "the initrd is a raw cpio archive with an /init", ""),
    }
}

/// Says in words how long an initrd is, if that VMM can start it.
pub(super) fn padding(vmm: VmmKind, length: u64) -> Result<String, String> {
    match (vmm, length % ALIGNMENT) {
        (VmmKind::Qemu, 1..) => Err(format!(
            "the initrd of {length} bytes is not padded to a multiple of {ALIGNMENT}: its last page may overlap the ACPI \
             tables of QEMU's microvm, and the guest hang or lose its disks"
        )),
        (VmmKind::Qemu, 0) => Ok(format!("the initrd is padded to {length} bytes, whole pages")),
        (VmmKind::Firecracker, _) => Ok(format!("the initrd has {length} bytes, and Firecracker takes any length")),
    }
}

fn padded(facts: &Facts<'_>) -> Check {
    let name = "initrd_padding";
    match facts.initrd.length.map(|length| padding(facts.vmm, length)) {
        None => Check::new(name, true, "each boot pads its initrd to whole pages", ""),
        Some(Ok(message)) => Check::new(name, true, message, ""),
        Some(Err(message)) => Check::new(name, false, message, facts.mend),
    }
}

impl Group {
    fn check(&self, facts: &Facts<'_>) -> Check {
        let loaded = |name: &str| facts.initrd.modules.iter().any(|module| module.name == name);
        let (here, absent): (Vec<&str>, Vec<&str>) = self.modules.iter().partition(|name| loaded(name));
        if absent.is_empty() {
            return Check::new(self.name, true, format!("the initrd has {}", here.join(", ")), "");
        }
        match &facts.builtin {
            Some(builtin) => self.by_list(builtin, &absent, facts.mend),
            None if facts.initrd.modules.is_empty() => {
                let message = "the initrd has no modules, so everything is taken to be built into the kernel";
                Check::new(self.name, true, message, "")
            }
            None => {
                let message = "not in the initrd, and taken to be built into the kernel, since no modules.builtin says \
                               otherwise";
                Check::new(self.name, true, format!("{message}: {}", absent.join(", ")), "")
            }
        }
    }

    fn by_list(&self, builtin: &BTreeSet<String>, absent: &[&str], mend: &str) -> Check {
        let missing: Vec<&str> = absent.iter().filter(|name| !builtin.contains(**name)).copied().collect();
        if missing.is_empty() {
            let message = format!("built into the kernel, or in the initrd: {}", self.modules.join(", "));
            return Check::new(self.name, true, message, "");
        }
        let message = format!("neither in the initrd nor built into the kernel: {}; {}", missing.join(", "), self.loss);
        if self.spared {
            return Check::could_be_better(self.name, message, mend);
        }
        Check::new(self.name, false, message, mend)
    }
}

/// Every module has to be there, and what it depends on before it.
fn order(facts: &Facts<'_>) -> Check {
    let name = "module_order";
    let modules = &facts.initrd.modules;
    let is_builtin = |name: &String| facts.builtin.as_ref().is_some_and(|all| all.contains(name));
    let mut wrong = vec![];
    for (i, module) in modules.iter().enumerate() {
        match &module.info {
            Err(why) => wrong.push(format!("{}: {why}", module.name)),
            Ok(info) => {
                let first = &modules[..i];
                let late = info.depends.iter().filter(|d| !first.iter().any(|m| m.name == **d) && !is_builtin(d));
                wrong.extend(late.map(|d| format!("{} needs {d}, which is not loaded before it", module.name)));
            }
        }
    }
    if wrong.is_empty() {
        return Check::new(name, true, "every module of the initrd is loaded after those that it needs", "");
    }
    Check::new(name, false, format!("modules of the initrd cannot be loaded: {}", wrong.join("; ")), facts.mend)
}

/// A kernel loads no module that was made for another one.
fn version(facts: &Facts<'_>) -> Check {
    let name = "module_version";
    let modules = &facts.initrd.modules;
    let made_for = |module: &Loaded| module.info.as_ref().ok().map(|info| info.release.clone());
    let Some(release) = &facts.kernel.release else {
        let message = "the kernel does not say its release, with which that of its modules could be compared";
        return Check::new(name, true, message, "");
    };
    if modules.is_empty() {
        return Check::new(name, true, "the initrd has no modules that could be of another kernel", "");
    }
    let others = modules.iter().filter_map(|m| Some((m, made_for(m)?))).filter(|(_, made_for)| made_for != release);
    let others: Vec<String> = others.map(|(m, made_for)| format!("{} is made for `{made_for}`", m.name)).collect();
    if others.is_empty() {
        return Check::new(name, true, format!("kernel and modules are of {release}"), "");
    }
    let message = format!("the kernel is {release} and refuses modules of another one: {}", others.join(", "));
    Check::new(name, false, message, facts.mend)
}
