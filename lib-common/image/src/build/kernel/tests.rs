use super::elf::testing::kernel;
use super::unpack::{Format, testing::pack};
use super::*;
use fs_err as fs;
use std::collections::BTreeSet;

const VERSION: &str = "6.1.0-9-cloud-amd64";

struct Host {
    dir: tempfile::TempDir,
    places: Places,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        // Whether this host has a depmod must not matter here.
        let depmod = at("no/depmod");
        let places = Places { cache_dir: at("cache"), agent: at("agent"), apt_lists: at("lists"), depmod };
        fs::write(&places.agent, kernel(false, "agent", 100)).unwrap();
        fs::write(at("vmlinux"), kernel(true, VERSION, 1000)).unwrap();
        let modules = modules::testing::DEBIAN;
        modules::testing::tree(&at("tree"), VERSION, modules, &["kernel/fs/ext4/ext4.ko"]);
        std::os::unix::fs::symlink("/usr/src", at("tree/build")).unwrap();
        Host { dir, places }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn vmlinux(&self, modules: bool) -> Source {
        Source::Vmlinux { file: self.at("vmlinux"), modules: modules.then(|| self.at("tree")), version: None }
    }

    fn build(&self, source: &Source, use_cache: bool) -> Result<(Kernel, Vec<String>)> {
        let mut stages = Stages::new("bg-kernel", None);
        let kernel = build_in(source, use_cache, &self.places, &mut stages)?;
        Ok((kernel, stages.take().into_iter().map(|t| t.stage).collect()))
    }

    /// What lies in `cache/kernel`, but for the builders' lock.
    fn cached(&self) -> BTreeSet<String> {
        let Ok(entries) = fs::read_dir(self.places.cache_dir.join("kernel")) else { return BTreeSet::new() };
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).filter(|n| n != ".lock").collect()
    }
}

#[test]
fn a_bundle_is_made_once_and_found_again() {
    let host = Host::new();
    let (made, stages) = host.build(&host.vmlinux(true), true).unwrap();
    assert_eq!(stages, ["setup", "cache", "unpack", "modules", "initrd", "digest", "publish"]);
    assert_eq!((made.version.as_str(), made.arch.as_str()), (VERSION, "x86_64"));
    let modules = made.modules.clone().unwrap();
    assert!(modules.ends_with(format!("modules/lib/modules/{VERSION}")), "{}", modules.as_str());
    use lib_common::digest::{of_file, of_tree};
    assert_eq!(made.digests["vmlinux"], of_file(&made.vmlinux).unwrap());
    assert_eq!(made.digests["initrd"], of_file(&made.initrd).unwrap());
    assert_eq!(made.digests["modules"], of_tree(&modules).unwrap());
    assert!(modules.join("modules.dep").is_file());
    assert!(!modules.join("build").exists());
    let (found, stages) = host.build(&host.vmlinux(true), true).unwrap();
    assert_eq!((&found, stages), (&made, vec!["setup".to_owned(), "cache".to_owned()]));
    assert_eq!(host.cached().len(), 1);
    // Built again, it is the same.
    let (again, stages) = host.build(&host.vmlinux(true), false).unwrap();
    assert_eq!((&again, stages.len()), (&made, 7));
    assert_eq!(host.cached().len(), 1, "{:?}", host.cached());
}

