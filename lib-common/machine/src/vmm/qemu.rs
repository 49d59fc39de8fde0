//! QEMU's microvm machine: its command line and that of the vsock device beside it. Pure functions; starts nothing.
//!
//! Sources: qemu(1), QEMU's docs/system/i386/microvm.rst.

use super::{beside_its_parent, cmdline, files};
use lib_common::doc::{Accel, Launch};
use lib_common::sys::cmd::Cmd;
use std::path::Path;

/// QEMU for one boot. Its stdin is the QMP monitor and its stdout the serial console, both sockets; so it inherits
/// nothing else, and nobody but its parent can speak to the monitor. `tsc_khz` is for [`cmdline::of`].
pub(super) fn command(launch: &Launch, tsc_khz: Option<u64>) -> Cmd {
    let run = |file: &str| launch.runtime_dir.join(file);
    let memory = launch.memory_mib;
    let cmd = beside_its_parent(&launch.vmm_program)
        // The id is here for audits: it says whose process this is, also when every record is lost.
        .args(["-name", &format!("banger:{}:{}", launch.name, launch.machine_id)])
        // ACPI, since Debian's kernel takes no virtio-mmio devices from its command line. No PIC and no PIT: the
        // kernel sees in ACPI that it need not set up a PIC, and what an unset PIC delivers is vector 0, a divide error.
        // The guest's memory holds its secrets, and goes into no core dump.
        .args(["-M", "microvm,acpi=on,pit=off,pic=off,memory-backend=m,dump-guest-core=off"])
        // vhost-user devices see the guest's memory, so it is shared.
        .args(["-object", &format!("memory-backend-memfd,id=m,size={memory}M,share=on")])
        .args(accel(launch.accel))
        .args(["-smp", &launch.vcpu.to_string(), "-m", &format!("{memory}M")])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        // A reset ends QEMU, since the next boot needs an initrd of its own; and no instruction of the guest runs
        // before its parent listens to events (`cont`).
        .args(["-no-reboot", "-S"])
        .args(["-chardev", "socket,id=qmp,fd=0", "-mon", "chardev=qmp,mode=control"])
        .args(["-chardev", "socket,id=console,fd=1", "-serial", "chardev:console"])
        .arg("-kernel")
        .arg(&*launch.kernel)
        .arg("-initrd")
        .arg(run(files::INITRD))
        .args(["-append", &cmdline::of(launch, tsc_khz)]);
    network(disks(cmd, launch), launch)
        .args(["-chardev", &format!("socket,id=vsock,path={}", value(&run(files::VHOST)))])
        .args(["-device", "vhost-user-vsock-device,chardev=vsock", "-device", "virtio-rng-device"])
}

/// vhost-device-vsock, which is `program`, for one boot.
pub(super) fn vsock_device(program: &Path, launch: &Launch) -> Cmd {
    // One option each, for the form `--vm a=b,c=d` has no way to write a comma that is part of a path.
    beside_its_parent(program)
        .args(["--guest-cid", &launch.cid.to_string()])
        .arg("--uds-path")
        .arg(launch.runtime_dir.join(files::VSOCK))
        .arg("--socket")
        .arg(launch.runtime_dir.join(files::VHOST))
}

fn accel(accel: Accel) -> [&'static str; 4] {
    match accel {
        Accel::Kvm => ["-accel", "kvm", "-cpu", "host"],
        // Nested virtualization cannot be emulated at any speed worth having, and probing for it takes time. Without "fast
        // string operations" the kernel copies and clears by eight bytes, which are emulated as fast as one.
        Accel::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max,svm=off,vmx=off,erms=off,fsrm=off"],
    }
}

/// The guest sees them in this order: vda, vdb, ….
fn disks(cmd: Cmd, launch: &Launch) -> Cmd {
    launch.disks.iter().enumerate().fold(cmd, |cmd, (i, disk)| {
        // With `writeback` a guest's flush is an fdatasync of the file; `unmap` gives back what its fstrim frees.
        let mode = if disk.read_only { "read-only=on" } else { "cache=writeback,discard=unmap" };
        cmd.args(["-drive", &format!("id=disk{i},if=none,format=raw,{mode},file={}", value(&disk.path))])
            // A write that fails stops the guest and is kept: the shim lets it go on (`shim::pause`). A failed read is the guest's.
            .args(["-device", &format!("virtio-blk-device,drive=disk{i},werror=stop,rerror=report")])
    })
}

/// The guest's `eth0`.
fn network(cmd: Cmd, launch: &Launch) -> Cmd {
    let Some(net) = &launch.net else { return cmd };
    // The TAP is there and set up; QEMU runs no scripts for it.
    cmd.args(["-netdev", &format!("tap,id=net0,ifname={},script=no,downscript=no", net.tap)])
        .args(["-device", &format!("virtio-net-device,netdev=net0,mac={}", net.mac)])
}

