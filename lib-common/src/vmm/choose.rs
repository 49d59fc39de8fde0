//! Which VMM and accelerator this host can use, and why, in words. Asks the host; changes nothing.

use crate::doc::{Accel, VmmChoice, VmmKind};
use crate::error::{Code, Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};

/// What a VM will run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The VMM.
    pub kind: VmmKind,
    /// On what its processors run.
    pub accel: Accel,
    /// Why, in words; where it is not the best there could be, what that costs and what would mend it.
    pub chosen_because: String,
}

/// What decides.
#[derive(Clone, Copy, Debug)]
struct Facts<'a> {
    arch: &'a str,
    /// How opening /dev/kvm to read and write failed, where it did.
    kvm: Result<(), std::io::ErrorKind>,
    /// Whether the processor says `vmx` or `svm`.
    virtualizes: bool,
}

/// Chooses for this host. [`Code::VmmFailed`] where no VMM of the suite can run on its architecture.
pub fn choose(wanted: VmmChoice) -> Result<Choice> {
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let virtualizes = has_virtualization(&cpu_flags());
    let facts = Facts { arch: std::env::consts::ARCH, kvm: kvm.map(drop).map_err(|e| e.kind()), virtualizes };
    decide(facts, wanted)
}

/// Never by the device node alone: a software KVM (`kvm_pvm`) opens, makes VMs, and hangs every stock kernel.
fn decide(facts: Facts<'_>, wanted: VmmChoice) -> Result<Choice> {
    if facts.arch != "x86_64" {
        let message = format!("no VMM of this suite runs on {}: QEMU's microvm machine is x86_64's alone", facts.arch);
        return Err(Error::new(Code::VmmFailed, message));
    }
    let kind = match wanted {
        VmmChoice::Auto | VmmChoice::Qemu => VmmKind::Qemu,
    };
    let emulated = |why: &str| (Accel::Tcg, format!("{why}, so the guest is emulated (TCG), 10 to 50 times slower"));
    let (accel, chosen_because) = match (facts.kvm, facts.virtualizes) {
        (Ok(()), true) => (Accel::Kvm, "KVM is usable".to_owned()),
        (Ok(()), false) => emulated(
            "/dev/kvm opens, but the processor has neither vmx nor svm (/proc/cpuinfo), which a stock kernel needs",
        ),
        (Err(std::io::ErrorKind::PermissionDenied), true) => {
            emulated("/dev/kvm may not be opened (put yourself into the group kvm and log in again)")
        }
        (Err(std::io::ErrorKind::NotFound), true) => {
            emulated("there is no /dev/kvm (load the kernel module kvm_intel or kvm_amd)")
        }
        (Err(kind), true) => emulated(&format!("/dev/kvm cannot be opened ({kind})")),
        (Err(_), false) => emulated("the processor has neither vmx nor svm (/proc/cpuinfo), and so no KVM"),
    };
    Ok(Choice { kind, accel, chosen_because })
}

/// What the processor can do, as /proc/cpuinfo says it.
pub fn cpu_flags() -> Vec<String> {
    File::open("/proc/cpuinfo").map(|file| flags(BufReader::new(file))).unwrap_or_default()
}

/// The words of the first line `flags`. (Intel's `vmx flags` is another line.)
fn flags(cpuinfo: impl BufRead) -> Vec<String> {
    let is_it = |line: &String| line.split(':').next().map(str::trim) == Some("flags");
    let line = cpuinfo.lines().map_while(std::io::Result::ok).find(is_it).unwrap_or_default();
    line.split_ascii_whitespace().map(str::to_owned).collect()
}

fn has_virtualization(flags: &[String]) -> bool {
    flags.iter().any(|flag| flag == "vmx" || flag == "svm")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind::{NotFound, Other, PermissionDenied};

    #[test]
    fn kvm_takes_the_device_and_the_processor_both() {
        for (kvm, virtualizes, accel, says) in [
            (Ok(()), true, Accel::Kvm, "KVM is usable"),
            (Ok(()), false, Accel::Tcg, "neither vmx nor svm"),
            (Err(NotFound), false, Accel::Tcg, "neither vmx nor svm"),
            (Err(NotFound), true, Accel::Tcg, "kvm_intel"),
            (Err(PermissionDenied), true, Accel::Tcg, "group kvm"),
            (Err(Other), true, Accel::Tcg, "cannot be opened"),
        ] {
            let choice = decide(Facts { arch: "x86_64", kvm, virtualizes }, VmmChoice::Auto).unwrap();
            assert_eq!(choice.accel, accel, "{choice:?}");
            assert!(choice.chosen_because.contains(says), "{choice:?}");
            assert_eq!(accel == Accel::Tcg, choice.chosen_because.contains("slower"), "emulation is never silent");
        }
        let e = decide(Facts { arch: "riscv64", kvm: Ok(()), virtualizes: true }, VmmChoice::Auto).unwrap_err();
        assert_eq!(e.code(), Code::VmmFailed);
    }

    #[test]
    fn only_the_processors_own_flags_count() {
        for (text, virtualizes) in [
            ("processor\t: 0\nflags\t\t: fpu vmx sse\n", true),
            ("flags\t\t: fpu svm\n", true),
            ("flags\t\t: fpu svm_lock\nvmx flags\t: vnmi vmx\n", false),
            ("model name\t: vmx\n", false),
            ("", false),
        ] {
            assert_eq!(has_virtualization(&flags(text.as_bytes())), virtualizes, "{text}");
        }
    }
}