#[test]
fn other_inputs_have_other_places() {
    let host = Host::new();
    fs::create_dir(&host.places.apt_lists).unwrap();
    fs::write(host.at("lists/m_Packages"), "a").unwrap();
    fs::write(host.at("p.deb"), "a").unwrap();
    let package = Source::Package("linux".to_owned());
    let key = |source: &Source| cache::key(source, &host.places).unwrap();
    let mut seen = BTreeSet::new();
    let mut is_new = |source: &Source| assert!(seen.insert(key(source).to_string()), "{source:?}");
    is_new(&host.vmlinux(false));
    is_new(&host.vmlinux(true));
    is_new(&Source::Vmlinux { file: host.at("vmlinux"), modules: None, version: Some("6.1".to_owned()) });
    is_new(&package);
    is_new(&Source::Package("linux2".to_owned()));
    is_new(&Source::Deb(host.at("p.deb")));
    fs::write(host.at("p.deb"), "b").unwrap();
    is_new(&Source::Deb(host.at("p.deb")));
    fs::write(host.at("vmlinux"), kernel(true, "6.2", 0)).unwrap();
    is_new(&host.vmlinux(false));
    fs::write(host.at("tree/kernel/new.ko"), "").unwrap();
    is_new(&host.vmlinux(true));
    let old = std::time::SystemTime::UNIX_EPOCH;
    fs::File::options().write(true).open(host.at("lists/m_Packages")).unwrap().into_file().set_modified(old).unwrap();
    is_new(&package);
    fs::write(&host.places.agent, "other").unwrap();
    is_new(&package);
    // What apt holds while it works does not count.
    fs::write(host.at("lists/lock"), "").unwrap();
    assert!(!seen.insert(key(&package).to_string()));
}

#[test]
fn a_damaged_bundle_is_made_again() {
    let host = Host::new();
    let (made, _) = host.build(&host.vmlinux(true), true).unwrap();
    let bundle = made.vmlinux.parent().unwrap();
    for damage in [
        &|b: &Path| fs::remove_file(b.join("initrd")).unwrap() as _,
        &|b: &Path| fs::write(b.join("vmlinux"), "").unwrap() as _,
        &|b: &Path| fs::remove_dir_all(b.join("modules")).unwrap() as _,
        &|b: &Path| fs::write(b.join("kernel.json"), "{").unwrap() as _,
        &|b: &Path| fs::remove_file(b.join("kernel.json")).unwrap() as _,
    ] as [&dyn Fn(&Path); 5]
    {
        damage(bundle);
        let (again, stages) = host.build(&host.vmlinux(true), true).unwrap();
        assert_eq!((&again, stages.len()), (&made, 7));
        assert_eq!(made.digests["initrd"], lib_common::digest::of_file(&made.initrd).unwrap());
        assert_eq!(host.cached().len(), 1);
    }
}

#[test]
fn two_at_once_share_one() {
    let host = Host::new();
    let source = host.vmlinux(true);
    let kernels: Vec<Kernel> = std::thread::scope(|scope| {
        let builds: Vec<_> = (0..4).map(|_| scope.spawn(|| host.build(&source, true).unwrap().0)).collect();
        builds.into_iter().map(|b| b.join().unwrap()).collect()
    });
    assert!(kernels.iter().all(|k| *k == kernels[0]));
    assert_eq!(host.cached().len(), 1, "{:?}", host.cached());
    // The slower one of two: its bundle is ready, the name is taken.
    let slot = Slot::new(&host.places.cache_dir, "kernel", &cache::key(&source, &host.places).unwrap()).unwrap();
    let winner = fs::metadata(&kernels[0].vmlinux).unwrap();
    let building = slot.begin().unwrap();
    assert_eq!(slot.publish(building, kernels[0].clone(), cache::load).unwrap(), kernels[0]);
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(&kernels[0].vmlinux).unwrap().ino(), winner.ino());
    assert_eq!(host.cached().len(), 1);
}

#[test]
fn a_failed_build_leaves_nothing() {
    let host = Host::new();
    let other = Source::Vmlinux { file: host.at("vmlinux"), modules: None, version: Some("6.2".to_owned()) };
    let bad_version = Source::Vmlinux { file: host.at("vmlinux"), modules: None, version: Some("../x".to_owned()) };
    fs::write(host.at("silent"), kernel(true, "%s", 0)).unwrap();
    let silent = Source::Vmlinux { file: host.at("silent"), modules: None, version: None };
    fs::write(host.at("no.deb"), "no package").unwrap();
    for (source, code, says) in [
        (&other, Code::BadInput, "says that it is 6.1.0-9-cloud-amd64, and not 6.2"),
        (&bad_version, Code::BadValue, "is not a kernel release"),
        (&silent, Code::BadInput, "does not say its release"),
        (&Source::Deb(host.at("no.deb")), Code::BadInput, "is not a Debian package"),
        (&Source::Deb(host.at("none.deb")), Code::MissingFile, "none.deb is not there"),
        (&Source::Package("linux".to_owned()), Code::MissingFile, "apt has no package lists"),
    ] {
        let error = host.build(source, true).unwrap_err();
        assert_eq!(error.code(), code, "{}", error.message());
        assert!(error.message().contains(says), "{}", error.message());
        assert_eq!(host.cached(), BTreeSet::new());
    }
    let given = Source::Vmlinux { file: host.at("silent"), modules: None, version: Some("6.2".to_owned()) };
    assert_eq!(host.build(&given, true).unwrap().0.version, "6.2");
    fs::write(&host.places.agent, "#!/bin/sh\n").unwrap();
    let error = host.build(&host.vmlinux(true), true).unwrap_err();
    assert!(error.message().contains("the guest agent is not a 64-bit ELF"), "{}", error.message());
    assert_eq!(host.cached().len(), 1);
}

