//! VMs without a VMM: plan, clone, create, list, remove, and what the audit says of those that are half made or damaged.

use crate::support::fixture::{self, Files, WORK, WORK_BYTES};
use crate::support::{Done, Sandbox, children, finish};
use lib_common::error::Code;
use serde_json::Value;
use std::fs::{metadata, read, read_to_string, remove_file, write};
use std::path::PathBuf;

const NO_FILES: Vec<PathBuf> = vec![];
const NONE: Vec<Value> = vec![];

/// With the image `debian`.
fn store() -> Sandbox {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "debian");
    sandbox
}

#[test]
fn a_plan_changes_nothing_and_takes_its_values_from_flags_then_variables_then_defaults() {
    let sandbox = store();
    let before = children(&sandbox.state(""));
    let plan = |args: &[&str], env: &[(&str, &str)]| {
        let args = [&["plan", "dev"][..], args].concat();
        let child = sandbox.command("bg-vm", &args).envs(env.iter().copied()).spawn().unwrap();
        finish(child, b"").json()
    };
    let doc = plan(&[], &[]);
    let spec = |vcpu: u32, memory_mib: u64, work_bytes: u64| {
        (Value::from(vcpu), Value::from(memory_mib), Value::from(work_bytes))
    };
    let of = |doc: &Value| {
        (doc["spec"]["vcpu"].clone(), doc["spec"]["memory_mib"].clone(), doc["spec"]["work_bytes"].clone())
    };
    assert_eq!(of(&doc), spec(1, 1024, 8 << 30));
    assert_eq!(
        (&doc["name"], &doc["kind"], &doc["image"]["name"]),
        (&"dev".into(), &"Machine".into(), &"debian".into())
    );
    let env = [("BG_VCPU", "2"), ("BG_MEMORY", "2G"), ("BG_WORK_SIZE", "1G")];
    assert_eq!(of(&plan(&[], &env)), spec(2, 2048, 1 << 30));
    assert_eq!(of(&plan(&["--vcpu", "3", "--memory", "512M", "--work-size", WORK], &env)), spec(3, 512, WORK_BYTES));
    let ids = [&doc["id"], &plan(&[], &[])["id"]].map(|id| id.as_str().unwrap().to_owned());
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.len() == 32), "{ids:?}");
    assert_eq!(children(&sandbox.state("")), before);
    let small = sandbox.run("bg-vm", &["plan", "dev", "--root-size", "1M"], "").failed_with(Code::BadValue);
    assert!(small.message.contains("debian") && small.hint.unwrap().contains(&(8 << 20).to_string()));
}

#[test]
fn a_vm_that_was_made_is_whole() {
    let sandbox = store();
    let args = ["create", "dev", "--no-start", "--work-size", WORK, "--root-size", "32M"];
    let doc = sandbox.run("bg-vm", &args, "").json();
    let dir = sandbox.state("machines/dev");
    for (disk, file, bytes) in [("root", "root.ext4", 32 << 20), ("work", "work.ext4", WORK_BYTES)] {
        assert_eq!(doc["disks"][disk]["path"], dir.join(file).to_str().unwrap());
        assert_eq!(metadata(dir.join(file)).unwrap().len(), bytes);
    }
    assert!(doc["guest"]["host_key"].as_str().unwrap().starts_with("ssh-ed25519 "), "{doc}");
    assert!(doc.get("vmm").is_none());
    let shown = sandbox.run("bg-vm", &["show", "dev"], "").json();
    assert_eq!(shown["status"]["state"], "stopped");
    assert_eq!((&shown["id"], &shown["disks"], &shown["guest"]), (&doc["id"], &doc["disks"], &doc["guest"]));
    let record: Value = serde_json::from_str(&read_to_string(dir.join("machine.json")).unwrap()).unwrap();
    for computed in ["status", "stats", "health", "vmm"] {
        assert!(record.get(computed).is_none(), "{computed} is computed and never stored");
    }
    let listed = sandbox.run("bg-vm", &["ls"], "").json();
    assert_eq!((&listed["name"], &listed["status"]), (&"dev".into(), &shown["status"]));
    assert_eq!(sandbox.run("bg-vm", &["logs", "dev"], "").ok(), "", "it never ran");
    sandbox.run("bg-vm", &["stats", "dev"], "").failed_with(Code::NotRunning);
    assert_eq!(sandbox.run("bg-vm", &["stop", "dev"], "").json()["status"]["state"], "stopped");
    assert_eq!(sandbox.run("bg-vm", &["kill", "dev"], "").json()["status"]["state"], "stopped");
    let taken = sandbox.run("bg-vm", &args, "").failed_with(Code::Exists);
    assert!(taken.hint.unwrap().contains("bg-vm start dev"));
    assert_eq!((sandbox.staged(), sandbox.findings(&["--now"])), (NO_FILES, NONE));
}

