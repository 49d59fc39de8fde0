//! Whether guests run on the processor or are emulated, and if they are, why.

use super::Caller;
use lib_common::doc::{Accel, Check};
use lib_common::error::Result;
use lib_machine::config::Config;
use lib_machine::vmm::{self, Choice};
use nix::unistd::{Gid, Group};
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const DEVICE: &str = "/dev/kvm";

/// The parts of KVM that come as modules of their own.
const MODULES: [&str; 4] = ["kvm", "kvm_intel", "kvm_amd", "kvm_pvm"];

/// What decides.
#[derive(Debug)]
pub(super) struct Facts {
    /// What a VM would run on, or why nothing runs here.
    pub choice: Result<Choice>,
    /// How opening the device to read and write failed, where it did.
    pub device: Result<(), ErrorKind>,
    /// The device's group, if its members may read and write.
    pub group: Option<String>,
    /// Whether the group's list has the caller.
    pub member: bool,
    /// The processor's flags.
    pub cpu: Vec<String>,
    /// Those of [`MODULES`] that are loaded or built in.
    pub modules: Vec<&'static str>,
}

impl Facts {
    pub fn look(config: &Config) -> Self {
        let group = std::fs::metadata(DEVICE).ok().filter(|m| m.mode() & 0o060 == 0o060 && m.gid() != 0);
        let group = group.and_then(|m| Group::from_gid(Gid::from_raw(m.gid())).ok().flatten());
        let caller = nix::unistd::User::from_uid(lib_common::sys::host::caller_uid()).ok().flatten();
        let in_list =
            |group: &Group| caller.is_some_and(|user| group.mem.contains(&user.name) || user.gid == group.gid);
        Facts {
            choice: vmm::choose(config.vmm, config),
            device: OpenOptions::new().read(true).write(true).open(DEVICE).map(drop).map_err(|e| e.kind()),
            member: group.as_ref().is_some_and(in_list),
            group: group.map(|group| group.name),
            cpu: vmm::cpu_flags(),
            modules: MODULES.into_iter().filter(|name| Path::new("/sys/module").join(name).exists()).collect(),
        }
    }

    fn has(&self, flag: &str) -> bool {
        self.cpu.iter().any(|f| f == flag)
    }

    fn loaded(&self, module: &str) -> bool {
        self.modules.contains(&module)
    }
}

pub(super) fn checks(facts: &Facts, caller: &Caller) -> Vec<Check> {
    match &facts.choice {
        // An error that no command mends; that of another machine does.
        Err(e) => vec![Check::new("architecture", false, e.message(), "ssh HOST  # an x86_64 machine")],
        Ok(choice) if choice.accel == Accel::Kvm => vec![usable(facts, caller)],
        Ok(_) => vec![unusable(facts, caller)],
    }
}

fn usable(facts: &Facts, caller: &Caller) -> Check {
    let software = facts.loaded("kvm_pvm") && !facts.loaded("kvm_intel") && !facts.loaded("kvm_amd");
    if !software {
        return Check::new("kvm", true, "KVM is usable", "");
    }
    let message = "the KVM of this host is a software one (kvm_pvm), in which a stock kernel hangs at its boot";
    let fix = match module(facts) {
        Some(module) => {
            let (remove, load) = (caller.sudo("modprobe -r kvm_pvm"), caller.sudo(&format!("modprobe {module}")));
            format!("{remove} && {load}")
        }
        None => OUTSIDE.to_owned(),
    };
    Check::new("kvm", false, message, &fix)
}

/// The processor's own module; a processor that cannot virtualize has none that could be loaded.
fn module(facts: &Facts) -> Option<&'static str> {
    match (facts.has("svm"), facts.has("vmx")) {
        (true, _) => Some("kvm_amd"),
        (false, true) => Some("kvm_intel"),
        (false, false) => None,
    }
}

/// What makes the processor of a guest one that can virtualize: nothing in the guest does.
const OUTSIDE: &str =
    "ssh HOST  # the host that this machine is a guest of: turn on nesting there (nested=1 of kvm_intel or kvm_amd)";

/// VMs run all the same, and slowly.
fn unusable(facts: &Facts, caller: &Caller) -> Check {
    let (why, fix) = match module(facts) {
        Some(module) => device(facts, module, caller),
        None => processor(facts, caller),
    };
    Check::could_be_better("kvm", format!("guests are emulated (TCG), 10 to 50 times slower: {why}"), fix)
}

/// The processor can, and the device cannot be opened.
fn device(facts: &Facts, module: &str, caller: &Caller) -> (String, String) {
    match (facts.device, &facts.group) {
        (Err(ErrorKind::PermissionDenied), Some(group)) if facts.member => {
            let why = format!("{} is in the group {group}, and this session began before that", caller.name);
            (why, format!("newgrp {group}"))
        }
        (Err(ErrorKind::PermissionDenied), Some(group)) => {
            let why = format!("{DEVICE} may not be opened, since {} is not in the group {group}", caller.name);
            (why, caller.sudo(&format!("usermod -aG {group} {} && newgrp {group}", caller.name)))
        }
        (Err(ErrorKind::PermissionDenied), None) => {
            let fix = format!("chown root:kvm {DEVICE} && {}", caller.sudo(&format!("chmod 660 {DEVICE}")));
            (format!("{DEVICE} may be opened by root alone"), caller.sudo(&fix))
        }
        (Err(ErrorKind::NotFound), _) => {
            let why = match facts.loaded(module) {
                true => format!("there is no {DEVICE}, though {module} is loaded"),
                false => format!("there is no {DEVICE}: the kernel module {module} is not loaded"),
            };
            (why, caller.sudo(&format!("modprobe {module}")))
        }
        (Err(kind), _) => (format!("{DEVICE} cannot be opened ({kind})"), caller.sudo(&format!("modprobe {module}"))),
        (Ok(()), _) => ("the VMM that was chosen does not use it".into(), "export BG_VMM=auto".into()),
    }
}

/// The processor cannot, or is kept from it.
fn processor(facts: &Facts, caller: &Caller) -> (String, String) {
    let none = "the processor has neither vmx nor svm (/proc/cpuinfo)";
    if facts.loaded("kvm_pvm") {
        let opens = if facts.device.is_ok() { format!("{DEVICE} opens, and is") } else { "there is".to_owned() };
        let why = format!("{opens} a software KVM (kvm_pvm), in which a stock kernel hangs at its boot; {none}");
        return (why, OUTSIDE.to_owned());
    }
    if facts.has("hypervisor") {
        return (format!("{none}: this machine is a guest whose host has nesting off"), OUTSIDE.to_owned());
    }
    let fix = caller.sudo("systemctl reboot --firmware-setup  # and turn on VT-x or AMD-V there");
    (format!("{none}: the firmware has it turned off, or it cannot virtualize"), fix)
}