#[test]
fn a_package_becomes_a_bundle() {
    let host = Host::new();
    let elf = kernel(true, VERSION, 1000);
    let mut files =
        vec![(format!("./boot/vmlinuz-{VERSION}"), bzimage::testing::bzimage(&pack(Format::Lz4Legacy, &elf)))];
    for entry in walkdir::WalkDir::new(host.at("tree")).into_iter().map(|e| e.unwrap()) {
        if entry.file_type().is_file() {
            let below = entry.path().strip_prefix(host.at("tree")).unwrap().to_str().unwrap().to_owned();
            files.push((format!("./lib/modules/{VERSION}/{below}"), fs::read(entry.path()).unwrap()));
        }
    }
    let files: Vec<_> = files.iter().map(|(p, b)| (p.as_str(), b.as_slice())).collect();
    fs::write(host.at("p.deb"), deb::testing::deb(&files)).unwrap();
    let (from_deb, stages) = host.build(&Source::Deb(host.at("p.deb")), true).unwrap();
    assert_eq!(stages, ["setup", "cache", "extract", "unpack", "modules", "initrd", "digest", "publish"]);
    let (from_files, _) = host.build(&host.vmlinux(true), true).unwrap();
    assert_eq!(from_deb.digests, from_files.digests, "the same kernel either way");
    assert!(!from_deb.vmlinux.with_file_name("vmlinuz").exists());
}

#[test]
fn the_initrd_does_not_depend_on_depmod() {
    use std::os::unix::fs::PermissionsExt;
    let mut host = Host::new();
    let (without, _) = host.build(&host.vmlinux(true), true).unwrap();
    let dep = fs::read_to_string(without.modules.clone().unwrap().join("modules.dep")).unwrap();
    assert!(dep.contains("kernel/net/virtio_net.ko: kernel/net/net_failover.ko"), "{dep}");
    // One that leaves modules out, as Debian's does with .ko.gz; then one that fails.
    host.places.depmod = host.at("depmod");
    let script = |text: &str| {
        fs::write(host.at("depmod"), text).unwrap();
        fs::set_permissions(host.at("depmod"), PermissionsExt::from_mode(0o755)).unwrap();
    };
    script("#!/bin/sh\necho partial > \"$2/lib/modules/$3/modules.dep\"\n");
    let (with, _) = host.build(&host.vmlinux(true), false).unwrap();
    assert_eq!(fs::read_to_string(with.modules.unwrap().join("modules.dep")).unwrap(), "partial\n");
    assert_eq!(with.digests["initrd"], without.digests["initrd"]);
    assert_ne!(with.digests["modules"], without.digests["modules"]);
    script("#!/bin/sh\necho 'no space' >&2\nexit 1\n");
    assert_eq!(host.build(&host.vmlinux(true), false).unwrap_err().code(), Code::CommandFailed);
    assert_eq!(host.cached().len(), 1, "the bundle that was there stays");
}

#[test]
fn the_document_has_the_section() {
    let host = Host::new();
    let doc = document(&host.build(&host.vmlinux(false), true).unwrap().0);
    let kernel: Kernel = doc.require().unwrap();
    assert_eq!((kernel.version.as_str(), kernel.modules), (VERSION, None));
    assert!(doc.to_line().starts_with(r#"{"api_version":"banger/v1","kind":"Image","kernel":{"#));
}
