use super::testing::{DEBIAN, tree};
use super::*;
use fs_err as fs;

const VERSION: &str = "6.1.0-9-cloud-amd64";
const EXT4: &[&str] = &["kernel/fs/ext4/ext4.ko"];

fn open(modules: &[(&str, &str)], builtin: &[&str]) -> (tempfile::TempDir, Tree) {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path(), VERSION, modules, builtin);
    let tree = Tree::open(dir.path()).unwrap();
    (dir, tree)
}

fn names(tree: &Tree, wanted: &[&str]) -> Vec<String> {
    tree.load_order(wanted).unwrap().iter().map(|p| module_name(p)).collect()
}

#[test]
fn dependencies_come_first_and_once() {
    let modules = [("k/a.ko", "b-x,c"), ("k/b-x.ko", "d"), ("k/c.ko", "d"), ("k/d.ko", ""), ("k/e.ko", "in_kernel")];
    let (_dir, tree) = open(&modules, &["k/in-kernel.ko"]);
    for (wanted, order) in [
        (&["a"][..], &["d", "b_x", "c", "a"][..]),
        (&["c", "a"], &["d", "c", "b_x", "a"]),
        (&["b-x", "b_x"], &["d", "b_x"]),
        (&["in-kernel", "d"], &["d"]),
        (&["e"], &["e"]),
        (&[], &[]),
    ] {
        assert_eq!(names(&tree, wanted), order, "{wanted:?}");
    }
}

#[test]
fn what_is_nowhere_is_named() {
    let (_dir, tree) = open(&[("k/a.ko", "gone")], &[]);
    for (wanted, says) in [("nothing-here", "no module `nothing_here`"), ("a", "`a` needs `gone`")] {
        let error = tree.load_order(&[wanted]).unwrap_err();
        assert_eq!(error.code(), Code::BadInput);
        assert!(error.message().contains(says), "{}", error.message());
    }
}

#[test]
fn circles_end() {
    let (_dir, tree) = open(&[("k/a.ko", "b"), ("k/b.ko", "a")], &[]);
    assert!(tree.load_order(&["a"]).unwrap_err().message().contains("depends on itself"));
    assert_eq!(tree.to_dep(), "k/a.ko:\nk/b.ko:\n");
}

#[test]
fn an_initrd_gets_what_it_needs_unpacked() {
    let (dir, tree) = open(DEBIAN, EXT4);
    let modules = tree.for_initrd(VERSION).unwrap();
    let order: Vec<_> = modules.iter().map(|m| m.file.as_str()).collect();
    assert_eq!(
        order,
        [
            "virtio.ko",
            "virtio_ring.ko",
            "virtio_mmio.ko",
            "virtio_blk.ko",
            "failover.ko",
            "net_failover.ko",
            "virtio_net.ko",
            "vsock.ko",
            "vmw_vsock_virtio_transport_common.ko",
            "vmw_vsock_virtio_transport.ko",
            "virtio-rng.ko",
        ]
    );
    assert!(modules.iter().all(|m| m.bytes.starts_with(b"\x7fELF")));
    let error = tree.for_initrd("6.1.0-10-cloud-amd64").unwrap_err();
    assert!(error.message().contains("is made for kernel `6.1.0-9-cloud-amd64`"), "{}", error.message());
    // The same order from the modules.dep that we write.
    fs::write(dir.path().join("modules.dep"), tree.to_dep()).unwrap();
    assert_eq!(Tree::open(dir.path()).unwrap().for_initrd(VERSION).unwrap(), modules);
}

#[test]
fn ext4_as_a_module_brings_its_checksum() {
    let modules = [DEBIAN, &[("k/ext4.ko", "jbd2"), ("k/jbd2.ko", ""), ("k/crc32c_generic.ko", "")]].concat();
    let (_dir, tree) = open(&modules, &[]);
    let files: Vec<_> = tree.for_initrd(VERSION).unwrap().into_iter().map(|m| m.file).collect();
    assert_eq!(files.first().unwrap(), "crc32c_generic.ko");
    assert_eq!(files[files.len() - 2..], ["jbd2.ko", "ext4.ko"]);
    let (_dir, tree) = open(DEBIAN, &[]);
    assert!(tree.for_initrd(VERSION).unwrap_err().message().contains("no module `ext4`"));
}

#[test]
fn modules_dep_is_written_as_depmod_does() {
    let (_dir, tree) = open(&[("k/a.ko", "b"), ("k/b.ko", "c"), ("k/c.ko.xz", ""), ("k/z.ko", "gone")], &[]);
    assert_eq!(tree.to_dep(), "k/a.ko: k/b.ko k/c.ko.xz\nk/b.ko: k/c.ko.xz\nk/c.ko.xz:\nk/z.ko:\n");
}

#[test]
fn a_bad_modules_dep_is_an_error() {
    for (text, says) in [
        ("no colon\n", "without a colon"),
        ("../../etc/shadow.ko:\n", "outside of the tree"),
        ("/etc/shadow.ko:\n", "outside of the tree"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("modules.dep"), text).unwrap();
        let error = Tree::open(dir.path()).unwrap_err();
        assert_eq!(error.code(), Code::BadInput);
        assert!(error.message().contains(says), "{}", error.message());
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.ko"), "no ELF").unwrap();
    assert!(Tree::open(dir.path()).unwrap_err().message().contains("a.ko is not a module"));
}
