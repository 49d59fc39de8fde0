use super::network::Bridge;
use super::programs::{Found, Lookup};
use super::version::{Version, firecracker_faults};
use super::*;
use lib_common::doc::{AbsPath, Accel, Digest, Document, Kind, Name, Rootfs, Seed, SeedSize, VmmKind};
use lib_common::error::{Code, Error};
use lib_machine::vmm::Choice;
use std::io::ErrorKind::{NotFound, Other, PermissionDenied};
use std::path::Path;

const ROOT: &str = "root";

fn caller(name: &str) -> Caller {
    Caller { name: name.into(), root: name == ROOT }
}

/// What every check keeps: one that has not passed says what mends it, and to root nothing says `sudo`.
#[track_caller]
fn sound(check: &Check, caller: &Caller) {
    assert!(check.ok || check.fix.is_some(), "{check:?}");
    let fix = check.fix.clone().unwrap_or("x".into());
    assert!(!fix.is_empty() && !check.message.is_empty(), "{check:?}");
    assert!(!(caller.root && fix.contains("sudo ")), "{check:?}");
}

fn kvm(accel: Accel) -> kvm::Facts {
    let chosen_because = "it is a test".into();
    let choice = Choice { kind: VmmKind::Qemu, accel, chosen_because, warning: None, firecracker: None };
    kvm::Facts {
        choice: Ok(choice),
        device: Ok(()),
        group: Some("kvm".into()),
        member: false,
        cpu: vec!["fpu".into()],
        modules: vec!["kvm"],
    }
}

type KvmCase = (fn(&mut kvm::Facts), &'static str, &'static str);

#[test]
fn why_guests_are_emulated_is_told_with_what_mends_it() {
    let cases: &[KvmCase] = &[
        (|f| f.modules.push("kvm_pvm"), "software KVM (kvm_pvm)", "nested=1"),
        (|f| (f.device, f.modules) = (Err(NotFound), vec!["kvm_pvm"]), "there is a software KVM", "nested=1"),
        (|f| f.cpu.push("hypervisor".into()), "nesting off", "nested=1"),
        (|f| f.device = Err(NotFound), "firmware", "sudo systemctl reboot --firmware-setup"),
        (
            |f| (f.cpu, f.device) = (vec!["vmx".into()], Err(NotFound)),
            "kvm_intel is not loaded",
            "sudo modprobe kvm_intel",
        ),
        (|f| (f.cpu, f.device) = (vec!["svm".into()], Err(NotFound)), "kvm_amd is not loaded", "sudo modprobe kvm_amd"),
        (
            |f| (f.cpu, f.device, f.modules) = (vec!["svm".into()], Err(NotFound), vec!["kvm_amd"]),
            "though kvm_amd is loaded",
            "sudo modprobe kvm_amd",
        ),
        (
            |f| (f.cpu, f.device) = (vec!["vmx".into()], Err(PermissionDenied)),
            "jo is not in the group kvm",
            "sudo usermod -aG kvm jo && newgrp kvm",
        ),
        (
            |f| (f.cpu, f.device, f.member) = (vec!["vmx".into()], Err(PermissionDenied), true),
            "this session began before",
            "newgrp kvm",
        ),
        (
            |f| (f.cpu, f.device, f.group) = (vec!["vmx".into()], Err(PermissionDenied), None),
            "by root alone",
            "sudo chown root:kvm /dev/kvm && sudo chmod 660 /dev/kvm",
        ),
        (|f| (f.cpu, f.device) = (vec!["vmx".into()], Err(Other)), "cannot be opened", "sudo modprobe kvm_intel"),
    ];
    for (change, says, fix) in cases {
        let mut facts = kvm(Accel::Tcg);
        change(&mut facts);
        let found = kvm::checks(&facts, &caller("jo"));
        let [check] = &found[..] else { panic!("{found:?}") };
        sound(check, &caller("jo"));
        assert!(check.ok, "VMs run all the same: {check:?}");
        assert!(check.message.contains(says) && check.message.contains("slower"), "{says}: {check:?}");
        assert!(check.fix.as_ref().is_some_and(|f| f.contains(fix)), "{fix}: {check:?}");
        let loads = check.fix.as_ref().unwrap().contains("modprobe kvm_");
        assert!(!loads || facts.cpu.iter().any(|flag| flag == "vmx" || flag == "svm"), "{check:?}");
    }
}

