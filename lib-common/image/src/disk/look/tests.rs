//! Looks at real disks, built without mounting them.

use super::*;
use crate::disk::ext4::{Format, make_from_tar};
use lib_common::digest::of_bytes;
use lib_common::error::Code;
use lib_common::sys::cmd::Cmd;
use std::io::Write;
use tar::{Builder, EntryType, Header};

/// A disk with these paths, all of `owner`: `name/` is a directory, `name>target` a symbolic link.
fn disk(path: &Path, paths: &[&str], owner: (u64, u64)) {
    let mut tar = Builder::new(vec![]);
    for entry in paths {
        let mut header = Header::new_gnu();
        header.set_mode(0o700);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_size(0);
        if let Some((name, target)) = entry.split_once('>') {
            header.set_entry_type(EntryType::Symlink);
            tar.append_link(&mut header, name, target).unwrap();
        } else {
            header.set_entry_type(if entry.ends_with('/') { EntryType::Directory } else { EntryType::Regular });
            tar.append_data(&mut header, entry.trim_end_matches('/'), std::io::empty()).unwrap();
        }
    }
    let id = of_bytes(b"work");
    let format = Format { label: "work", id: &id, epoch: 1_500_000_000, root_mode: 0o700 };
    let mut writer = make_from_tar(path, 16 << 20, format).unwrap();
    writer.write_all(&tar.into_inner().unwrap()).unwrap();
    writer.finish().unwrap();
}

#[test]
fn real_disks_are_told_apart() {
    let root = (0, 0);
    let cases: &[(&[&str], (u64, u64), bool)] = &[
        (&[".bashrc", ".ssh/"], root, false),
        (&["root/", "root/.bashrc"], root, true),
        (&["root/", "root/root/", "root/root/.profile", ".bashrc"], root, true),
        (&["root/", "root/.bashrc"], (0, 1000), false),
        (&["other/", "other/.bashrc", "root>other"], root, false),
        (&["root/", "root/.bashrc>missing"], root, true),
        (&["root/", "root/.bashrc", "etc/", "usr/"], root, false),
        (&["root/", "root/a"], root, false),
        (&[".banger-nested/", "etc/", "usr/"], root, true),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (n, (paths, owner, expected)) in cases.iter().enumerate() {
        let file = dir.path().join(n.to_string());
        disk(&file, paths, *owner);
        let before = lib_common::digest::of_file(&file).unwrap();
        assert_eq!(is_nested(&file).unwrap(), *expected, "{paths:?}");
        assert_eq!(lib_common::digest::of_file(&file).unwrap(), before, "a look changes nothing");
    }
}

#[test]
fn what_is_only_in_the_journal_counts() {
    if !nix::unistd::geteuid().is_root() {
        not_run("only root can mount a disk");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (file, cut, at) = (dir.path().join("disk"), dir.path().join("cut"), dir.path().join("at"));
    disk(&file, &["root/", "root/.bashrc"], (0, 0));
    std::fs::create_dir(&at).unwrap();
    Cmd::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(&file).arg(&at).run().unwrap();
    std::fs::rename(at.join("root"), at.join("mine")).unwrap();
    // By another process: a program that another test starts would inherit a file that is open here, and keep it busy.
    Cmd::new("sync").arg("-f").arg(&at).run().unwrap();
    // As a power cut leaves it: the rename is in the journal, and nowhere else.
    std::fs::copy(&file, &cut).unwrap();
    Cmd::new("umount").arg(&at).run().unwrap();
    assert!(crate::disk::superblock::Superblock::read(&cut).unwrap().needs_recovery);
    assert!(!is_nested(&cut).unwrap());
}

#[test]
fn what_is_no_disk_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk");
    assert_eq!(is_nested(&file).unwrap_err().code(), Code::BadInput);
    for content in [vec![], vec![0; 4096], vec![0xff; 1 << 20]] {
        std::fs::write(&file, content).unwrap();
        assert_eq!(is_nested(&file).unwrap_err().code(), Code::BadInput);
    }
}

#[test]
fn a_start_waits_no_longer_than_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let (file, pipe) = (dir.path().join("disk"), dir.path().join("pipe"));
    disk(&file, &["root/", "root/.bashrc"], (0, 0));
    assert!(is_nested_within(&file, Duration::from_secs(20)));
    // Nobody writes to it, so that opening it has no end.
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(!is_nested_within(&pipe, Duration::from_millis(20)));
    assert!(!is_nested_within(&dir.path().join("missing"), Duration::from_secs(20)));
}

/// Straight to the file: of a test that passes, and does not run, the harness shows nothing that was printed.
fn not_run(reason: &str) {
    let line = format!("NOT RUN: {} ({reason})\n", std::thread::current().name().unwrap_or_default());
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
}
