//! A stale work disk, as an interrupted flattening leaves it: seen before the start, mended by the guest, and told of.

#![allow(clippy::disallowed_types)]

use super::world::{World, show};
use lib_common::digest::of_bytes;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

type Files = BTreeMap<Vec<u8>, Vec<u8>>;

/// What lies where on the disk, and where it has to be in the guest's home.
fn content() -> (Files, Files) {
    let long = [&[b'l'; 254][..], b"\xff"].concat();
    let big: Vec<u8> = (0..3u32 << 18).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    let join = |dir: &[u8], name: &[u8]| [dir, name].concat();
    let moves: [(&[u8], &[u8], &[u8]); 13] = [
        (b"root/.bashrc", b".bashrc", b"# rc\n"),
        (b"root/root/.profile", b".profile", b"# profile\n"),
        (b"root/big", b"big", &big),
        (b"root/root/src/deep/main.rs", b"src/deep/main.rs", b"fn main() {}\n"),
        (b"root/src/lib.rs", b"src/lib.rs", b"//! up\n"),
        // Went up already, by a copy and by a move.
        (b"root/copied", b"copied", b"as above\n"),
        (b"copied", b"copied", b"as above\n"),
        (b"moved", b"moved", b"was moved\n"),
        // In each other's way.
        (b"notes", b"notes", b"above\n"),
        (b"root/notes", b".banger-conflicts/notes", b"nested\n"),
        (b"root/root/src/lib.rs", b".banger-conflicts/src/lib.rs", b"//! another\n"),
        (b"root/-rf", b"-rf", b"dash\n"),
        (b"root/root/a\nb\x1b", b"a\nb\x1b", b"line feed\n"),
    ];
    let mut disk: Files = moves.iter().map(|(from, _, bytes)| (from.to_vec(), bytes.to_vec())).collect();
    let mut home: Files = moves.iter().map(|(_, to, bytes)| (to.to_vec(), bytes.to_vec())).collect();
    disk.insert(join(b"root/root/", &long), b"long\n".to_vec());
    home.insert(long, b"long\n".to_vec());
    (disk, home)
}

/// A disk with these files in place of the VM's.
fn replace_work_disk(world: &World, name: &str, files: &Files) {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = dir.path().join(OsStr::from_bytes(path));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", show(&output));
    };
    let work = world.vm_file(name, "work.ext4");
    std::fs::remove_file(&work).unwrap();
    run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(dir.path()).arg(&work).arg("2G"));
    for home in ["/root", "/root/root"] {
        for field in ["uid", "gid"] {
            let change = format!("set_inode_field {home} {field} 0");
            run(Command::new("debugfs").args(["-w", "-R", &change]).arg(&work));
        }
    }
}

/// The digests of the files in the guest's home, but for the key that its `/init` adds.
fn digests_in_guest(world: &World, name: &str) -> BTreeMap<Vec<u8>, String> {
    let line = "cd /root && find . -type f ! -path ./.ssh/authorized_keys -exec sha256sum -z {} + | od -An -v -tx1";
    let hex = world.guest(name, line);
    let bytes: Vec<u8> = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let entries = bytes.split(|b| *b == 0).filter(|entry| !entry.is_empty());
    // 64 digits, two blanks, `./`.
    entries.map(|entry| (entry[68..].to_vec(), String::from_utf8(entry[..64].to_vec()).unwrap())).collect()
}

fn check(world: &World, name: &str) -> (Option<i32>, serde_json::Value) {
    let output = world.run("bg-seed", &["check", "--vm", name]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let nested = report["checks"].as_array().unwrap().iter().find(|c| c["name"] == "not_nested").cloned();
    (output.status.code(), nested.unwrap())
}

#[test]
fn a_nested_work_disk_is_seen_before_the_start_and_mended_by_the_guest() {
    mends(&World::new());
}

/// A guest of the world's image mends a stale work disk.
pub fn mends(world: &World) {
    let (disk, home) = content();
    world.ok("bg-vm", &["create", "dev", "--no-start", "--memory", "512M", "--work-size", "2G"]);
    replace_work_disk(world, "dev", &disk);
    let (exit, nested) = check(world, "dev");
    assert_eq!((exit, &nested["fix"]), (Some(1), &"`bg-vm start dev` mends it".into()), "{nested}");

    let started = world.run("bg-vm", &["start", "dev"]);
    assert!(started.status.success() && show(&started).contains("nested in /root/root"), "{}", show(&started));
    let health = world.healthy("dev")["health"].take();
    let notes = health["notes"].as_array().unwrap();
    assert!(notes.len() == 1 && notes[0].as_str().unwrap().contains("2 deep"), "{health}");
    let kept = health["problems"].clone();
    assert!(kept[0].as_str().unwrap().contains("/root/.banger-conflicts keeps 2 entries"), "{health}");
    let mut paths: Vec<&str> = kept.as_array().unwrap()[1..].iter().map(|line| line.as_str().unwrap()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["kept: /root/.banger-conflicts/notes", "kept: /root/.banger-conflicts/src/lib.rs"]);
    let expected: BTreeMap<_, _> =
        home.into_iter().map(|(path, bytes)| (path, of_bytes(&bytes).hex().to_owned())).collect();
    assert_eq!(digests_in_guest(world, "dev"), expected);
    assert_eq!(world.guest("dev", "ls -d /root/root /root/.banger-nested 2>/dev/null | wc -l"), "0");

    world.ok("bg-vm", &["stop", "dev"]);
    let (exit, nested) = check(world, "dev");
    assert_eq!((exit, &nested["ok"]), (Some(0), &true.into()), "{nested}");
    let started = world.run("bg-vm", &["start", "dev"]);
    assert!(started.status.success() && !show(&started).contains("nested"), "{}", show(&started));
    let health = world.healthy("dev")["health"].take();
    assert_eq!((&health["notes"], &health["problems"]), (&serde_json::Value::Null, &kept), "{health}");
    assert_eq!(digests_in_guest(world, "dev"), expected);
}
