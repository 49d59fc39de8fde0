//! Real file systems of a few MiB; as root and as any other user.

use super::*;
use lib_common::digest;
use std::os::unix::fs::FileExt;
use tar::{Builder, EntryType, Header};

const SIZE: u64 = 16 << 20;

fn format(id: &Digest) -> Format<'_> {
    Format { label: "test", id, epoch: 1_600_000_000, root_mode: 0o700 }
}

/// A tar with what an extracting program gets wrong most easily.
fn tar() -> Vec<u8> {
    let mut tar = Builder::new(vec![]);
    let header = |kind, mode, size: usize| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(7);
        header.set_mtime(1_500_000_000);
        header.set_size(size as u64);
        header
    };
    tar.append_data(&mut header(EntryType::Directory, 0o1777, 0), "d", io::empty()).unwrap();
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    tar.append_pax_extensions([("SCHILY.xattr.security.capability", &capability[..])]).unwrap();
    tar.append_data(&mut header(EntryType::Regular, 0o4755, 4), "d/setuid", &b"data"[..]).unwrap();
    tar.append_link(&mut header(EntryType::Link, 0o4755, 0), "d/hard", "d/setuid").unwrap();
    tar.append_data(&mut header(EntryType::Regular, 0o644, 0), "d/F\u{151}tan\u{fa}s\u{ed}tv\u{e1}ny", io::empty())
        .unwrap();
    tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), "soft", "d/setuid").unwrap();
    let mut device = header(EntryType::Char, 0o666, 0);
    device.set_device_major(1).unwrap();
    device.set_device_minor(3).unwrap();
    tar.append_data(&mut device, "null", io::empty()).unwrap();
    tar.into_inner().unwrap()
}

fn make(path: &Path, tar: &[u8], id: &Digest) -> Result<()> {
    let mut writer = make_from_tar(path, SIZE, format(id))?;
    writer.write_all(tar)?;
    writer.finish()
}

fn debugfs(path: &Path, request: &str) -> String {
    let cmd = Cmd::new("debugfs").args(["-R", request]).arg(path).env("LC_ALL", "C");
    String::from_utf8(cmd.output(1 << 20).unwrap()).unwrap()
}

#[test]
fn owners_modes_links_devices_and_capabilities_get_there_and_equal_input_gives_equal_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let id = digest::of_bytes(b"id");
    make(&one, &tar(), &id).unwrap();
    make(&two, &tar(), &id).unwrap();
    assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
    assert!(lib_common::sys::fs::allocated_bytes(&one) < SIZE / 4, "the file is not sparse");
    assert_eq!(check(&one).unwrap(), CheckOutcome::Clean);
    let stat = debugfs(&one, "stat /d/setuid");
    for expected in ["Mode:  04755", "User:  1000", "Group:     7", "Links: 2", "security.capability (20)"] {
        assert!(stat.contains(expected), "{expected} is not in {stat}");
    }
    let root = debugfs(&one, "stat /");
    assert!(root.contains("Mode:  0700") && root.contains("User:     0   Group:     0"), "{root}");
    assert!(debugfs(&one, "stat /d/F\u{151}tan\u{fa}s\u{ed}tv\u{e1}ny").contains("Type: regular"));
    assert!(debugfs(&one, "stat /null").contains("Device major/minor number: 01:03"));
    assert!(debugfs(&one, "stat /soft").contains("Fast link dest: \"d/setuid\""));
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let made = Superblock::read(&one).unwrap();
    assert_eq!(hex(&made.uuid)[..12], id.hex()[..12]);
    assert_eq!((made.made_at, made.clean, made.needs_recovery), (1_600_000_000, true, false));
}