#[test]
fn secrets_and_disks_are_the_callers_alone() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = store();
    fixture::create(&sandbox, "dev");
    let mode = |path: PathBuf| metadata(path).unwrap().permissions().mode() & 0o777;
    for dir in ["", "machines", "machines/dev", "images", "staging"] {
        assert_eq!(mode(sandbox.state(dir)), 0o700, "{dir}");
    }
    for file in ["machine.json", "root.ext4", "work.ext4", "ssh_host_ed25519_key", "journal", "lock"] {
        assert_eq!(mode(sandbox.state("machines/dev").join(file)) & 0o077, 0, "{file}");
    }
}

#[test]
fn of_sixteen_that_claim_a_name_at_once_one_gets_it() {
    let sandbox = store();
    let started: Vec<_> = (0..16)
        .map(|_| {
            let plan = fixture::plan(&sandbox, "dev");
            (sandbox.command("bg-seed", &["clone"]).spawn().unwrap(), plan)
        })
        .collect();
    // All of them have started and wait for their stdin.
    let feeders: Vec<_> =
        started.into_iter().map(|(child, plan)| std::thread::spawn(move || finish(child, plan.as_bytes()))).collect();
    let ends: Vec<Done> = feeders.into_iter().map(|f| f.join().unwrap()).collect();
    let (won, lost): (Vec<&Done>, Vec<&Done>) = ends.iter().partition(|d| d.exit == 0);
    assert_eq!((won.len(), lost.len()), (1, 15), "{ends:?}");
    for done in lost {
        done.failed_with(Code::Exists);
    }
    assert_eq!(sandbox.staged(), NO_FILES);
    let disks = &won[0].json()["disks"];
    assert!(PathBuf::from(disks["work"]["path"].as_str().unwrap()).is_file(), "the winner's disks are there");
}

#[test]
fn of_eight_that_remove_a_vm_at_once_none_fails() {
    let sandbox = store();
    fixture::create(&sandbox, "dev");
    let started: Vec<_> = (0..8).map(|_| sandbox.command("bg-vm", &["rm", "dev"]).spawn().unwrap()).collect();
    for child in started {
        assert_eq!(finish(child, b"").ok(), "");
    }
    assert_eq!((children(&sandbox.state("machines")), sandbox.staged()), (NO_FILES, NO_FILES));
}

