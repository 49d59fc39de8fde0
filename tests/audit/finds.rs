//! What `bg-verify` finds in a store, and on its host.

#![allow(clippy::disallowed_types)]

use super::{assert_can_be_pasted, collect, store};
use crate::faults::trace;
use crate::running::World;
use crate::support::launched::until;
use crate::support::{Sandbox, finish, program};
use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;
use std::fs::{File, copy, remove_file, rename, write};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

const NONE: Vec<Value> = vec![];

/// The one finding there is, however the audit is asked.
#[track_caller]
fn the_one(sandbox: &Sandbox, args: &[&str]) -> Value {
    let found = sandbox.findings(args);
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

/// What is done to a store, of what kind the finding is, whose, and what its evidence has.
type Damage = (fn(&Sandbox), &'static str, &'static str, &'static str);

const DAMAGE: &[Damage] = &[
    (|s| remove_file(s.state("machines/dev/root.ext4")).unwrap(), "machine", "dev", "root.ext4 is missing"),
    (|s| remove_file(s.state("machines/dev/vmlinux")).unwrap(), "machine", "dev", "vmlinux is missing"),
    (|s| write(s.state("machines/dev/old.ext4"), "").unwrap(), "file", "dev", "nothing that belongs to a VM"),
    (|s| write(s.state("images/debian/old.ext4"), "").unwrap(), "file", "debian", "its image does not name"),
    (|s| remove_file(s.state("images/debian/initrd")).unwrap(), "image", "debian", "initrd is missing"),
    (
        |s| File::options().write(true).open(s.state("images/debian/rootfs.ext4")).unwrap().set_len(1 << 20).unwrap(),
        "image",
        "debian",
        "rootfs.ext4 is not the file that was registered: its size, when it was changed",
    ),
    (|s| write(s.state("default-image"), "gone\n").unwrap(), "file", "", "the default image `gone` is not there"),
];

#[test]
fn damage_is_named_is_no_leak_and_stays() {
    for (damage, kind, owner, evidence) in DAMAGE {
        let sandbox = store();
        damage(&sandbox);
        let found = the_one(&sandbox, &["--now"]);
        let text = found["evidence"].as_str().unwrap();
        assert!(text.contains(evidence), "{found}");
        assert_eq!(
            (&found["kind"], &found["owner"], &found["is_leak"]),
            (&(*kind).into(), &(*owner).into(), &false.into())
        );
        assert_can_be_pasted(std::slice::from_ref(&found));
        assert_eq!(
            (collect(&sandbox, std::slice::from_ref(&found)), the_one(&sandbox, &["--now"])["id"].clone()),
            (NONE, found["id"].clone())
        );
    }
}

#[test]
fn an_image_whose_content_was_changed_is_found_by_its_digest() {
    let sandbox = store();
    let rootfs = sandbox.state("images/debian/rootfs.ext4");
    let before = rootfs.metadata().unwrap().modified().unwrap();
    let file = File::options().write(true).open(&rootfs).unwrap();
    file.write_all_at(b"x", 4096).unwrap();
    file.set_modified(before).unwrap();
    assert_eq!(sandbox.findings(&["--now"]), NONE, "size, time and inode are what they were");
    let found = the_one(&sandbox, &["--deep"]);
    assert_eq!((&found["kind"], &found["is_leak"]), (&"image".into(), &false.into()));
    assert!(found["evidence"].as_str().unwrap().contains("rootfs.ext4 is not what the record says"), "{found}");
}

#[test]
fn an_image_that_was_copied_back_is_what_it_was_by_its_digest() {
    let sandbox = store();
    for file in ["rootfs.ext4", "vmlinux"] {
        let (path, other) = (sandbox.state("images/debian").join(file), sandbox.state("images/debian/.tmp-other"));
        copy(&path, &other).unwrap();
        rename(&other, &path).unwrap();
    }
    let found = sandbox.findings(&["--now"]);
    assert!(
        found.len() == 2 && found.iter().all(|f| f["evidence"].as_str().unwrap().contains("its inode")),
        "{found:?}"
    );
    assert_eq!(found[0]["fix"].as_str().unwrap().split("  # ").next(), Some("bg-image reconcile debian"));
    assert_eq!(sandbox.findings(&["--now", "--deep"]), NONE);
    sandbox.run("bg-image", &["reconcile", "debian"], "").ok();
    assert_eq!(sandbox.findings(&["--now"]), NONE);
    sandbox.run("bg-seed", &["build", "debian", "--size", "16M"], "").ok();
    assert_eq!(sandbox.findings(&["--now"]), NONE, "a seed that was put into it is in its record");
}

#[test]
fn a_known_hosts_with_another_key_goes_and_one_with_the_vms_stays() {
    let sandbox = store();
    let file = sandbox.state("machines/dev/known_hosts");
    let key = sandbox.run("bg-vm", &["show", "dev"], "").json()["guest"]["host_key"].as_str().unwrap().to_owned();
    write(&file, format!("dev {key}\n")).unwrap();
    assert_eq!(sandbox.findings(&["--now"]), NONE);
    write(&file, "dev ssh-ed25519 AAAA\n").unwrap();
    assert_eq!(the_one(&sandbox, &[])["is_leak"], false, "it is young");
    let found = the_one(&sandbox, &["--now"]);
    assert_eq!((&found["kind"], &found["is_leak"]), (&"file".into(), &true.into()));
    // It was written anew meanwhile.
    write(&file, format!("dev {key}\n")).unwrap();
    assert_eq!((collect(&sandbox, std::slice::from_ref(&found)), file.exists()), (NONE, true));
    write(&file, "dev ssh-ed25519 AAAA\n").unwrap();
    assert_eq!((collect(&sandbox, &[found]).len(), file.exists()), (1, false));
}

#[test]
fn a_lock_that_outlives_its_process_is_found() {
    let sandbox = store();
    let path = sandbox.state("machines/dev/lock");
    let held = Flock::lock(File::options().write(true).open(&path).unwrap(), FlockArg::LockExclusive).unwrap();
    write(&path, format!("{} bg-vm\n", std::process::id())).unwrap();
    assert_eq!(sandbox.findings(&["--now"]), NONE, "its process lives");
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    write(&path, format!("{} bg-vm\n", gone.id())).unwrap();
    let found = the_one(&sandbox, &["--now"]);
    assert_eq!((&found["kind"], &found["owner"], &found["is_leak"]), (&"lock".into(), &"dev".into(), &false.into()));
    assert_eq!(found["fix"], format!("ps -fp {}  # what has it open: end it", std::process::id()));
    drop(held);
    assert_eq!(sandbox.findings(&["--now"]), NONE);
}

#[test]
fn a_running_vm_that_lost_its_socket_and_processes_without_a_vm_are_found() {
    let world = World::new(&["dev"]);
    let run = world.vm(&["start", "dev"], "").json()["vmm"]["vsock"].as_str().unwrap().to_owned();
    until("the guest is up", || std::path::Path::new(&run).exists());
    assert_eq!(world.sandbox.findings(&["--now"]), NONE);
    remove_file(&run).unwrap();
    let found = the_one(&world.sandbox, &["--now"]);
    assert_eq!((&found["kind"], &found["id"], &found["owner"]), (&"socket".into(), &run.into(), &"dev".into()));
    assert_eq!((&found["is_leak"], &found["fix"]), (&false.into(), &"bg-vm restart dev".into()));
    std::fs::remove_dir_all(world.sandbox.state("")).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let found = world.sandbox.findings(&["--now"]);
    let processes: Vec<&Value> = found.iter().filter(|f| f["kind"] == "process").collect();
    assert!(!processes.is_empty());
    for process in processes {
        let (pid, start) = process["id"].as_str().unwrap().split_once(':').unwrap();
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        let user = nix::unistd::geteuid();
        let who = format!("{}, user {user}, started {start} ticks into the boot {}", exe.display(), boot.trim());
        assert!(process["evidence"].as_str().unwrap().contains(&who), "{process}: {who}");
    }
    world.sandbox.collect();
}

#[test]
fn loop_devices_and_mounts_are_found_and_left_alone() {
    let test = "loop_devices_and_mounts_are_found_and_left_alone";
    if !nix::unistd::geteuid().is_root() {
        crate::support::not_run(test, "it takes root to mount");
        return;
    }
    let sandbox = store();
    let point = sandbox.state("machines/dev/mnt");
    std::fs::create_dir(&point).unwrap();
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs none \"$1\" && exec \"$2\" --now";
    command
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(&point)
        .arg(program("bg-verify"))
        .env_clear()
        .envs(sandbox.env());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let found = finish(command.spawn().unwrap(), b"").documents();
    let mount: Vec<&Value> = found.iter().filter(|f| f["kind"] == "mount").collect();
    assert_eq!(mount.len(), 1, "{found:?}");
    assert_eq!((&mount[0]["owner"], &mount[0]["is_leak"]), (&"dev".into(), &false.into()));
    assert_eq!(mount[0]["fix"], format!("umount {}", point.display()));
    std::fs::remove_dir(&point).unwrap();

    let disk = sandbox.state("machines/dev/root.ext4");
    let output = Command::new("losetup").args(["--find", "--show"]).arg(&disk).output();
    let Some(output) = output.ok().filter(|o| o.status.success()) else {
        crate::support::not_run(&format!("{test}, for loop devices"), "there is none");
        return;
    };
    let device = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let found = sandbox.findings(&["--now"]);
    let collected = collect(&sandbox, &found);
    let still = sandbox.findings(&["--now"]).len();
    assert!(Command::new("losetup").args(["--detach", &device]).status().unwrap().success());
    assert_eq!((found.len(), collected, still), (1, NONE, 1), "{found:?}");
    assert_eq!(
        (&found[0]["kind"], &found[0]["id"], &found[0]["owner"]),
        (&"loop".into(), &device.into(), &"dev".into())
    );
}

#[test]
fn a_look_changes_nothing() {
    if !crate::support::has_strace("a_look_changes_nothing") {
        return;
    }
    let world = World::new(&["dev", "runs", "bad", "open"]);
    world.vm(&["start", "runs"], "").ok();
    std::fs::write(world.record("bad"), "junk").unwrap();
    std::fs::remove_file(world.sandbox.state("machines/open/machine.json")).unwrap();
    std::fs::create_dir_all(world.sandbox.state("staging/0123")).unwrap();
    let command = world.command("bg-verify", &["--now", "--deep"]);
    let (done, calls) = trace::calls(&world.sandbox, &command, "", (trace::CALLS, true));
    assert!(done.documents().len() >= 3, "{done:?}");
    // It asks the kernel's network, says what it found, looks whether somebody holds a lock, and ends.
    let is_fine = |call: &trace::Call| match call.name.as_str() {
        "write" | "writev" => call.text.starts_with("1<") || call.text.contains("anon_inode:"),
        "sendto" | "sendmsg" => ["RTM_GET", "NFT_MSG_GET"].iter().any(|get| call.text.contains(get)),
        "openat" => call.text.contains("</dev/null>"),
        "flock" => call.text.contains("LOCK_SH"),
        "clone3" | "clone" => call.text.contains("CLONE_THREAD"),
        name => name == "exit_group",
    };
    let changing: Vec<_> = calls.iter().filter(|call| call.mutates() && !is_fine(call)).collect();
    assert!(changing.is_empty(), "{changing:#?}");
}
