//! What `bg-verify` sees that a test does by hand: files that were changed, links and other users' things in a store, mounts.
//! And `bg-gc`, which removes nothing by what a list says alone.

#![allow(clippy::disallowed_types)]

use crate::support::fixture::{create, register};
use crate::support::{Sandbox, children, program};
use lib_common::error::Code;
use serde_json::{Value, json};
use std::os::unix::fs::{FileExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

/// The user `nobody` of every system.
const NOBODY: u32 = 65534;

/// A store with the image `debian` and the VM `dev`, of which nothing is to be said.
fn store() -> Sandbox {
    let sandbox = Sandbox::new();
    register(&sandbox, "debian").ok();
    create(&sandbox, "dev").ok();
    assert_eq!(sandbox.findings(&["--now", "--deep"]), Vec::<Value>::new());
    sandbox
}

/// The only finding, which is no leak.
#[track_caller]
fn only(sandbox: &Sandbox, args: &[&str], kind: &str, words: &[&str]) -> Value {
    let found = sandbox.findings(args);
    let [finding] = &found[..] else { panic!("{found:#?}") };
    let said = finding["evidence"].as_str().unwrap();
    assert!(finding["kind"] == kind && words.iter().all(|word| said.contains(word)), "{finding}");
    assert!(finding["is_leak"] == false && finding["fix"] != "", "{finding}");
    finding.clone()
}

/// Changes a byte, and gives the file back its time if `hidden`.
fn change(path: &Path, hidden: bool) {
    let before = path.metadata().unwrap().modified().unwrap();
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 1000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 1000).unwrap();
    file.set_modified(if hidden { before } else { SystemTime::now() + Duration::from_secs(2) }).unwrap();
}

#[test]
fn a_changed_file_of_an_image_is_seen_by_its_time_its_size_or_its_content() {
    let sandbox = store();
    let rootfs = sandbox.state("images/debian/rootfs.ext4");
    change(&rootfs, true);
    assert_eq!(sandbox.findings(&["--now"]), Vec::<Value>::new(), "size and time are those that they were");
    let finding = only(&sandbox, &["--deep"], "image", &["rootfs.ext4", "another content"]);
    assert_eq!(finding["owner"], "debian");

    let sandbox = store();
    change(&sandbox.state("images/debian/rootfs.ext4"), false);
    only(&sandbox, &[], "image", &["rootfs.ext4", "was written to after"]);

    let sandbox = store();
    let rootfs = sandbox.state("images/debian/rootfs.ext4");
    let (file, before) = (std::fs::File::options().write(true).open(&rootfs).unwrap(), rootfs.metadata().unwrap());
    file.set_len(before.len() + 4096).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    only(&sandbox, &[], "image", &["rootfs.ext4", "another size"]);
}