#[test]
fn an_unfinished_pipeline_is_young_first_and_then_a_leak() {
    let sandbox = store();
    let cloned = sandbox.run("bg-seed", &["clone"], fixture::plan(&sandbox, "dev")).json();
    assert_eq!(cloned["disks"]["root"]["path"], sandbox.state("machines/dev/root.ext4").to_str().unwrap());
    assert_eq!(sandbox.run("bg-vm", &["ls"], "").json()["status"]["state"], "incomplete");
    let young = sandbox.findings(&[]);
    assert_eq!((young.len(), &young[0]["is_leak"], &young[0]["owner"]), (1, &false.into(), &"dev".into()), "{young:?}");
    let line = young[0].to_string();
    assert_eq!(sandbox.run("bg-gc", &[], &line).ok(), "", "it is not removed yet");
    assert!(sandbox.state("machines/dev").exists());
    let leaks = sandbox.findings(&["--now"]);
    assert_eq!(
        (leaks.len(), &leaks[0]["is_leak"], &leaks[0]["kind"]),
        (1, &true.into(), &"machine".into()),
        "{leaks:?}"
    );
    let tried = sandbox.run("bg-gc", &["--now", "--dry-run"], &line).json();
    assert_eq!(tried["id"], leaks[0]["id"]);
    assert!(sandbox.state("machines/dev").exists(), "--dry-run removes nothing");
    assert_eq!(sandbox.run("bg-gc", &["--now"], &line).json()["id"], leaks[0]["id"]);
    assert_eq!(sandbox.run("bg-gc", &["--now"], &line).ok(), "", "what is gone is fine");
    assert_eq!(children(&sandbox.state("machines")), NO_FILES);
    assert_eq!((sandbox.staged(), sandbox.findings(&["--now"])), (NO_FILES, NONE));
    fixture::create(&sandbox, "dev");
}

#[test]
fn a_plan_whose_image_is_gone_leaves_nothing() {
    let sandbox = store();
    let plan = fixture::plan(&sandbox, "dev");
    sandbox.run("bg-image", &["rm", "debian"], "").ok();
    let doc = sandbox.run("bg-seed", &["clone"], plan).failed_with(Code::MissingFile);
    assert!(doc.hint.is_some(), "{doc:?}");
    assert_eq!((children(&sandbox.state("machines")), sandbox.staged()), (NO_FILES, NO_FILES));
}

#[test]
fn a_document_of_another_vm_does_not_start_this_one() {
    let sandbox = store();
    let stranger = fixture::plan(&sandbox, "dev");
    sandbox.run("bg-vm", &["start"], &stranger).failed_with(Code::NotFound);
    fixture::create(&sandbox, "dev");
    let doc = sandbox.run("bg-vm", &["start"], &stranger).failed_with(Code::BadDocument);
    assert!(doc.message.contains("another VM"), "{doc:?}");
    let mut changed: Value = serde_json::from_str(&stranger).unwrap();
    changed["name"] = "other".into();
    sandbox.run("bg-seed", &["clone"], changed.to_string()).ok();
    let again = sandbox.run("bg-seed", &["clone"], changed.to_string()).failed_with(Code::Exists);
    assert!(again.message.contains("`other`"), "{again:?}");
}

#[test]
fn a_damaged_record_isolates_its_own_vm() {
    let sandbox = store();
    for name in ["a", "b"] {
        fixture::create(&sandbox, name);
    }
    let record = sandbox.state("machines/a/machine.json");
    let good = read_to_string(&record).unwrap();
    let unknown = good.replacen("\"vcpu\"", "\"vcpus\"", 1);
    let no_id = good.replacen("\"id\":\"", "\"id\":\"Z", 1);
    for (what, bad) in [("junk", "junk"), ("half", &good[..good.len() / 2]), ("empty", ""), ("another id", &no_id)] {
        write(&record, bad).unwrap();
        let done = sandbox.run("bg-vm", &["ls"], "");
        assert_eq!(done.json()["name"], "b", "{what}");
        assert!(done.stderr.starts_with("bg-vm: a: "), "{what}: {}", done.stderr);
        for args in [["show", "a"], ["start", "a"], ["stop", "a"], ["kill", "a"]] {
            sandbox.run("bg-vm", &args, "").failed_with(Code::BadDocument);
        }
        sandbox.run("bg-vm", &["show", "b"], "").ok();
    }
    write(&record, "junk").unwrap();
    let found = sandbox.findings(&["--now"]);
    assert_eq!((found.len(), &found[0]["is_leak"], &found[0]["owner"]), (1, &false.into(), &"a".into()), "{found:?}");
    assert!(found[0]["fix"].as_str().unwrap().contains("bg-vm rm a"));
    assert_eq!(sandbox.run("bg-gc", &["--now"], found[0].to_string()).ok(), "", "somebody may mend it");
    write(&record, unknown).unwrap();
    sandbox.run("bg-vm", &["start", "a"], "").failed_with(Code::BadDocument);
    write(&record, "junk").unwrap();
    sandbox.run("bg-vm", &["rm", "a"], "").ok();
    assert_eq!(sandbox.findings(&["--now"]), NONE);
}