/// A path as the value of an option, where a comma is written twice.
fn value(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use lib_common::doc::{AbsPath, LaunchDisk, LaunchNet, Mac, Name, VmmKind};

    /// A VM that nothing starts.
    pub(in crate::vmm) fn example() -> Launch {
        let path = |p: &str| AbsPath::new(p).unwrap();
        let disk = |p: &str, read_only| LaunchDisk { path: path(p), read_only };
        Launch {
            machine_id: "0123456789abcdef0123456789abcdef".into(),
            name: Name::parse("dev").unwrap(),
            kind: VmmKind::Qemu,
            accel: Accel::Tcg,
            chosen_because: "it is an example".into(),
            vcpu: 2,
            memory_mib: 1024,
            kernel: path("/k/vmlinux"),
            initrd: path("/k/initrd"),
            disks: vec![disk("/m/root.ext4", false), disk("/m/modules.ext4", true)],
            net: None,
            cid: 3,
            runtime_dir: path("/run/banger/0123456789ab"),
            console: path("/m/console.log"),
            console_bytes: 4 << 20,
            exit_file: path("/m/exit.json"),
            log: path("/m/shim.log"),
            vmm_program: path("/usr/bin/qemu-system-x86_64"),
            vmm_version: None,
            vsock_program: Some(path("/usr/bin/vhost-device-vsock")),
            kernel_args: Default::default(),
            boot_timeout_ms: 60_000,
        }
    }

    #[test]
    fn the_command_line_of_an_emulated_vm() {
        let expected = "/usr/bin/qemu-system-x86_64 -name banger:dev:0123456789abcdef0123456789abcdef \
            -M microvm,acpi=on,pit=off,pic=off,memory-backend=m,dump-guest-core=off -object memory-backend-memfd,id=m,size=1024M,share=on \
            -accel tcg,thread=multi -cpu max,svm=off,vmx=off,erms=off,fsrm=off -smp 2 -m 1024M \
            -nodefaults -no-user-config -display none -no-reboot -S \
            -chardev socket,id=qmp,fd=0 -mon chardev=qmp,mode=control \
            -chardev socket,id=console,fd=1 -serial chardev:console \
            -kernel /k/vmlinux -initrd /run/banger/0123456789ab/initrd \
            -append 'console=ttyS0 reboot=t panic=-1 quiet net.ifnames=0 8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.dumbkbd \
            cryptomgr.notests nokaslr mitigations=off tsc_early_khz=2596138 tsc=reliable' \
            -drive id=disk0,if=none,format=raw,cache=writeback,discard=unmap,file=/m/root.ext4 \
            -device virtio-blk-device,drive=disk0,werror=stop,rerror=report \
            -drive id=disk1,if=none,format=raw,read-only=on,file=/m/modules.ext4 \
            -device virtio-blk-device,drive=disk1,werror=stop,rerror=report \
            -chardev socket,id=vsock,path=/run/banger/0123456789ab/vhost.sock \
            -device vhost-user-vsock-device,chardev=vsock -device virtio-rng-device";
        assert_eq!(command(&example(), Some(2_596_138)).to_shell(), expected);
    }

    #[test]
    fn with_kvm_the_processor_is_the_hosts_and_its_work_arounds_stay() {
        let argv = command(&Launch { accel: Accel::Kvm, ..example() }, Some(2_596_138)).to_shell();
        assert!(argv.contains(" -accel kvm -cpu host "), "{argv}");
        assert!(
            !argv.contains("mitigations")
                && !argv.contains("nokaslr")
                && !argv.contains("tsc")
                && !argv.contains("tcg"),
            "{argv}"
        );
    }

    #[test]
    fn a_network_card_is_the_tap_that_it_was_given() {
        let mac = Mac::new([2, 0, 0, 0, 0, 1]);
        let net = LaunchNet { tap: "tap-pool-7".into(), mac, network_dir: AbsPath::new("/n").unwrap() };
        let argv = command(&Launch { net: Some(net), ..example() }, None).to_shell();
        let card = " -netdev tap,id=net0,ifname=tap-pool-7,script=no,downscript=no \
            -device virtio-net-device,netdev=net0,mac=02:00:00:00:00:01 ";
        assert!(argv.contains(card), "{argv}");
    }

    #[test]
    fn a_comma_in_a_path_does_not_end_it() {
        let mut launch = example();
        launch.disks.truncate(1);
        launch.disks[0].path = AbsPath::new("/m/a,readonly=on/root.ext4").unwrap();
        launch.runtime_dir = AbsPath::new("/r,x/0123456789ab").unwrap();
        let argv = command(&launch, None).argv();
        assert!(argv.iter().any(|a| a.ends_with("file=/m/a,,readonly=on/root.ext4")), "{argv:?}");
        assert!(argv.iter().any(|a| a.ends_with("path=/r,,x/0123456789ab/vhost.sock")), "{argv:?}");
        assert!(argv.iter().any(|a| a == "/r,x/0123456789ab/initrd"), "-initrd takes a plain path: {argv:?}");
    }

    #[test]
    fn the_command_line_of_the_vsock_device() {
        let expected = "/usr/bin/vhost-device-vsock --guest-cid 3 --uds-path /run/banger/0123456789ab/vm.vsock \
            --socket /run/banger/0123456789ab/vhost.sock";
        assert_eq!(vsock_device(Path::new("/usr/bin/vhost-device-vsock"), &example()).to_shell(), expected);
    }
}