#[test]
fn kvm_is_usable_unless_it_is_a_software_one() {
    let mut facts = kvm(Accel::Kvm);
    (facts.cpu, facts.modules) = (vec!["vmx".into()], vec!["kvm", "kvm_intel"]);
    assert_eq!(kvm::checks(&facts, &caller(ROOT)), [Check::new("kvm", true, "KVM is usable", "")]);
    facts.modules = vec!["kvm", "kvm_pvm"];
    let check = &kvm::checks(&facts, &caller(ROOT))[0];
    sound(check, &caller(ROOT));
    assert!(!check.ok && check.fix.as_deref() == Some("modprobe -r kvm_pvm && modprobe kvm_intel"), "{check:?}");
    facts.cpu.clear();
    let fix = kvm::checks(&facts, &caller(ROOT))[0].fix.clone().unwrap();
    assert!(!fix.contains("modprobe"), "it has no module that could be loaded: {fix}");
    facts.choice = Err(Error::new(Code::VmmFailed, "no VMM of this suite runs on riscv64"));
    let check = &kvm::checks(&facts, &caller(ROOT))[0];
    assert!(!check.ok && check.message.contains("riscv64") && check.name == "architecture", "{check:?}");
}

#[test]
fn versions_are_found_in_what_programs_say() {
    for (text, version) in [
        ("Firecracker v1.12.0\n\nSupported snapshot data format versions: v5.0.0", Some(Version(1, 12, 0))),
        ("Firecracker v1.17.0-dev", Some(Version(1, 17, 0))),
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)", Some(Version(10, 0, 2))),
        ("mke2fs 1.47.2 (1-Jan-2025)\n\tUsing EXT2FS Library version 1.47.2", Some(Version(1, 47, 2))),
        ("mke2fs 1.46-WIP", Some(Version(1, 46, 0))),
        ("vhost-device-vsock 0.3.0", Some(Version(0, 3, 0))),
        ("OpenSSH_9.2p1 Debian-2+deb12u3", None),
        ("", None),
        ("v 1 .2 a.b.c 99999999999.1.1", None),
    ] {
        assert_eq!(Version::find(text), version, "{text}");
    }
}

#[test]
fn bad_releases_of_firecracker_are_known_to_the_patch() {
    let (silent, pci) = ("silent", "virtio-pci");
    for (version, faults) in [
        (Version(1, 10, 0), vec![silent]),
        (Version(1, 12, 9), vec![silent]),
        (Version(1, 13, 0), vec![silent, pci]),
        (Version(1, 14, 3), vec![silent, pci]),
        (Version(1, 14, 4), vec![silent]),
        (Version(1, 15, 0), vec![silent, pci]),
        (Version(1, 15, 1), vec![silent]),
        (Version(1, 16, 0), vec![silent]),
        (Version(1, 16, 1), vec![]),
        (Version(2, 0, 0), vec![]),
    ] {
        let found = firecracker_faults(version);
        assert_eq!(found.len(), faults.len(), "{version}: {found:?}");
        assert!(found.iter().zip(&faults).all(|(found, word)| found.contains(word)), "{version}: {found:?}");
    }
    for (said, word) in [
        (None, "not installed"),
        (Some(Err("exit 1".to_owned())), "does not run"),
        (Some(Ok("hello".to_owned())), "cannot be judged"),
        (Some(Ok("Firecracker v1.9.1".to_owned())), "1.10.0 is the oldest"),
        (Some(Ok("Firecracker v1.14.3".to_owned())), "CVE-2026-5747"),
    ] {
        let found = said.map(|said| Found { path: "/f".into(), said });
        let check = programs::firecracker(found.as_ref(), &caller("jo"));
        sound(&check, &caller("jo"));
        assert!(check.ok && check.message.contains(word), "{check:?}");
        let fix = check.fix.unwrap();
        assert!(fix.contains("/v1.16.1/") && fix.contains("| sudo install "), "{fix}");
    }
    let good = Found { path: "/f".into(), said: Ok("Firecracker v1.16.1".into()) };
    assert_eq!(programs::firecracker(Some(&good), &caller("jo")).fix, None);
}

fn says(text: &str) -> Lookup {
    Ok(Found { path: "/p".into(), said: Ok(text.into()) })
}

fn missing(name: &str) -> Lookup {
    Err(lib_common::sys::program::missing(Path::new(name)))
}

fn programs() -> programs::Facts {
    programs::Facts {
        qemu: says("QEMU emulator version 10.0.2"),
        machines: "Supported machines are:\nmicrovm              microvm (i386)\n".into(),
        vsock: says("vhost-device-vsock 0.3.0"),
        vhost_vsock: false,
        firecracker: Some(Found { path: "/f".into(), said: Ok("Firecracker v1.16.1".into()) }),
        mke2fs: says("mke2fs 1.47.2 (1-Jan-2025)"),
        tar: None,
        e2fsprogs: None,
        mmdebstrap: says("mmdebstrap 1.3.5"),
        user: None,
        ssh: says("OpenSSH_9.2p1, OpenSSL 3.0.15"),
        suite: None,
    }
}

