//! Seeds of a small root file system, compared with the home that they were made from.

use super::*;
use crate::disk::ext4::check_size;
use ext4_view::Ext4;
use lib_common::digest::of_bytes;
use tar::{Builder, EntryType, Header};

const SIZE: u64 = 16 << 20;

/// A root file system with a home; its files' owner and mode are telling.
pub(in crate::disk) fn rootfs(path: &Path) {
    let mut tar = Builder::new(vec![]);
    let mut put = |name: &str, kind: EntryType, mode: u32, content: &str| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(3);
        header.set_gid(4);
        header.set_mtime(1_400_000_000);
        match kind {
            EntryType::Symlink => tar.append_link(&mut header, name, content).unwrap(),
            _ => {
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, name, content.as_bytes()).unwrap();
            }
        }
    };
    for dir in ["root", "root/.ssh", "root/bin", "etc"] {
        put(dir, EntryType::Directory, 0o750, "");
    }
    put("root/.bashrc", EntryType::Regular, 0o640, &"# rc\n".repeat(10_000));
    put("root/.bash_history", EntryType::Regular, 0o600, "secret\n");
    put("root/.ssh/authorized_keys", EntryType::Regular, 0o600, "builder's key\n");
    put("root/.ssh/config", EntryType::Regular, 0o600, "Host *\n");
    put("root/bin/tool", EntryType::Symlink, 0o777, "/usr/bin/tool");
    put("root/na\u{ef}ve name", EntryType::Regular, 0o600, "");
    put("etc/passwd", EntryType::Regular, 0o644, "root:x:0:0\n");
    let id = of_bytes(b"rootfs");
    let format = Format { label: "rootfs", id: &id, epoch: 1_500_000_000, root_mode: 0o755 };
    let mut writer = ext4::make_from_tar(path, SIZE, format).unwrap();
    writer.write_all(&tar.into_inner().unwrap()).unwrap();
    writer.finish().unwrap();
}

fn stages() -> Stages {
    Stages::new("bg-test", None)
}

fn list(fs: &Ext4, path: &str) -> Vec<String> {
    let names = fs.read_dir(path).unwrap().map(|e| e.unwrap().file_name().display().to_string());
    let mut names: Vec<String> = names.filter(|n| n != "." && n != ".." && n != "lost+found").collect();
    names.sort();
    names
}

#[test]
fn a_seed_is_the_home_without_what_belongs_to_one_machine() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("rootfs.ext4");
    rootfs(&image);
    let seeds = build(&image, &[2 * SIZE, SIZE, SIZE], dir.path(), &mut stages()).unwrap();
    assert_eq!(seeds.iter().map(|s| s.size_bytes).collect::<Vec<_>>(), [SIZE, 2 * SIZE]);
    for seed in &seeds {
        assert_eq!(std::fs::metadata(&seed.path).unwrap().len(), seed.size_bytes);
        assert_eq!(seed.digest, digest::of_content(&seed.path).unwrap());
        assert_eq!(ext4::check(&seed.path).unwrap(), CheckOutcome::Clean);
        let (from, to) = (Ext4::load_from_path(&image).unwrap(), Ext4::load_from_path(&seed.path).unwrap());
        assert_eq!(list(&to, "/"), [".bashrc", ".ssh", "bin", "na\u{ef}ve name"]);
        assert_eq!(list(&to, "/.ssh"), ["config"]);
        assert_eq!(from.read("/root/.bashrc").unwrap(), to.read("/.bashrc").unwrap());
        assert_eq!(to.read_link("/bin/tool").unwrap().to_str().unwrap(), "/usr/bin/tool");
        for path in [".bashrc", ".ssh", ".ssh/config", "bin", "bin/tool"] {
            let seen = |fs: &Ext4, path: String| {
                let meta = fs.symlink_metadata(&path).unwrap();
                (meta.mode(), meta.uid(), meta.gid(), meta.modified().seconds())
            };
            assert_eq!(seen(&from, format!("/root/{path}")), seen(&to, format!("/{path}")), "{path}");
        }
        let root = to.metadata("/").unwrap();
        assert_eq!((root.mode() & 0o7777, root.uid(), root.gid()), (0o700, 0, 0));
    }
}

#[test]
fn equal_homes_give_equal_seeds_and_a_failed_build_leaves_none() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    for dir in [&one, &two] {
        std::fs::create_dir(dir).unwrap();
        rootfs(&dir.join("rootfs.ext4"));
    }
    let seed = |dir: &Path| build(&dir.join("rootfs.ext4"), &[SIZE], dir, &mut stages()).unwrap()[0].digest.clone();
    assert_eq!(seed(&one), seed(&two));
    assert!(check_size(1).is_err());
    let three = dir.path().join("three");
    std::fs::create_dir(&three).unwrap();
    assert!(build(&one.join("rootfs.ext4"), &[SIZE, SIZE + 1], &three, &mut stages()).is_err());
    assert_eq!(std::fs::read_dir(&three).unwrap().count(), 0);
}

