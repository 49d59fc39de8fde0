//! Which VMM and accelerator this host can use, and why, in words. Asks the host; changes nothing.

use super::firecracker::Version;
use crate::config::Config;
use crate::doc::{AbsPath, Accel, VmmChoice, VmmKind};
use crate::error::{Code, Error, Result};
use crate::sys::thread;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::thread::JoinHandle;

/// What a VM will run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The VMM.
    pub kind: VmmKind,
    /// On what its processors run.
    pub accel: Accel,
    /// Why, in words; where it is not the best there could be, what that costs and what would mend it.
    pub chosen_because: String,
    /// What speaks against what was asked for.
    pub warning: Option<String>,
    /// The Firecracker that runs it, and its version; none where it is QEMU.
    pub firecracker: Option<(AbsPath, Version)>,
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

/// Chooses for this host. What is named is used, or an error says why it cannot be.
///
/// # Errors
/// [`Code::VmmFailed`] where no VMM of the suite can run on this architecture, and for a Firecracker that was named and cannot
/// be used; [`Code::MissingProgram`] for one that is not there.
pub fn choose(wanted: VmmChoice, config: &Config) -> Result<Choice> {
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let virtualizes = has_virtualization(&cpu_flags());
    let facts = Facts { arch: std::env::consts::ARCH, kvm: kvm.map(drop).map_err(|e| e.kind()), virtualizes };
    decide(facts, wanted, || find_firecracker(config))
}

/// A choice in the making, on a thread of its own: to ask a Firecracker for its version takes as long as to clone two disks.
#[derive(Debug)]
pub struct Choosing(JoinHandle<Result<Choice>>);

impl Choosing {
    /// Begins.
    pub fn begin(wanted: VmmChoice, config: &Config) -> Result<Self> {
        let config = config.clone();
        Ok(Choosing(thread::spawn(move || choose(wanted, &config))?))
    }

    /// The choice. Errors: those of [`choose`].
    pub fn wait(self) -> Result<Choice> {
        self.0.join().map_err(|_| Error::new(Code::Internal, "the thread that chooses the VMM has panicked"))?
    }
}

fn find_firecracker(config: &Config) -> Result<(AbsPath, Version)> {
    let missing = || crate::sys::program::missing(Path::new("firecracker"));
    let program = config.find_program("firecracker", &config.firecracker_path()?.ok_or_else(missing)?)?;
    let version = Version::of(&program)?;
    Ok((AbsPath::new(program)?, version))
}

/// Firecracker wherever it can run a guest, since it is what the suite is for. It is looked for only where it could.
fn decide(
    facts: Facts<'_>,
    wanted: VmmChoice,
    firecracker: impl FnOnce() -> Result<(AbsPath, Version)>,
) -> Result<Choice> {
    let no_kvm = why_no_kvm(facts);
    let (firecracker, without) = match (wanted, &no_kvm) {
        (VmmChoice::Firecracker, _) => (Some(firecracker()?), None),
        (VmmChoice::Auto, None) => match firecracker() {
            Ok(found) => (Some(found), None),
            Err(e) if matches!(e.code(), Code::Interrupted | Code::Terminated | Code::Permission) => return Err(e),
            Err(e) => (None, Some(format!("no Firecracker can be used: {}", e.with_causes()))),
        },
        _ => (None, None),
    };
    if let Some((program, version)) = firecracker {
        let what = format!("Firecracker {version} is {program}");
        let (chosen_because, warning) = match (wanted, no_kvm) {
            (VmmChoice::Firecracker, Some(why)) => {
                let warning = format!("Firecracker was asked for, and KVM was judged unusable: {why}");
                (format!("{warning}; {what}"), Some(warning))
            }
            (VmmChoice::Firecracker, None) => (format!("Firecracker was asked for, KVM is usable, and {what}"), None),
            _ => (format!("KVM is usable, and {what}"), None),
        };
        let firecracker = Some((program, version));
        return Ok(Choice { kind: VmmKind::Firecracker, accel: Accel::Kvm, chosen_because, warning, firecracker });
    }
    if facts.arch != "x86_64" {
        let message = format!("QEMU's microvm machine is x86_64's alone, and this is {}", facts.arch);
        let error = Error::new(Code::VmmFailed, message).hint("Firecracker runs on x86_64 and aarch64, with KVM");
        return Err(without.or(no_kvm).into_iter().fold(error, Error::also));
    }
    let (accel, chosen_because) = match (no_kvm, without) {
        (Some(why), _) => (Accel::Tcg, format!("{why}, so the guest is emulated (TCG), 10 to 50 times slower")),
        (None, Some(without)) => (Accel::Kvm, format!("KVM is usable, and {without}")),
        (None, None) => (Accel::Kvm, "QEMU was asked for, and KVM is usable".to_owned()),
    };
    Ok(Choice { kind: VmmKind::Qemu, accel, chosen_because, warning: None, firecracker: None })
}

