use super::*;
use crate::vmm::qemu::tests::example;
use lib_common::doc::{AbsPath, Kernel as KernelDoc};
use lib_image::build::kernel::elf::testing;
use lib_image::build::kernel::initrd::{Module, write_base};
use lib_image::build::kernel::modules::Info;

const RELEASE: &str = "6.1.0-9-x";

/// In load order, each with what it depends on. ext4 is built in.
const MODULES: [(&str, &str); 9] = [
    ("virtio", ""),
    ("virtio_ring", ""),
    ("virtio_mmio", "virtio_ring,virtio"),
    ("virtio_blk", "virtio,virtio_ring"),
    ("virtio_net", "virtio_ring,virtio"),
    ("vsock", ""),
    ("vmw_vsock_virtio_transport_common", "vsock"),
    ("vmw_vsock_virtio_transport", "vmw_vsock_virtio_transport_common,virtio,vsock"),
    ("virtio-rng", "virtio"),
];

/// Of a guest that boots.
fn good(line: &str) -> Facts<'_> {
    let modules = MODULES.map(|(name, depends)| {
        let bytes = testing::module(&[&format!("depends={depends}"), &format!("vermagic={RELEASE} SMP preempt")]);
        let name = lib_image::build::kernel::modules::module_name(name);
        Loaded { name, info: Info::read(&bytes).map_err(|e| e.to_string()) }
    });
    Facts {
        vmm: VmmKind::Qemu,
        kernel: Kernel { wrong: None, pvh: true, release: Some(RELEASE.into()) },
        initrd: Initrd { wrong: None, init: true, modules: modules.into(), length: Some(8192) },
        command_line: line,
        builtin: Some(BTreeSet::from(["ext4".to_owned()])),
        mend: "mend a",
    }
}

fn line() -> String {
    command_line(VmmKind::Qemu, Accel::Tcg, &KernelArgs::default())
}

/// The names of those that have not passed, and of those that have and cost something.
fn findings(facts: &Facts<'_>) -> (Vec<String>, Vec<String>) {
    let (passed, failed): (Vec<Check>, Vec<Check>) = checks(facts).into_iter().partition(|check| check.ok);
    assert!(failed.iter().all(|check| check.fix.as_deref().is_some_and(|fix| !fix.is_empty())), "{failed:?}");
    let names = |checks: Vec<Check>| checks.into_iter().map(|check| check.name).collect();
    (names(failed), names(passed.into_iter().filter(|check| check.fix.is_some()).collect()))
}

#[test]
fn a_guest_that_boots_has_no_findings_on_any_accelerator() {
    for accel in [Accel::Tcg, Accel::Kvm] {
        assert_eq!(findings(&good(&command_line(VmmKind::Qemu, accel, &KernelArgs::default()))), (vec![], vec![]));
    }
}

/// A change to the facts, and what is found then: what hangs, and what costs.
type Case = (&'static str, fn(&mut Facts<'_>), &'static [&'static str], &'static [&'static str]);

fn without(facts: &mut Facts<'_>, names: &[&str]) {
    facts.initrd.modules.retain(|module| !names.contains(&module.name.as_str()));
}

fn all_builtin() -> BTreeSet<String> {
    MODULES.iter().map(|(name, _)| name.replace('-', "_")).chain(["ext4".to_owned()]).collect()
}

const CASES: [Case; 19] = [
    (
        "a bzImage",
        |f| f.kernel = Kernel { wrong: Some("it is not".into()), ..Kernel::default() },
        &["kernel_format", "pvh_note"],
        &[],
    ),
    ("no PVH note", |f| f.kernel.pvh = false, &["pvh_note"], &[]),
    ("no release", |f| f.kernel.release = None, &[], &[]),
    ("another kernel", |f| f.kernel.release = Some("6.1.0-10-x".into()), &["module_version"], &[]),
    ("no /init", |f| f.initrd.init = false, &["initrd_format"], &[]),
    ("one byte too many", |f| f.initrd.length = Some(8193), &["initrd_padding"], &[]),
    ("a length that is not known", |f| f.initrd.length = None, &[], &[]),
    ("no virtio_mmio", |f| without(f, &["virtio_mmio"]), &["virtio_modules"], &[]),
    ("no virtio_blk", |f| without(f, &["virtio_blk"]), &["virtio_modules"], &[]),
    ("no vsock transport", |f| without(f, &["vmw_vsock_virtio_transport"]), &["vsock_modules"], &[]),
    ("no vsock", |f| without(f, &["vsock"]), &["vsock_modules", "module_order"], &[]),
    ("no ext4", |f| f.builtin = Some(BTreeSet::new()), &["ext4_module"], &[]),
    ("no network and no randomness", |f| without(f, &["virtio_net", "virtio_rng"]), &[], &["net_module", "rng_module"]),
    ("an order that does not work", |f| f.initrd.modules.swap(0, 3), &["module_order"], &[]),
    ("a module that is none", |f| f.initrd.modules[4].info = Err("damaged".into()), &["module_order"], &[]),
    ("everything built in, and no list of that", |f| (f.initrd.modules, f.builtin) = (vec![], None), &[], &[]),
    ("everything built in, by the list", |f| (f.initrd.modules, f.builtin) = (vec![], Some(all_builtin())), &[], &[]),
    (
        "no modules, and nothing built in",
        |f| (f.initrd.modules, f.builtin) = (vec![], Some(BTreeSet::new())),
        &["virtio_modules", "ext4_module", "vsock_modules"],
        &["net_module", "rng_module"],
    ),
    (
        "some modules, and no list of what is built in",
        |f| {
            without(f, &["virtio_mmio"]);
            f.builtin = None;
        },
        &[],
        &[],
    ),
];