#[test]
fn nobody_misses_qemu_where_vms_run_on_firecracker() {
    let facts =
        programs::Facts { qemu: missing("qemu-system-x86_64"), vsock: missing("vhost-device-vsock"), ..programs() };
    for (vmm, fails) in [(VmmKind::Qemu, 2), (VmmKind::Firecracker, 0)] {
        let checks = programs::checks(&facts, vmm, &caller("jo"));
        assert_eq!(checks.iter().filter(|check| !check.ok).count(), fails, "{checks:?}");
        assert_eq!(
            checks.iter().filter(|check| check.fix.is_some()).count(),
            2,
            "how to have them is told: {checks:?}"
        );
    }
}

type ProgramCase = (&'static str, fn(&mut programs::Facts), &'static str, &'static str);

#[test]
fn a_program_that_is_missing_or_too_old_is_a_failure_with_its_package() {
    let good = programs::checks(&programs(), VmmKind::Qemu, &caller("jo"));
    assert!(good.iter().all(|check| check.ok && check.fix.is_none()), "{good:?}");
    let cases: &[ProgramCase] = &[
        (
            "qemu",
            |f| f.qemu = missing("qemu-system-x86_64"),
            "not installed",
            "sudo apt-get install -t bookworm-backports qemu-system-x86",
        ),
        (
            "qemu",
            |f| f.qemu = Ok(Found { path: "/p".into(), said: Err("signal 11".into()) }),
            "signal 11",
            "sudo apt-get",
        ),
        ("qemu", |f| f.machines.clear(), "microvm", "qemu-system-x86"),
        (
            "vhost_device_vsock",
            |f| f.vsock = missing("vhost-device-vsock"),
            "nor is there a /dev/vhost-vsock",
            "cargo install",
        ),
        (
            "vhost_device_vsock",
            |f| (f.vsock, f.vhost_vsock) = (missing("vhost-device-vsock"), true),
            "is there, but is not used",
            "cargo install",
        ),
        ("e2fsprogs", |f| f.mke2fs = missing("mke2fs"), "not installed", "e2fsprogs libarchive13"),
        ("e2fsprogs", |f| f.mke2fs = says("mke2fs 1.47.0 (5-Feb-2023)"), "1.47.1", "-t bookworm-backports e2fsprogs"),
        ("e2fsprogs", |f| f.tar = Some("you need libarchive".into()), "libarchive", "libarchive13"),
        ("e2fsprogs", |f| f.e2fsprogs = missing("resize2fs").err(), "resize2fs", "e2fsprogs"),
        ("mmdebstrap", |f| f.mmdebstrap = missing("mmdebstrap"), "mmdebstrap", "sudo apt-get install mmdebstrap"),
        (
            "mmdebstrap",
            |f| f.user = Some(Error::new(Code::Permission, "no range of ids").hint("usermod --add-subuids 1-2 jo")),
            "no range",
            "sudo usermod --add-subuids",
        ),
        ("ssh", |f| f.ssh = missing("ssh"), "ssh", "openssh-client"),
        ("suite", |f| f.suite = Some(Error::new(Code::MissingFile, "no agent")), "no agent", "make build"),
    ];
    for (name, change, says, fix) in cases {
        for caller in [caller("jo"), caller(ROOT)] {
            let mut facts = programs();
            change(&mut facts);
            let checks = programs::checks(&facts, VmmKind::Qemu, &caller);
            checks.iter().for_each(|check| sound(check, &caller));
            let failed: Vec<&Check> = checks.iter().filter(|check| !check.ok).collect();
            let [check] = failed[..] else { panic!("{name}: {checks:?}") };
            assert!(check.name == *name && check.message.contains(says), "{check:?}");
            let fix = if caller.root { fix.trim_start_matches("sudo ") } else { fix };
            assert!(check.fix.as_ref().is_some_and(|f| f.contains(fix)), "{check:?}");
        }
    }
}

#[test]
fn what_a_network_lacks_keeps_no_vm_from_running() {
    let good = || network::Facts {
        tun: Ok(()),
        bridge: Bridge::Here,
        nft: says("nftables v1.0.6"),
        bridge_name: "bg-0".into(),
        dropping: Some(vec![]),
    };
    let clean = |facts: &network::Facts| network::checks(facts, &caller("jo")).iter().all(|check| check.fix.is_none());
    assert!(clean(&good()) && clean(&network::Facts { bridge: Bridge::Module, ..good() }));
    for (facts, name, fix) in [
        (network::Facts { tun: Err(NotFound), ..good() }, "tun", "sudo modprobe tun"),
        (network::Facts { tun: Err(PermissionDenied), ..good() }, "tun", "sudo chmod 666 /dev/net/tun"),
        (network::Facts { tun: Err(Other), ..good() }, "tun", "sudo modprobe tun"),
        (network::Facts { bridge: Bridge::Missing, ..good() }, "bridge", "sudo modprobe bridge"),
        (network::Facts { nft: missing("nft"), ..good() }, "nft", "sudo apt-get install nftables"),
    ] {
        let checks = network::checks(&facts, &caller("jo"));
        let better: Vec<&Check> = checks.iter().filter(|check| check.fix.is_some()).collect();
        let [check] = better[..] else { panic!("{checks:?}") };
        assert!(check.ok && check.name == name && check.message.contains("network card"), "{check:?}");
        assert_eq!(check.fix.as_deref(), Some(fix));
    }
}

#[test]
fn room_and_shared_blocks_are_judged_by_what_they_cost() {
    let dir = Path::new("/var/lib/banger");
    for (free, ok, fix) in [
        (None, false, true),
        (Some(0), false, true),
        (Some((1 << 30) - 1), false, true),
        (Some(1 << 30), true, true),
        (Some((8 << 30) - 1), true, true),
        (Some(8 << 30), true, false),
    ] {
        let check = storage::space("state_space", (dir, free), "bg-verify | bg-gc");
        assert_eq!((check.ok, check.fix.is_some()), (ok, fix), "{check:?}");
    }
    for (shares, ok, fix) in [
        (Ok(true), true, None),
        (Ok(false), true, Some("sudo mkfs.btrfs")),
        (Err(Error::new(Code::Permission, "no")), false, Some("BG_STATE_DIR=")),
    ] {
        let check = storage::reflink(dir, shares, &caller("jo"));
        sound(&check, &caller("jo"));
        assert_eq!(check.ok, ok, "{check:?}");
        assert_eq!(fix.is_some(), check.fix.is_some());
        assert!(fix.is_none_or(|fix| check.fix.as_ref().is_some_and(|f| f.contains(fix))), "{check:?}");
    }
    let here = tempfile::tempdir().unwrap();
    lib_common::sys::fs::can_reflink(here.path()).unwrap();
    assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 0, "nothing is left");
}