#[test]
fn links_in_a_store_are_refused_told_of_and_left_alone() {
    let sandbox = store();
    let (dir, elsewhere) = (sandbox.state("machines/dev"), sandbox.path("elsewhere"));
    std::fs::rename(&dir, &elsewhere).unwrap();
    symlink(&elsewhere, &dir).unwrap();
    let before = children(&elsewhere);
    only(&sandbox, &["--now"], "stranger", &["symbolic link", "elsewhere"]);
    for args in [&["show", "dev"][..], &["start", "dev"], &["rm", "dev"]] {
        let doc = sandbox.run("bg-vm", args, "").failed();
        assert!(doc.code == "permission" && doc.message.contains("machines/dev"), "{args:?}: {doc:?}");
        assert!(doc.hint.unwrap().contains("bg-verify"), "{args:?}");
    }
    let found = sandbox.run("bg-verify", &["--now"], "");
    sandbox.run("bg-gc", &["--now"], &found.stdout).ok();
    assert!(dir.is_symlink() && children(&elsewhere) == before);

    let sandbox = store();
    let (record, elsewhere) = (sandbox.state("machines/dev/machine.json"), sandbox.path("elsewhere"));
    std::fs::rename(&record, &elsewhere).unwrap();
    symlink(&elsewhere, &record).unwrap();
    let doc = sandbox.run("bg-vm", &["show", "dev"], "").failed_with(Code::Permission);
    assert!(doc.message.contains("symbolic link"), "{doc:?}");
    let kinds: Vec<String> = sandbox.findings(&["--now"]).iter().map(|f| f["kind"].to_string()).collect();
    assert_eq!(kinds, ["\"stranger\"", "\"machine\""]);

    let sandbox = store();
    let record = sandbox.state("images/debian/image.json");
    std::fs::remove_file(&record).unwrap();
    nix::unistd::mkfifo(&record, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let doc = sandbox.run("bg-image", &["show", "debian"], "").failed_with(Code::Permission);
    assert!(doc.message.contains("not a regular file"), "{doc:?}");
}

#[test]
fn what_belongs_to_somebody_else_is_refused_and_told_of() {
    if !nix::unistd::geteuid().is_root() {
        println!("NOT RUN: what_belongs_to_somebody_else_is_refused_and_told_of (it takes root to give files away)");
        return;
    }
    let sandbox = store();
    chown(sandbox.state("machines/dev/machine.json"), Some(NOBODY), None).unwrap();
    let doc = sandbox.run("bg-vm", &["show", "dev"], "").failed_with(Code::Permission);
    assert!(doc.message.contains("belongs to the user 65534"), "{doc:?}");
    only(&sandbox, &["--now"], "machine", &["belongs to the user 65534"]);
    chown(sandbox.state("machines/dev/machine.json"), Some(0), None).unwrap();

    chown(sandbox.state("machines/dev/root.ext4"), Some(NOBODY), None).unwrap();
    let doc = sandbox.run("bg-vm", &["start", "dev"], "").failed_with(Code::Permission);
    assert!(doc.message.contains("root.ext4 belongs to the user 65534"), "{doc:?}");
    chown(sandbox.state("machines/dev/root.ext4"), Some(0), None).unwrap();

    chown(sandbox.state("machines/dev"), Some(NOBODY), None).unwrap();
    only(&sandbox, &["--now"], "stranger", &["belongs to the user 65534"]);
}

#[test]
fn a_mount_in_a_vm_s_directory_is_told_of() {
    let sandbox = store();
    let dir = sandbox.state("machines/dev/a b");
    std::fs::create_dir(&dir).unwrap();
    let user = if nix::unistd::geteuid().is_root() { "-m" } else { "-rm" };
    let script = format!("mount -t tmpfs none '{}' && exec {}", dir.display(), program("bg-verify"));
    let mut command = Command::new("unshare");
    let output = command.args([user, "sh", "-c", &script]).env_clear().envs(sandbox.env()).output().unwrap();
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        println!("NOT RUN: a_mount_in_a_vm_s_directory_is_told_of (a mount is refused: {})", why.trim());
        return;
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let found: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mount = found.iter().find(|f| f["kind"] == "mount").unwrap_or_else(|| panic!("{found:#?}"));
    assert_eq!((&mount["id"], &mount["is_leak"]), (&dir.display().to_string().into(), &false.into()));
    assert!(mount["fix"].as_str().unwrap().starts_with("umount "), "{mount}");
}

#[test]
fn a_list_removes_nothing_that_a_fresh_look_does_not_call_a_leak() {
    let sandbox = store();
    let outside = sandbox.path("precious");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "kept").unwrap();
    let line = |kind: &str, id: &str| {
        json!({
            "api_version": "banger/v1", "kind": kind, "id": id, "owner": "", "age_ms": 999_999_999, "evidence": "a list says so",
            "is_leak": true, "fix": "bg-verify | bg-gc",
        })
        .to_string()
    };
    let me = format!("{}:1", std::process::id());
    let inside = sandbox.state("machines/dev").display().to_string();
    let image = sandbox.state("images/debian").display().to_string();
    let precious = outside.display().to_string();
    let dotted = format!("{}/../../precious", sandbox.state("staging").display());
    let mut list = String::new();
    for kind in ["machine", "image", "staging", "runtime_dir", "file", "process", "stranger", "mount", "tap"] {
        for id in [&inside, &image, &precious, &dotted, &me, "/", ""] {
            list += &(line(kind, id) + "\n");
        }
    }
    assert_eq!(sandbox.run("bg-gc", &["--now"], &list).ok(), "");
    assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "kept");
    assert_eq!(sandbox.findings(&["--now", "--deep"]), Vec::<Value>::new());
    sandbox.run("bg-vm", &["show", "dev"], "").ok();
}

#[test]
fn what_was_a_leak_and_is_none_any_more_stays_and_young_things_are_spared() {
    let sandbox = store();
    let left = sandbox.state("staging/0123456789abcdef");
    std::fs::create_dir(&left).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    let young = sandbox.findings(&[]);
    assert!(young.len() == 1 && young[0]["is_leak"] == false, "{young:?}");
    let list = sandbox.run("bg-verify", &["--now"], "").stdout;
    assert_eq!(sandbox.run("bg-gc", &[], &list).ok(), "", "it is younger than five minutes");
    assert!(left.exists());
    // By now somebody works on it.
    let lock = std::fs::File::create(left.join("lock")).unwrap();
    let held = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock).unwrap();
    assert_eq!(sandbox.run("bg-gc", &["--now"], &list).ok(), "");
    assert!(left.exists());
    drop(held);
    assert!(sandbox.run("bg-gc", &["--now"], &list).ok().contains("0123456789abcdef"));
    assert!(!left.exists());
}
