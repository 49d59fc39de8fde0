//! The guest kernel's command line, written whole for each VMM. Pure functions.
//!
//! Sources: the kernel's Documentation/admin-guide/kernel-parameters.txt; Firecracker's docs/kernel-policy.md.

use lib_common::doc::{Accel, KernelArgs, Launch, VmmKind};

/// For one boot of that VM. `tsc_khz`: how fast this host's TSC counts, where that is known.
pub(super) fn of(launch: &Launch, tsc_khz: Option<u64>) -> String {
    line(launch.kind, launch.accel, tsc_khz, &launch.kernel_args)
}

/// For any VM.
pub(super) fn line(vmm: VmmKind, accel: Accel, tsc_khz: Option<u64>, args: &KernelArgs) -> String {
    match vmm {
        VmmKind::Qemu => qemu(accel, tsc_khz, args),
        VmmKind::Firecracker => firecracker(std::env::consts::ARCH, args),
    }
}

/// Address randomisation and work-arounds for processors' flaws cost 0.2 s a boot under emulation, and emulated
/// processors have no such flaws.
const EMULATED: &str = "nokaslr mitigations=off";

/// For QEMU's microvm machine.
fn qemu(accel: Accel, tsc_khz: Option<u64>, args: &KernelArgs) -> String {
    // A reset by triple fault is the one that the machine surely has.
    let common = x86("t");
    let line = match (accel, tsc_khz) {
        // Its clock comes from the host (kvm-clock), and so does the speed of its TSC.
        (Accel::Kvm, _) => common,
        // An emulated TSC counts as fast as the host's. A guest has no clock to measure that by: it gave up on a busy
        // host, and then waited without end for a timer. A wrong number makes its clock run wrong.
        // `reliable`, because the kernel would else compare it with timer ticks, which a busy host makes late, call it
        // unstable, and keep time by those ticks: seconds behind within a minute.
        (Accel::Tcg, Some(khz)) => format!("{common} {EMULATED} tsc_early_khz={khz} tsc=reliable"),
        (Accel::Tcg, None) => format!("{common} {EMULATED}"),
    };
    appended(line, args)
}

/// For Firecracker, whose own defaults are dropped when a line is given. One of them, `nomodule`, would keep the drivers out
/// that the initrd has; ACPI stays on, since Debian's kernel finds its devices by that alone. To the line it appends
/// `pci=off` and, on x86_64, where its devices are.
fn firecracker(arch: &str, args: &KernelArgs) -> String {
    let line = match arch {
        // A reset through the keyboard controller is what Firecracker exits on. No device needs memory below a limit.
        "x86_64" => format!("{} swiotlb=noforce", x86("k")),
        // It has neither; PSCI resets it.
        _ => "console=ttyS0 panic=-1 quiet net.ifnames=0 cryptomgr.notests".to_owned(),
    };
    appended(line, args)
}

/// What both have on x86: the console is the log; a panic is a reset, at once; the one card stays eth0, since nobody renames
/// what `/init` has set up; of self-tests, of serial ports that are not
/// there, and of what a keyboard controller has nothing of behind it nobody has a use, and to look for it takes time.
fn x86(reboot: &str) -> String {
    format!(
        "console=ttyS0 reboot={reboot} panic=-1 quiet net.ifnames=0 8250.nr_uarts=1 i8042.noaux i8042.nomux \
         i8042.dumbkbd cryptomgr.notests"
    )
}

/// Last: of two words that contradict each other the kernel takes the later one.
fn appended(line: String, args: &KernelArgs) -> String {
    if args.is_empty() { line } else { format!("{line} {args}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_for_firecracker_replaces_all_of_its_defaults() {
        let none = KernelArgs::default();
        let expected = "console=ttyS0 reboot=k panic=-1 quiet net.ifnames=0 8250.nr_uarts=1 i8042.noaux i8042.nomux \
            i8042.dumbkbd cryptomgr.notests swiotlb=noforce";
        assert_eq!(firecracker("x86_64", &none), expected);
        for arch in ["x86_64", "aarch64"] {
            let line = firecracker(arch, &none);
            assert!(["nomodule", "acpi=off", "pci=", "root="].iter().all(|word| !line.contains(word)), "{line}");
        }
        assert!(!firecracker("aarch64", &none).contains("i8042"));
    }

    #[test]
    fn what_is_appended_stands_last_and_fits() {
        let args = KernelArgs::parse("panic=1 debug").unwrap();
        assert!(firecracker("x86_64", &args).ends_with(" panic=1 debug"));
        assert!(qemu(Accel::Tcg, Some(2_000_000), &args).ends_with(" tsc=reliable panic=1 debug"));
        // COMMAND_LINE_SIZE is 2,048 on both architectures, the NUL included. For each device Firecracker appends
        // ` virtio_mmio.device=4K@0xc0001000:5`, and ` pci=off` once.
        let longest = KernelArgs::parse(&"x".repeat(1024)).unwrap();
        let by_firecracker = 10 * " virtio_mmio.device=4K@0xffffffff:999".len() + " pci=off".len();
        assert!(firecracker("x86_64", &longest).len() + by_firecracker < 2048);
        assert!(qemu(Accel::Tcg, Some(99_999_999), &longest).len() < 2048);
    }
}