#[test]
fn a_check_names_what_is_wrong_with_a_seed() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("rootfs.ext4");
    rootfs(&image);
    let source = of_bytes(b"this rootfs");
    let sizes = build(&image, &[SIZE, 2 * SIZE], dir.path(), &mut stages()).unwrap();
    let seed = Seed { source_digest: source.clone(), sizes };
    let failed = |source: &Digest| -> Vec<String> {
        check_seed(&seed, source).unwrap().into_iter().filter(|c| !c.ok).map(|c| c.name).collect()
    };
    assert_eq!(failed(&source), [""; 0]);
    assert_eq!(failed(&of_bytes(b"another")), ["source"]);
    std::fs::remove_file(&seed.sizes[0].path).unwrap();
    std::fs::write(&seed.sizes[1].path, "overwritten").unwrap();
    let (small, large) = (SIZE, 2 * SIZE);
    assert_eq!(
        failed(&source),
        [format!("seed_{small}"), format!("seed_{large}_digest"), format!("seed_{large}_file_system")]
    );
}

#[test]
fn a_home_has_the_digest_that_it_always_had() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("rootfs.ext4");
    rootfs(&image);
    assert_eq!(
        Home::read(&image).unwrap().id.as_str(),
        "sha256:ba206af95707d9a5ff31f3a16a769daa41b3bf71163a9f56315fc447ee3a046e"
    );
}

fn debugfs(image: &Path, request: &str) {
    lib_common::sys::cmd::Cmd::new("debugfs").args(["-w", "-R", request]).arg(image).run().unwrap();
}

#[test]
fn a_home_with_more_than_a_work_disk_begins_with_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("rootfs.ext4");
    rootfs(&image);
    let of = |size: u64| {
        debugfs(&image, &format!("set_inode_field /root/.bashrc size {size}"));
        Home::read_for(&image, SIZE)
    };
    // Holes are zeros.
    assert!(of(SIZE / 2).unwrap().length > SIZE / 2);
    assert!(Home::read(&image).is_ok());
    for size in [SIZE, 500 << 30] {
        let e = of(size).err().unwrap();
        assert_eq!(e.code(), lib_common::Code::BadInput);
        assert_eq!(e.message(), format!("/root of the image has more than {SIZE} bytes; a work disk begins with less"));
        assert!(e.get_hint().is_some());
        assert!(build(&image, &[4 * SIZE, SIZE], dir.path(), &mut stages()).is_err());
    }
    let e = Home::read(&image).err().unwrap();
    assert!(e.message().contains(&MAX_HOME.to_string()), "{e:?}");
}

#[test]
fn what_a_home_cannot_have_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("rootfs.ext4");
    rootfs(&image);
    debugfs(&image, "symlink /home /root");
    let tar = |root: &str| {
        let mut bytes = vec![];
        tree::write_tar(&image, Path::new(root), &mut bytes).map(|()| bytes)
    };
    assert_eq!(tar("/home").unwrap(), tar("/root").unwrap());
    let few = (Bounds { bytes: SIZE, entries: 3 }, Patience::new(WITHIN));
    let e = tree::write_within(&image, Path::new(HOME), io::sink(), few).unwrap_err();
    assert!(e.message().contains("more than 3 files"), "{e:?}");
    let late = (Bounds { bytes: SIZE, entries: 1000 }, Patience::new(Duration::ZERO));
    let e = tree::write_within(&image, Path::new(HOME), io::sink(), late).unwrap_err();
    assert_eq!(e.code(), lib_common::Code::TimedOut, "{e:?}");
    // ext4-view would have a terabyte of memory for the target.
    for link in ["/home", "/root/bin/tool"] {
        debugfs(&image, &format!("set_inode_field {link} size 1099511627776"));
        let root = if link == "/home" { link } else { HOME };
        let e = tar(root).unwrap_err();
        assert!(e.code() == lib_common::Code::BadInput && e.causes()[0].contains("symbolic link"), "{e:?}");
    }
}

#[test]
fn a_home_deeper_than_can_be_followed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("rootfs.ext4");
    let mut tar = Builder::new(vec![]);
    for level in 1..=1200 {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(0o700);
        header.set_size(0);
        tar.append_data(&mut header, "d/".repeat(level), io::empty()).unwrap();
    }
    let id = of_bytes(b"deep");
    let format = Format { label: "rootfs", id: &id, epoch: 1_500_000_000, root_mode: 0o755 };
    let mut writer = ext4::make_from_tar(&image, 4 * SIZE, format).unwrap();
    writer.write_all(&tar.into_inner().unwrap()).unwrap();
    writer.finish().unwrap();
    let e = tree::write_tar(&image, Path::new("/d"), io::sink()).unwrap_err();
    assert!(e.code() == lib_common::Code::BadInput && e.causes()[0].contains("levels deep"), "{e:?}");
}
