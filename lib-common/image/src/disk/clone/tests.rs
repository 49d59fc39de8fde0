//! Which way a disk is made, and that it has the size that was asked for.

use super::*;
use crate::disk::seed;
use crate::disk::superblock::Superblock;
use lib_common::digest::of_bytes;
use lib_common::doc::{Kernel, Name, Rootfs, Seed, VmmChoice};
use std::path::PathBuf;

const MIB: u64 = 1 << 20;

struct Setup {
    dir: tempfile::TempDir,
    image: ImageRef,
}

impl Setup {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| AbsPath::new(dir.path().join(name)).unwrap();
        let rootfs = path("rootfs.ext4");
        seed::tests::rootfs(&rootfs);
        let sizes = [16 * MIB, 32 * MIB];
        let sizes = seed::build(&rootfs, &sizes, dir.path(), &mut Stages::new("bg-test", None)).unwrap();
        let digest = of_bytes(b"");
        let image = ImageRef {
            name: Name::parse("debian").unwrap(),
            rootfs: Rootfs {
                distro: "debian".into(),
                release: "bookworm".into(),
                size_bytes: Superblock::read(&rootfs).unwrap().size_bytes,
                path: rootfs,
                digest: digest.clone(),
                manifest: path("manifest"),
                manifest_digest: digest.clone(),
            },
            kernel: Kernel {
                version: "6".into(),
                arch: "x86_64".into(),
                vmlinux: path("vmlinux"),
                initrd: path("initrd"),
                modules: None,
                digests: [].into(),
            },
            seed: Some(Seed { source_digest: digest, sizes }),
        };
        Setup { dir, image }
    }

    fn clone(&self, name: &str, root_bytes: u64, work_bytes: u64) -> (PathBuf, Result<Disks>) {
        let dir = self.dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        let spec = Spec {
            image: self.image.name.clone(),
            vcpu: 1,
            memory_mib: 64,
            overcommit: false,
            root_bytes,
            work_bytes,
            net: false,
            nat: false,
            vmm: VmmChoice::Auto,
            kernel_args: Default::default(),
        };
        let disks = clone_disks(&self.image, &spec, &dir, &mut Stages::new("bg-test", None));
        (dir, disks)
    }
}

#[test]
fn disks_have_the_size_asked_for_by_the_cheapest_way() {
    let setup = Setup::new();
    let own = setup.image.rootfs.size_bytes;
    // Name, root asked for, work asked for; root's size, whether the work disk is a seed's clone.
    let cases = [("exact", 0, 32, own, true), ("grown", 64, 48, 64 * MIB, true), ("smaller", 0, 8, own, false)];
    for (name, root, work, root_bytes, from_seed) in cases {
        let disks = setup.clone(name, root * MIB, work * MIB).1.unwrap();
        for (disk, bytes) in [(&disks.root, root_bytes), (&disks.work, work * MIB)] {
            assert_eq!(Superblock::read(&disk.path).unwrap().size_bytes, bytes, "{name}");
            assert_eq!(std::fs::metadata(&disk.path).unwrap().len(), bytes, "{name}");
            let checks = check_disk(&disk.path, &setup.image.name).unwrap();
            assert!(checks.len() == 3 && checks.iter().all(|c| c.ok), "{name}: {checks:?}");
        }
        assert_eq!((disks.root.from_seed, disks.work.from_seed), (None, Some(from_seed)), "{name}");
        assert_eq!(disks.work.method == CloneMethod::Built, !from_seed, "{name}");
        let work = ext4_view::Ext4::load_from_path(&*disks.work.path).unwrap();
        assert_eq!(work.read_to_string("/.ssh/config").unwrap(), "Host *\n", "{name}");
    }
}

#[test]
fn sizes_that_cannot_be_are_refused_before_anything_is_made() {
    let setup = Setup::new();
    for (name, root, work) in [("root", 8 * MIB, 32 * MIB), ("odd", 0, 32 * MIB + 1), ("tiny", 0, 4096)] {
        let (dir, result) = setup.clone(name, root, work);
        assert_eq!(result.unwrap_err().code(), Code::BadValue, "{name}");
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn a_lost_disk_is_named() {
    let setup = Setup::new();
    std::fs::remove_file(&setup.image.rootfs.path).unwrap();
    let e = setup.clone("vm", 0, 32 * MIB).1.unwrap_err();
    assert_eq!(e.code(), Code::MissingFile);
    assert!(!check_disk(Path::new("/does/not/exist"), &setup.image.name).unwrap()[0].ok);
}