/// An image whose root file system has `digest`, with one seed of 4096 bytes made from that of `source`.
fn image(digest: u8, source: Option<(u8, &Path)>) -> Document {
    let path = |p: &Path| AbsPath::new(p).unwrap();
    let digest_of = |n: u8| Digest::from_sha256(&[n; 32]);
    let mut doc = Document::unnamed(Kind::Image);
    doc.set(&Rootfs {
        distro: "debian".into(),
        release: "bookworm".into(),
        path: path(Path::new("/r")),
        size_bytes: 0,
        digest: digest_of(digest),
        manifest: path(Path::new("/m")),
        manifest_digest: digest_of(0),
    });
    if let Some((n, file)) = source {
        let size = SeedSize { size_bytes: 4096, path: path(file), digest: digest_of(0) };
        doc.set(&Seed { source_digest: digest_of(n), sizes: vec![size] });
    }
    doc
}

#[test]
fn seeds_that_are_missing_cost_time_and_damaged_ones_keep_vms_from_being_made() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    std::fs::write(&whole, [0; 4096]).unwrap();
    std::fs::write(&cut, [0; 4095]).unwrap();
    let gone = dir.path().join("gone");
    let name = Name::parse("my-image").unwrap();
    for (record, ok, fix) in [
        (Ok(image(1, Some((1, &whole)))), true, None),
        (Ok(image(1, None)), true, Some("bg-seed build my-image")),
        (Ok(image(1, Some((1, &gone)))), false, Some("bg-image reconcile my-image")),
        (Ok(image(1, Some((1, &cut)))), false, Some("bg-image reconcile my-image")),
        (Ok(image(2, Some((1, &whole)))), false, Some("bg-image reconcile my-image")),
        (Ok(Document::unnamed(Kind::Image)), false, Some("bg-image rm my-image")),
        (Err(Error::new(Code::BadDocument, "junk")), false, Some("bg-image rm my-image")),
    ] {
        let check = storage::seeds(&name, record);
        assert_eq!((check.name.as_str(), check.ok, check.fix.as_deref()), ("seeds_my_image", ok, fix), "{check:?}");
    }
}