/// `bg-vm start` where the VMM is a program that ends at once: whatever is refused is refused before it is run.
fn start(sandbox: &Sandbox, name: &str) -> Done {
    let mut command = sandbox.command("bg-vm", &["start", name]);
    command.env("BG_QEMU", "/bin/false").env("BG_VHOST_DEVICE_VSOCK", "/bin/false");
    finish(command.spawn().unwrap(), b"")
}

#[test]
fn a_disk_that_lies_elsewhere_or_is_a_link_is_refused() {
    let sandbox = store();
    fixture::create(&sandbox, "dev");
    let dir = sandbox.state("machines/dev");
    let (record, disk, aside) = (dir.join("machine.json"), dir.join("root.ext4"), sandbox.path("aside"));
    let good = read_to_string(&record).unwrap();
    let elsewhere = sandbox.path("elsewhere").display().to_string();
    write(&elsewhere, "precious").unwrap();
    for name in ["root.ext4", "work.ext4"] {
        let path = dir.join(name).display().to_string();
        write(&record, good.replace(&format!("\"{path}\""), &format!("\"{elsewhere}\""))).unwrap();
        start(&sandbox, "dev").failed_with(Code::BadDocument);
    }
    write(&record, &good).unwrap();
    std::fs::rename(&disk, &aside).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &disk).unwrap();
    let doc = start(&sandbox, "dev").failed_with(Code::Permission);
    assert!(doc.message.contains("not a regular file"), "{doc:?}");
    remove_file(&disk).unwrap();
    start(&sandbox, "dev").failed_with(Code::MissingFile);
    let found = sandbox.findings(&["--now"]);
    assert_eq!((found.len(), &found[0]["is_leak"]), (1, &false.into()), "{found:?}");
    assert!(found[0]["evidence"].as_str().unwrap().contains("root.ext4 is missing"), "{found:?}");
    std::fs::rename(&aside, &disk).unwrap();
    assert_eq!(read(&elsewhere).unwrap(), b"precious");
    assert_eq!(sandbox.findings(&["--now"]), NONE);
}

#[test]
fn a_vm_that_could_not_start_is_stopped_and_whole() {
    let sandbox = store();
    fixture::create(&sandbox, "dev");
    let doc = start(&sandbox, "dev").failed();
    assert_eq!(doc.exit, 69, "{doc:?}");
    assert!(doc.message.contains("`dev`") && !doc.causes.is_empty(), "{doc:?}");
    let shown = sandbox.run("bg-vm", &["show", "dev"], "").json();
    assert!(shown.get("vmm").is_none() && shown["status"]["state"] != "running", "{shown}");
    assert_eq!(sandbox.findings(&["--now"]), NONE);
    assert_eq!(sandbox.run("bg-seed", &["check", "--vm", "dev"], "").json()["ok"], true);
    // A creation that fails as late as that leaves no VM at all.
    let mut command = sandbox.command("bg-vm", &["create", "new", "--work-size", WORK]);
    command.env("BG_QEMU", "/bin/false").env("BG_VHOST_DEVICE_VSOCK", "/bin/false");
    assert_eq!(finish(command.spawn().unwrap(), b"").failed().exit, 69);
    assert!(!sandbox.state("machines/new").exists());
    assert_eq!((sandbox.staged(), sandbox.findings(&["--now"])), (NO_FILES, NONE));
}