/// Why KVM runs no guest here, where it does not. On x86 never by the device node alone: a software KVM (`kvm_pvm`) opens,
/// makes VMs, and hangs every stock kernel.
fn why_no_kvm(facts: Facts<'_>) -> Option<String> {
    let needs = "the processor has neither vmx nor svm (/proc/cpuinfo)";
    let virtualizes = facts.virtualizes || facts.arch != "x86_64";
    Some(match (facts.kvm, virtualizes) {
        (Ok(()), true) => return None,
        (Ok(()), false) => format!("/dev/kvm opens, but {needs}, which a stock kernel needs"),
        (Err(std::io::ErrorKind::PermissionDenied), true) => {
            "/dev/kvm may not be opened (put yourself into the group kvm and log in again)".into()
        }
        (Err(std::io::ErrorKind::NotFound), true) => {
            let modules =
                if facts.arch == "x86_64" { "(load the kernel module kvm_intel or kvm_amd)" } else { "in this kernel" };
            format!("there is no /dev/kvm {modules}")
        }
        (Err(kind), true) => format!("/dev/kvm cannot be opened ({kind})"),
        (Err(_), false) => format!("{needs}, and so no KVM"),
    })
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

    const USABLE: Facts<'static> = Facts { arch: "x86_64", kvm: Ok(()), virtualizes: true };
    const EMULATED: Facts<'static> = Facts { virtualizes: false, ..USABLE };

    fn found() -> Result<(AbsPath, Version)> {
        Ok((AbsPath::new("/opt/firecracker")?, Version::parse("1.13.1")?))
    }

    fn missing() -> Result<(AbsPath, Version)> {
        Err(Error::new(Code::MissingProgram, "the program `firecracker` is not installed"))
    }

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
            for wanted in [VmmChoice::Auto, VmmChoice::Qemu] {
                let choice = decide(Facts { arch: "x86_64", kvm, virtualizes }, wanted, missing).unwrap();
                assert_eq!((choice.kind, choice.accel), (VmmKind::Qemu, accel), "{choice:?}");
                assert!(choice.chosen_because.contains(says), "{choice:?}");
                assert_eq!(accel == Accel::Tcg, choice.chosen_because.contains("slower"), "emulation is never silent");
            }
        }
    }

    #[test]
    fn firecracker_is_what_runs_where_it_can() {
        let never = || -> Result<(AbsPath, Version)> { panic!("it is looked for where it could not run") };
        let choice = decide(USABLE, VmmChoice::Auto, found).unwrap();
        assert_eq!((choice.kind, choice.accel, choice.warning), (VmmKind::Firecracker, Accel::Kvm, None));
        assert_eq!(choice.chosen_because, "KVM is usable, and Firecracker 1.13.1 is /opt/firecracker");
        let choice = decide(USABLE, VmmChoice::Auto, missing).unwrap();
        assert_eq!((choice.kind, choice.accel), (VmmKind::Qemu, Accel::Kvm));
        assert!(choice.chosen_because.contains("`firecracker` is not installed"), "{choice:?}");
        let choice = decide(USABLE, VmmChoice::Auto, || Version::parse("1.4.0").and_then(|_| found())).unwrap();
        assert!(choice.kind == VmmKind::Qemu && choice.chosen_because.contains("1.4.0 is too old"), "{choice:?}");
        assert_eq!(decide(EMULATED, VmmChoice::Auto, never).unwrap().accel, Accel::Tcg);
        assert_eq!(decide(USABLE, VmmChoice::Qemu, never).unwrap().kind, VmmKind::Qemu);
    }

    #[test]
    fn what_is_named_is_used_with_a_warning_or_is_an_error() {
        let choice = decide(EMULATED, VmmChoice::Firecracker, found).unwrap();
        assert_eq!((choice.kind, choice.accel), (VmmKind::Firecracker, Accel::Kvm));
        assert!(choice.warning.unwrap().contains("neither vmx nor svm") && choice.firecracker.is_some());
        assert_eq!(decide(USABLE, VmmChoice::Firecracker, found).unwrap().warning, None);
        assert_eq!(decide(USABLE, VmmChoice::Firecracker, missing).unwrap_err().code(), Code::MissingProgram);
    }

    #[test]
    fn other_architectures_have_firecracker_alone() {
        let arm = Facts { arch: "aarch64", kvm: Ok(()), virtualizes: false };
        assert_eq!(decide(arm, VmmChoice::Auto, found).unwrap().kind, VmmKind::Firecracker);
        for (wanted, kvm) in [(VmmChoice::Auto, Ok(())), (VmmChoice::Auto, Err(NotFound)), (VmmChoice::Qemu, Ok(()))] {
            let e = decide(Facts { kvm, ..arm }, wanted, missing).unwrap_err();
            assert_eq!(e.code(), Code::VmmFailed);
        }
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