#[test]
fn every_fault_of_a_kernel_or_an_initrd_is_found() {
    let line = line();
    for (what, change, hangs, costs) in CASES {
        let mut facts = good(&line);
        change(&mut facts);
        let found = findings(&facts);
        let found = (found.0.iter().map(String::as_str).collect(), found.1.iter().map(String::as_str).collect());
        assert_eq!(found, (hangs.to_vec(), costs.to_vec()), "{what}");
    }
}

#[test]
fn an_initrd_that_cannot_be_read_fails_everything_that_is_in_it() {
    let line = line();
    let mut facts = good(&line);
    facts.initrd = Initrd { wrong: Some("it is an LZ4 legacy stream".into()), ..Initrd::default() };
    let found = checks(&facts);
    let of = |name: &str| found.iter().find(|check| check.name == name).unwrap();
    assert!(of("initrd_format").message.contains("LZ4 legacy"), "{found:?}");
    for name in ["initrd_padding", "virtio_modules", "vsock_modules", "module_version"] {
        assert!(!of(name).ok && of(name).message.starts_with("not checked"), "{found:?}");
    }
}

#[test]
fn the_command_line_is_read_as_the_kernel_reads_it() {
    let quiet = "i8042.noaux i8042.nomux i8042.dumbkbd";
    for (line, hangs, costs) in [
        (format!("console=ttyS0 {quiet}"), vec![], vec![]),
        (format!("console=ttyS0,115200 {quiet}"), vec![], vec![]),
        (format!("console=tty0 console=ttyS0 {quiet}"), vec![], vec![]),
        (quiet.to_owned(), vec!["console"], vec![]),
        (format!("console=tty0 {quiet}"), vec!["console"], vec![]),
        (format!("{quiet} -- console=ttyS0"), vec!["console"], vec![]),
        (format!("console=ttyS0 nomodule {quiet}"), vec!["nomodule"], vec![]),
        (format!("console=ttyS0 nomodule=1 {quiet}"), vec!["nomodule"], vec![]),
        (format!("console=ttyS0 nomodule nomodule=0 {quiet}"), vec![], vec![]),
        (format!("console=ttyS0 {quiet} -- nomodule"), vec![], vec![]),
        (format!("console=ttyS0 xnomodule {quiet}"), vec![], vec![]),
        ("console=ttyS0 i8042.noaux i8042.nomux".to_owned(), vec![], vec!["i8042"]),
        (format!("console=ttyS0 {quiet} i8042.noaux=0"), vec![], vec!["i8042"]),
    ] {
        let found = findings(&good(&line));
        assert_eq!(
            (found.0, found.1),
            (hangs.iter().map(|s| s.to_string()).collect(), costs.iter().map(|s| s.to_string()).collect()),
            "{line}"
        );
    }
    let mut facts = good("console=ttyS0 nomodule i8042.noaux i8042.nomux i8042.dumbkbd");
    (facts.initrd.modules, facts.builtin) = (vec![], None);
    assert_eq!(findings(&facts), (vec![], vec![]), "without modules `nomodule` is nobody's loss");
}