#[test]
fn a_program_that_is_missing_is_72_and_says_how_to_get_it() {
    let sandbox = store();
    fixture::create(&sandbox, "dev");
    for (qemu, vsock, hint) in [
        ("/nowhere/qemu-system-x86_64", "/bin/false", "apt-get install"),
        ("/bin/false", "/nowhere/vhost-device-vsock", "cargo install vhost-device-vsock"),
    ] {
        let mut command = sandbox.command("bg-vm", &["start", "dev"]);
        command.env("BG_QEMU", qemu).env("BG_VHOST_DEVICE_VSOCK", vsock);
        let doc = finish(command.spawn().unwrap(), b"").failed_with(Code::MissingProgram);
        assert!(doc.hint.as_ref().is_some_and(|h| h.contains(hint)), "{doc:?}");
    }
    assert_eq!(sandbox.findings(&["--now"]), NONE);
    let image = Files::new(&sandbox, "other").document().to_string();
    let mut command = sandbox.command("bg-seed", &["build"]);
    command.env("PATH", "/nowhere");
    let done = finish(command.spawn().unwrap(), image.as_bytes());
    if std::path::Path::new("/usr/sbin/mke2fs").exists() || std::path::Path::new("/sbin/mke2fs").exists() {
        // Not in PATH, as for an ordinary user of Debian.
        done.ok();
    } else {
        assert!(done.failed_with(Code::MissingProgram).hint.unwrap().contains("e2fsprogs"));
    }
}

#[test]
fn a_lock_that_is_held_is_75_and_names_its_holder() {
    let sandbox = store();
    fixture::create(&sandbox, "dev");
    let lock =
        lib_common::sys::lock::Lock::take(&sandbox.state("machines/dev/lock"), std::time::Duration::ZERO).unwrap();
    for args in [["stop", "dev"], ["start", "dev"], ["kill", "dev"], ["rm", "dev"]] {
        let child = sandbox.command("bg-vm", &args).env("BG_LOCK_WAIT", "0.01").spawn().unwrap();
        let doc = finish(child, b"").failed_with(Code::LockBusy);
        assert!(doc.causes.concat().contains(&format!("pid {}", std::process::id())), "{doc:?}");
        assert!(doc.hint.unwrap().contains("BG_LOCK_WAIT"));
    }
    assert_eq!(sandbox.findings(&["--now"]), NONE, "what somebody holds is no leak");
    sandbox.run("bg-vm", &["show", "dev"], "").ok();
    drop(lock);
    sandbox.run("bg-vm", &["rm", "dev"], "").ok();
}

#[test]
fn what_is_under_way_is_not_found_and_not_removed() {
    let sandbox = store();
    fixture::create(&sandbox, "dev");
    let journal = sandbox.state("machines/dev/journal");
    let done = read_to_string(&journal).unwrap();
    // As if `bg-vm start` was at work, which then ends.
    write(&journal, done.replace("{\"record\":\"done\"}\n", "")).unwrap();
    let held = |path: PathBuf| lib_common::sys::lock::Lock::take(&path, std::time::Duration::ZERO).unwrap();
    let found = sandbox.findings(&["--now"]);
    assert_eq!((found.len(), &found[0]["is_leak"]), (1, &true.into()), "{found:?}");
    let lock = held(sandbox.state("machines/dev/lock"));
    assert_eq!(sandbox.findings(&["--now"]), NONE);
    assert_eq!(sandbox.run("bg-gc", &["--now"], found[0].to_string()).ok(), "");
    write(&journal, done).unwrap();
    drop(lock);
    // A staging directory is there a moment before its lock.
    let staged = sandbox.state("staging/0123");
    std::fs::create_dir(&staged).unwrap();
    let made = std::time::Instant::now();
    assert_eq!(sandbox.findings(&["--now"])[0]["kind"], "staging");
    assert!(made.elapsed().as_millis() >= 900, "somebody may have been about to lock it");
    let lock = held(staged.join("lock"));
    assert_eq!(sandbox.findings(&["--now"]), NONE);
    drop(lock);
    sandbox.collect();
    assert_eq!((sandbox.staged(), sandbox.run("bg-vm", &["show", "dev"], "").exit), (NO_FILES, 0));
}