#[test]
fn a_failed_or_abandoned_file_system_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fs");
    let id = digest::of_bytes(b"id");
    let mut big = Builder::new(vec![]);
    let mut header = Header::new_gnu();
    header.set_size(SIZE);
    big.append_data(&mut header, "big", &vec![1; usize::try_from(SIZE).unwrap()][..]).unwrap();
    let mut writer = make_from_tar(&path, SIZE, format(&id)).unwrap();
    // mke2fs may end before it has read everything.
    let _ = writer.write_all(&big.into_inner().unwrap());
    let e = writer.finish().unwrap_err();
    assert_eq!((e.code(), e.message()), (Code::CommandFailed, "the content does not fit"), "{e:?}");
    assert!(!path.exists());
    drop(make_from_tar(&path, SIZE, format(&id)).unwrap());
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(make_empty(&path, SIZE, format(&id)).unwrap_err().code(), Code::Exists);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    for size in [0, 4096, SIZE + 1] {
        assert_eq!(make_empty(&dir.path().join("new"), size, format(&id)).unwrap_err().code(), Code::BadValue);
    }
    probe().unwrap();
}

#[test]
fn growing_keeps_the_content_and_shrinking_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fs");
    make(&path, &tar(), &digest::of_bytes(b"id")).unwrap();
    grow(&path, SIZE).unwrap();
    grow(&path, 4 * SIZE).unwrap();
    assert_eq!(Superblock::read(&path).unwrap().size_bytes, 4 * SIZE);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 4 * SIZE);
    assert_eq!(check(&path).unwrap(), CheckOutcome::Clean);
    assert!(debugfs(&path, "cat /d/hard").contains("data"));
    assert_eq!(grow(&path, SIZE).unwrap_err().code(), Code::BadValue);
    assert_eq!(grow(&path, 4 * SIZE + 1).unwrap_err().code(), Code::BadValue);
    assert_eq!(grow(&dir.path().join("none"), SIZE).unwrap_err().code(), Code::MissingFile);
}

#[test]
fn damage_is_found_and_mended_and_a_mounted_one_grows_after_a_check() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fs");
    make(&path, &tar(), &digest::of_bytes(b"id")).unwrap();
    let edit = |commands: &str| {
        let script = dir.path().join("script");
        std::fs::write(&script, commands).unwrap();
        Cmd::new("debugfs").args(["-w", "-f"]).arg(&script).arg(&path).run().unwrap();
    };
    // As after a mount, and a count of links that is wrong.
    edit("ssv mtime 20300101000000\nset_inode_field /d/setuid links_count 5\n");
    assert!(Superblock::read(&path).unwrap().mounted_since_check);
    match check(&path).unwrap() {
        CheckOutcome::Damaged(text) => assert!(text.contains("ref count is 5, should be 2"), "{text}"),
        other => panic!("{other:?}"),
    }
    grow(&path, 2 * SIZE).unwrap();
    assert_eq!(check(&path).unwrap(), CheckOutcome::Clean);
    assert!(debugfs(&path, "stat /d/setuid").contains("Links: 2"));
    edit("feature needs_recovery\n");
    assert_eq!(check(&path).unwrap(), CheckOutcome::JournalPending);
    repair(&path).unwrap();
    assert_eq!(check(&path).unwrap(), CheckOutcome::Clean);
    // Block 1 has the group descriptors.
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&[0xff; 4096], 4096).unwrap();
    assert!(matches!(check(&path), Ok(CheckOutcome::Damaged(_)) | Err(_)));
}

#[test]
fn a_host_that_is_full_is_not_a_file_system_that_is_too_small() {
    let said = |stderr: &str| {
        let child = ChildFailure {
            argv: vec!["mke2fs".into(), "/d/work.ext4".into()],
            status: "exit 1".into(),
            stderr: stderr.into(),
        };
        let e = explained(Error::new(Code::CommandFailed, "mke2fs failed (exit 1)").child(child));
        (e.code(), e.message().to_owned())
    };
    for host in ["mke2fs: No space left on device while writing out and closing file system\n", "Disk quota exceeded"] {
        assert_eq!(said(host), (Code::Io, "there is no room for /d/work.ext4".into()));
    }
    let content = "Could not allocate block in ext2 filesystem while populating file system\n";
    assert_eq!(said(content), (Code::CommandFailed, "the content does not fit".into()));
    assert_eq!(said("Segmentation fault"), (Code::CommandFailed, "mke2fs failed (exit 1)".into()));
}