/// Files of a VM to be launched.
struct Files {
    dir: tempfile::TempDir,
    launch: Launch,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |file: &str| AbsPath::new(dir.path().join(file)).unwrap();
        let launch = Launch { kernel: path("vmlinux"), initrd: path("initrd"), ..example() };
        std::fs::write(&launch.kernel, testing::kernel(true, RELEASE, 100)).unwrap();
        let files = Files { dir, launch };
        files.initrd(&MODULES);
        files
    }

    fn initrd(&self, modules: &[(&str, &str)]) {
        let agent = self.dir.path().join("agent");
        std::fs::write(&agent, b"agent!!").unwrap();
        let modules: Vec<Module> = modules
            .iter()
            .map(|(name, depends)| Module {
                file: format!("{name}.ko"),
                bytes: testing::module(&[&format!("depends={depends}"), &format!("vermagic={RELEASE} SMP")]),
            })
            .collect();
        let mut out = vec![];
        write_base(&mut out, &agent, &modules).unwrap();
        std::fs::write(&self.launch.initrd, out).unwrap();
    }

    /// A kernel whose module tree says what is built in; `None`: it has no such tree.
    fn kernel(&self, builtin: Option<&str>) -> KernelDoc {
        let modules = builtin.map(|list| {
            std::fs::write(self.dir.path().join("modules.builtin"), list).unwrap();
            AbsPath::new(self.dir.path()).unwrap()
        });
        KernelDoc {
            version: RELEASE.into(),
            arch: "x86_64".into(),
            vmlinux: self.launch.kernel.clone(),
            initrd: self.launch.initrd.clone(),
            modules,
            digests: Default::default(),
        }
    }

    fn check(&self, builtin: Option<&str>, line: &str) -> Result<Vec<String>> {
        before_launch(&self.launch, (&self.kernel(builtin), &format!("{MEND} debian")), line)
    }

    fn refuses(&self, builtin: &str, line: &str) -> Error {
        let e = self.check(Some(builtin), line).unwrap_err();
        assert_eq!(e.code(), Code::BootCheck, "{e}");
        assert!(e.get_hint().is_some_and(|hint| !hint.is_empty()));
        e
    }
}

const EXT4: &str = "kernel/fs/ext4/ext4.ko\n";

#[test]
fn what_boots_is_started_and_what_hangs_is_not() {
    let files = Files::new();
    let costs = |line: &str| files.check(Some(EXT4), line).unwrap();
    assert_eq!(costs(&line()), Vec::<String>::new());
    assert!(costs("console=ttyS0")[0].contains("better: add `i8042.noaux"), "{:?}", costs("console=ttyS0"));

    let e = files.refuses("", &format!("{} nomodule", line()));
    assert!(e.message().starts_with("`dev` would not boot: ") && e.message().contains("ext4"), "{e}");
    assert!(e.causes().iter().any(|cause| cause.contains("nomodule")), "{:?}", e.causes());
    let mend = "bg-kernel build | bg-image reconcile --kernel - debian, and make the VM anew";
    assert_eq!(e.get_hint(), Some(mend));

    files.initrd(&MODULES[..5]);
    assert!(files.refuses(EXT4, &line()).message().contains("vsock"));
    std::fs::write(&files.launch.initrd, b"\x02\x21\x4c\x18 and so on").unwrap();
    assert!(files.refuses(EXT4, &line()).message().contains("LZ4 legacy"));
    std::fs::write(&files.launch.kernel, testing::kernel(false, RELEASE, 0)).unwrap();
    assert!(files.refuses(EXT4, &line()).message().contains("PVH"));
    std::fs::write(&files.launch.kernel, b"MZ\0\0 a bzImage").unwrap();
    let e = files.refuses(EXT4, &line());
    assert!(e.message().contains("a PE program"), "{e}");
    assert!(e.causes().iter().all(|cause| !cause.starts_with("not checked")), "{:?}", e.causes());
    for file in [&files.launch.kernel, &files.launch.initrd] {
        std::fs::remove_file(file).unwrap();
        assert_eq!(files.check(None, &line()).unwrap_err().code(), Code::MissingFile);
        std::fs::write(file, testing::kernel(true, RELEASE, 0)).unwrap();
    }
}

#[test]
fn a_kernel_that_has_everything_built_in_is_started() {
    let files = Files::new();
    files.initrd(&[]);
    assert_eq!(files.check(None, &line()).unwrap(), Vec::<String>::new());
}

#[test]
fn the_whole_kernel_is_searched_where_there_is_time() {
    let files = Files::new();
    assert_eq!(Kernel::at_a_glance(&files.launch.kernel).unwrap().release, None);
    assert_eq!(Kernel::read(&files.launch.kernel).unwrap().release.as_deref(), Some(RELEASE));
}

#[test]
fn no_initrd_that_is_not_whole_pages_gets_to_qemu() {
    assert!(refuse_unpadded(VmmKind::Qemu, 4096).is_ok());
    for length in [4095, 4097, 1] {
        assert_eq!(refuse_unpadded(VmmKind::Qemu, length).unwrap_err().code(), Code::BootCheck);
    }
}
