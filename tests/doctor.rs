//! `bg-doctor` as it runs: on a host whose programs only pretend, and on images whose kernels and initrds are damaged in
//! every way that it has to name. And the same check at a VM's start.

#![allow(clippy::disallowed_types)]

use crate::support::fixture::{self, Files, RELEASE};
use crate::support::{Done, Sandbox, children, finish};
use lib_common::doc::{Check, Report, Setting, strict};
use lib_common::error::Code;
use lib_machine::config::KEYS;
use std::fs::{create_dir, read, remove_file, write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A host with programs of its own: some pretend, and the others are links to this host's.
struct Host {
    sandbox: Sandbox,
}

const REAL: [&str; 6] = ["mke2fs", "e2fsck", "resize2fs", "debugfs", "ssh", "sh"];

impl Host {
    fn new() -> Self {
        let host = Host { sandbox: Sandbox::new() };
        create_dir(host.bin("")).unwrap();
        let qemu = format!("qemu-system-{}", std::env::consts::ARCH);
        host.fake(
            &qemu,
            "case $1 in -M) echo 'microvm   microvm (i386)';; *) echo 'QEMU emulator version 10.0.2';; esac",
        );
        host.fake("vhost-device-vsock", "echo vhost-device-vsock 0.3.0");
        host.fake("mmdebstrap", "echo mmdebstrap 1.3.5");
        // So the tests need no range of ids of their own.
        for program in ["fakechroot", "fakeroot"] {
            host.fake(program, "exit 1");
        }
        host.fake("guest-agent", "exit 1");
        let path = std::env::var_os("PATH").unwrap();
        for name in REAL {
            let mut dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
            let found: PathBuf = dirs.find_map(|dir| Some(dir.join(name)).filter(|p| p.is_file())).unwrap();
            symlink(found, host.bin(name)).unwrap();
        }
        host
    }

    fn bin(&self, name: &str) -> PathBuf {
        self.sandbox.path("bin").join(name)
    }

    fn fake(&self, name: &str, script: &str) {
        write(self.bin(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(self.bin(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, tool: &str, args: &[&str]) -> Command {
        let mut command = self.sandbox.command(tool, args);
        command.env("PATH", self.bin("")).env("BG_GUEST_AGENT", self.bin("guest-agent"));
        command
    }

    /// Its report. The exit status says what the report does, and every failure what mends it.
    #[track_caller]
    fn report(&self, args: &[&str]) -> Report {
        let done = finish(self.command("bg-doctor", args).spawn().unwrap(), b"");
        assert_eq!(done.stderr, "");
        let text = done.text();
        let report: Report = strict(text.trim_end_matches('\n')).unwrap_or_else(|e| panic!("{e}: {done:?}"));
        assert_eq!(done.exit, i32::from(!report.ok), "{done:?}");
        assert_eq!(report.ok, report.checks.iter().all(|check| check.ok));
        for check in &report.checks {
            assert!(check.ok || check.fix.as_ref().is_some_and(|fix| !fix.is_empty()), "{check:?}");
        }
        report
    }

    /// Makes it a host without that program, and back.
    fn without(&self, name: &str) -> Report {
        let kept = self.sandbox.path("kept");
        std::fs::rename(self.bin(name), &kept).unwrap();
        let report = self.report(&[]);
        std::fs::rename(&kept, self.bin(name)).unwrap();
        report
    }
}

#[track_caller]
fn of<'a>(report: &'a Report, name: &str) -> &'a Check {
    report.checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("{name}: {report:?}"))
}

fn failed(report: &Report) -> Vec<&str> {
    report.checks.iter().filter(|check| !check.ok).map(|check| check.name.as_str()).collect()
}

#[test]
fn a_host_that_has_everything_passes_and_is_left_as_it_was() {
    let host = Host::new();
    let report = host.report(&[]);
    assert_eq!((report.subject.as_str(), report.ok, failed(&report)), ("host", true, vec![]), "{report:?}");
    for name in ["kvm", "firecracker", "tun", "bridge", "nft", "reflink", "state_space", "cache_space", "images"] {
        of(&report, name);
    }
    assert!(of(&report, "e2fsprogs").message.contains("libarchive"));
    assert!(!report.timings.is_empty());
    host.sandbox.assert_untouched("bg-doctor");
    let table = finish(host.command("bg-doctor", &["--output", "table"]).spawn().unwrap(), b"").ok();
    assert!(table.starts_with("CHECK ") && table.contains("\nfirecracker ") && table.contains("FIX"), "{table}");
}

#[test]
fn a_program_that_is_missing_fails_with_a_command_that_installs_it() {
    let host = Host::new();
    let qemu = format!("qemu-system-{}", std::env::consts::ARCH);
    for (program, name, fix) in [
        (qemu.as_str(), "qemu", "apt-get install -t bookworm-backports qemu-system-"),
        ("vhost-device-vsock", "vhost_device_vsock", "cargo install vhost-device-vsock"),
        ("mmdebstrap", "mmdebstrap", "apt-get install mmdebstrap"),
    ] {
        let report = host.without(program);
        assert_eq!(failed(&report), [name], "{report:?}");
        assert!(of(&report, name).fix.as_ref().is_some_and(|f| f.contains(fix)), "{report:?}");
    }
    // An ordinary user's PATH lacks the directory of administrators' programs, where they are found all the same.
    if Path::new("/usr/sbin/mke2fs").is_file() {
        let report = host.without("mke2fs");
        assert_eq!(failed(&report), Vec::<&str>::new());
        assert!(of(&report, "e2fsprogs").message.contains("/usr/sbin/mke2fs"), "{report:?}");
    }
    remove_file(host.bin("mke2fs")).unwrap();
    host.fake("mke2fs", "echo 'mke2fs 1.47.0 (5-Feb-2023)' >&2; [ \"$1\" = -V ]");
    let report = host.report(&[]);
    assert_eq!(failed(&report), ["e2fsprogs"]);
    assert!(of(&report, "e2fsprogs").message.contains("1.47.1"), "{report:?}");
    host.fake(&qemu, "echo 'QEMU emulator version 10.0.2'");
    assert_eq!(failed(&host.report(&[])), ["qemu", "e2fsprogs"], "a QEMU without the machine");
    host.fake(&qemu, "echo broken >&2; exit 127");
    assert!(of(&host.report(&[]), "qemu").message.contains("broken"));
}

#[test]
fn a_firecracker_that_is_known_to_be_bad_is_named() {
    let host = Host::new();
    let seen = || of(&host.report(&[]), "firecracker").clone();
    assert!(seen().message.contains("not installed"));
    for (version, words) in [
        ("v1.9.0", vec!["1.10.0 is the oldest"]),
        ("v1.12.0", vec!["1.12.0", "vsock", "snapshot"]),
        ("v1.14.3", vec!["vsock", "virtio-pci"]),
        ("v1.15.0", vec!["vsock", "virtio-pci"]),
        ("v1.16.0", vec!["vsock"]),
    ] {
        host.fake("firecracker", &format!("echo 'Firecracker {version}'"));
        let check = seen();
        assert!(words.iter().all(|word| check.message.contains(word)), "{version}: {check:?}");
        assert!(check.ok && check.fix.as_ref().is_some_and(|fix| fix.contains("v1.16.1")), "{check:?}");
    }
    host.fake("firecracker", "echo 'Firecracker v1.16.1'");
    assert_eq!(seen().fix, None);
}

#[test]
fn each_setting_is_printed_with_its_origin() {
    let sandbox = Sandbox::new();
    let print = |args: &[&str]| {
        let mut command = sandbox.command("bg-doctor", &[&["--print-config"], args].concat());
        finish(command.env("BG_VCPU", "3").spawn().unwrap(), b"").ok()
    };
    let settings: Vec<Setting> = print(&[]).lines().map(|line| strict(line).unwrap()).collect();
    let keys: Vec<&str> = settings.iter().map(|setting| setting.key.as_str()).collect();
    assert_eq!(keys, KEYS.iter().map(|(key, ..)| *key).collect::<Vec<_>>());
    let vcpu = settings.iter().find(|setting| setting.key == "vcpu").unwrap();
    assert_eq!((vcpu.value.as_deref(), vcpu.origin.as_str()), (Some("3"), "BG_VCPU"));
    let table = print(&["--output", "table"]);
    let row = table.lines().find(|line| line.starts_with("state_dir ")).unwrap();
    assert!(row.contains(sandbox.path("state").to_str().unwrap()) && row.ends_with("BG_STATE_DIR"), "{table}");
    sandbox.assert_untouched("bg-doctor --print-config");
}

/// A kernel module of that release (elf(5)): sections `""`, `.modinfo`, `.shstrtab`.
fn module(release: &str, depends: &str) -> Vec<u8> {
    let (names, info) = (b"\0.modinfo\0.shstrtab\0", format!("depends={depends}\0vermagic={release} SMP\0"));
    let mut elf = fixture::kernel("");
    elf.truncate(64);
    let table = 64 + names.len() + info.len();
    elf[32..40].fill(0);
    elf[40..48].copy_from_slice(&(table as u64).to_le_bytes());
    for (at, value) in [(56, 0_u16), (58, 64), (60, 3), (62, 2)] {
        elf[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    elf.extend(names.iter().copied().chain(info.bytes()));
    for (name, offset, size) in [(0_u32, 0, 0), (1, 64 + names.len(), info.len()), (10, 64, names.len())] {
        let mut section = [0; 64];
        section[..4].copy_from_slice(&name.to_le_bytes());
        section[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
        section[32..40].copy_from_slice(&(size as u64).to_le_bytes());
        elf.extend(section);
    }
    elf
}

const MODULES: [(&str, &str); 9] = [
    ("virtio", ""),
    ("virtio_ring", ""),
    ("virtio_mmio", "virtio_ring,virtio"),
    ("virtio_blk", "virtio"),
    ("virtio_net", "virtio"),
    ("virtio-rng", "virtio"),
    ("vsock", ""),
    ("vmw_vsock_virtio_transport_common", "vsock"),
    ("vmw_vsock_virtio_transport", "vmw_vsock_virtio_transport_common"),
];

/// A base initrd of modules for that release.
fn initrd(release: &str, modules: &[(&str, &str)]) -> Vec<u8> {
    let list: String = modules.iter().map(|(name, _)| format!("{name}.ko\n")).collect();
    let bytes: Vec<(String, Vec<u8>)> =
        modules.iter().map(|(name, depends)| (format!("banger/modules/{name}.ko"), module(release, depends))).collect();
    let mut files: Vec<(&str, &[u8])> = vec![("init", b"agent"), ("banger/modules/list", list.as_bytes())];
    files.extend(bytes.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
    fixture::initrd(&files)
}

/// A store with the image `a`: a kernel with ext4 built in, and the rest as modules.
fn store() -> Sandbox {
    let sandbox = Sandbox::new();
    let files = Files::new(&sandbox, "a");
    write(files.path("initrd"), initrd(RELEASE, &MODULES)).unwrap();
    let tree = files.path("lib/modules").join(RELEASE);
    std::fs::create_dir_all(&tree).unwrap();
    write(tree.join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
    let mut doc = files.document();
    doc["kernel"]["modules"] = tree.to_str().unwrap().into();
    doc["kernel"]["digests"]["modules"] = lib_common::digest::of_tree(&tree).unwrap().as_str().into();
    sandbox.run("bg-register", &["--name", "a"], doc.to_string()).ok();
    sandbox
}

#[track_caller]
fn image_report(sandbox: &Sandbox, args: &[&str]) -> Report {
    let done: Done = sandbox.run("bg-doctor", &[&["--image", "a"], args].concat(), "");
    let report: Report = strict(done.text().trim_end_matches('\n')).unwrap_or_else(|e| panic!("{e}: {done:?}"));
    assert_eq!((done.exit, report.subject.as_str()), (i32::from(!report.ok), "image a"), "{done:?}");
    for check in report.checks.iter().filter(|check| !check.ok) {
        let fix = check.fix.as_deref().unwrap_or_default();
        let mends = ["bg-kernel build | bg-image reconcile --kernel - a", "bg-image reconcile a"];
        assert!(mends.contains(&fix) || fix.contains("the kernel's command line"), "{check:?}");
    }
    report
}

/// A file of the image, what to make of its bytes, and the checks that fail then, the first of which says why.
type Damage = (&'static str, fn(Vec<u8>) -> Vec<u8>, &'static [&'static str], &'static str);

const DAMAGES: [Damage; 11] = [
    ("vmlinux", |_| b"MZ\0\0 a bzImage is a PE program, too".to_vec(), &["kernel_format", "pvh_note"], "PE program"),
    ("vmlinux", |_| vec![], &["kernel_format", "pvh_note"], "an empty file"),
    (
        "vmlinux",
        |mut elf| {
            // The note's type.
            elf[128] = 17;
            elf
        },
        &["pvh_note"],
        "CONFIG_PVH",
    ),
    ("vmlinux", |_| fixture::kernel("6.2.0-other"), &["module_version", "recorded_release"], "6.2.0-other"),
    ("initrd", |bytes| bytes[..bytes.len() / 2].to_vec(), UNREADABLE, "cut off after"),
    ("initrd", |bytes| [b"\x02\x21\x4c\x18".to_vec(), bytes].concat(), UNREADABLE, "LZ4 legacy"),
    ("initrd", |bytes| [b"\x1f\x8b\x08\x00".to_vec(), bytes].concat(), UNREADABLE, "gzip"),
    ("initrd", |_| initrd(RELEASE, &MODULES[..6]), &["vsock_modules"], "nobody could reach the guest"),
    ("initrd", |_| initrd(RELEASE, &MODULES[4..]), &["virtio_modules", "module_order"], "wait for its disks"),
    ("initrd", |_| initrd("6.1.0-old", &MODULES), &["module_version"], "6.1.0-old"),
    ("initrd", |_| fixture::initrd(&[]), &["initrd_format", "virtio_modules", "vsock_modules"], "no /init"),
];

const UNREADABLE: &[&str] = &[
    "initrd_format",
    "initrd_padding",
    "virtio_modules",
    "ext4_module",
    "vsock_modules",
    "net_module",
    "rng_module",
    "module_order",
    "module_version",
];

#[test]
fn whatever_would_hang_an_image_is_named_with_its_mend() {
    let sandbox = store();
    let good = image_report(&sandbox, &[]);
    assert!(good.ok && good.checks.iter().all(|check| check.fix.is_none()), "{good:?}");
    assert!(of(&good, "module_version").message.contains(RELEASE));
    assert!(of(&good, "initrd_padding").message.contains("whole pages"));
    for (file, damage, names, says) in DAMAGES {
        let path = sandbox.state("images/a").join(file);
        let bytes = read(&path).unwrap();
        write(&path, damage(bytes.clone())).unwrap();
        let report = image_report(&sandbox, &[]);
        assert_eq!(failed(&report), names, "{report:?}");
        assert!(of(&report, names[0]).message.contains(says), "{says}: {report:?}");
        remove_file(&path).unwrap();
        assert_eq!(failed(&image_report(&sandbox, &[])), [format!("{}_file", file.replace("vmlinux", "kernel"))]);
        write(&path, bytes).unwrap();
    }
    std::fs::remove_dir_all(sandbox.state("images/a/modules")).unwrap();
    assert_eq!(failed(&image_report(&sandbox, &[])), ["module_tree"]);
}

#[test]
fn a_command_line_is_checked_against_the_image() {
    let sandbox = store();
    let quiet = "i8042.noaux i8042.nomux i8042.dumbkbd";
    for (line, fails, better) in [
        (format!("console=ttyS0 {quiet}"), vec![], vec![]),
        (format!("console=ttyS0 nomodule {quiet}"), vec!["nomodule"], vec![]),
        (quiet.to_owned(), vec!["console"], vec![]),
        ("console=ttyS0".to_owned(), vec![], vec!["i8042"]),
        (String::new(), vec!["console"], vec!["i8042"]),
    ] {
        let report = image_report(&sandbox, &["--command-line", &line]);
        assert_eq!(failed(&report), fails, "{line}: {report:?}");
        let costs: Vec<&str> =
            report.checks.iter().filter(|c| c.ok && c.fix.is_some()).map(|c| c.name.as_str()).collect();
        assert_eq!(costs, better, "{line}: {report:?}");
    }
}

#[test]
fn a_kernel_with_everything_built_in_has_no_findings() {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "a");
    let report = image_report(&sandbox, &[]);
    assert!(report.ok && of(&report, "virtio_modules").message.contains("built into the kernel"), "{report:?}");
    let report = image_report(&sandbox, &["--command-line", "console=ttyS0 nomodule"]);
    assert!(report.ok, "nothing is there that `nomodule` could refuse: {report:?}");
    sandbox.run("bg-doctor", &["--image", "b"], "").failed_with(Code::NotFound);
}

#[test]
fn a_vm_that_would_hang_is_not_started_and_leaves_nothing() {
    let sandbox = store();
    let host = Host::new();
    write(sandbox.state("images/a/initrd"), initrd(RELEASE, &MODULES[..6])).unwrap();
    let mut command = sandbox.command("bg-vm", &["create", "dev", "--work-size", fixture::WORK]);
    for (variable, program) in [("BG_QEMU", "sh"), ("BG_VHOST_DEVICE_VSOCK", "vhost-device-vsock")] {
        // What a setting names may be no link.
        command.env(variable, host.bin(program).canonicalize().unwrap());
    }
    let doc = finish(command.spawn().unwrap(), b"").failed_with(Code::BootCheck);
    let said = format!("{} {:?}", doc.message, doc.causes);
    assert!(said.contains("`dev` would not boot: ") && said.contains("vsock"), "{doc:?}");
    assert!(doc.hint.is_some_and(|hint| hint.contains("bg-image reconcile --kernel - a, and make the VM anew")));
    assert_eq!(children(&sandbox.state("machines")), Vec::<PathBuf>::new());
    let found = sandbox.findings(&["--now"]);
    let [changed] = &found[..] else { panic!("{found:?}") };
    let said = changed["evidence"].as_str().unwrap();
    assert!(
        said.contains("initrd is not the file that was registered") && changed["is_leak"] == false,
        "the test's own doing: {said}"
    );
}