#[test]
fn a_damaged_journal_is_told_and_keeps_nobody_from_removing_the_vm() {
    let sandbox = store();
    fixture::create(&sandbox, "dev");
    write(sandbox.state("machines/dev/journal"), "junk\n").unwrap();
    let found = sandbox.findings(&["--now"]);
    assert_eq!((found.len(), &found[0]["is_leak"]), (1, &false.into()), "{found:?}");
    assert!(found[0]["fix"].as_str().unwrap().contains("bg-vm rm dev"), "{found:?}");
    sandbox.run("bg-vm", &["start", "dev"], "").failed_with(Code::BadDocument);
    sandbox.run("bg-vm", &["rm", "dev"], "").ok();
    assert_eq!((children(&sandbox.state("machines")), sandbox.findings(&["--now"])), (NO_FILES, NONE));
}

#[test]
fn several_are_removed_even_where_staging_is_missing() {
    let sandbox = store();
    ["a", "b", "c"].iter().for_each(|name| drop(fixture::create(&sandbox, name)));
    std::fs::remove_dir(sandbox.state("staging")).unwrap();
    sandbox.run("bg-vm", &["rm", "a", "gone", "b"], "").ok();
    assert_eq!(sandbox.run("bg-vm", &["ls"], "").json()["name"], "c");
    assert_eq!(children(&sandbox.state("staging")), NO_FILES);
    std::fs::remove_dir(sandbox.state("staging")).unwrap();
    sandbox.run("bg-vm", &["rm", "c"], "").ok();
    assert_eq!(sandbox.run("bg-vm", &["ls"], "").ok(), "");
}

#[test]
fn a_new_vm_needs_a_size_that_the_host_has_and_a_name_of_its_own() {
    let sandbox = store();
    for name in ["localhost", "ip6-loopback", "7", "0x7f"] {
        sandbox.run("bg-vm", &["create", name, "--no-start"], "").failed_with(Code::BadValue);
    }
    let e = sandbox.run("bg-vm", &["plan", "dev", "--memory", "4T"], "").failed_with(Code::BadValue);
    assert!(e.hint.unwrap().contains("--overcommit"));
    let plan = sandbox.run("bg-vm", &["plan", "dev", "--memory", "4T", "--overcommit"], "").json();
    assert_eq!(plan["spec"]["overcommit"], true);
    for (field, value) in [("vcpu", 99), ("vcpu", 0), ("memory_mib", 1)] {
        let mut doc = plan.clone();
        doc["spec"][field] = value.into();
        let e = sandbox.run("bg-seed", &["clone"], doc.to_string()).failed_with(Code::BadValue);
        assert!(e.message.contains(field), "{e:?}");
    }
    assert!(children(&sandbox.state("machines")).is_empty());

    // One that was made before stays usable.
    sandbox.run("bg-vm", &["create", "dev", "--no-start", "--work-size", WORK], "").ok();
    std::fs::rename(sandbox.state("machines/dev"), sandbox.state("machines/localhost")).unwrap();
    let record = sandbox.state("machines/localhost/machine.json");
    let mut doc: Value = serde_json::from_str(&read_to_string(&record).unwrap()).unwrap();
    (doc["name"], doc["spec"]["vcpu"]) = ("localhost".into(), 99.into());
    std::fs::write(&record, doc.to_string()).unwrap();
    assert_eq!(sandbox.run("bg-vm", &["ls"], "").json()["status"]["state"], "stopped");
    sandbox.run("bg-vm", &["stop", "localhost"], "").ok();
    sandbox.run("bg-vm", &["rm", "localhost"], "").ok();
    assert!(children(&sandbox.state("machines")).is_empty());
}
