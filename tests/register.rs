//! Images: what goes into the store is what its digests say, a name is whole or not there, and nothing that a VM needs
//! is taken away.

use crate::support::fixture::{self, Files, WORK};
use crate::support::{Done, Sandbox, Terminals, children, finish, through};
use lib_common::error::Code;
use lib_tools::ops::image;
use lib_tools::ops::machine::{self, ListArgs};
use serde_json::Value;
use std::fs::{read, read_to_string, write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const NO_FILES: Vec<PathBuf> = vec![];

#[test]
fn a_file_that_is_not_what_its_digest_says_leaves_nothing() {
    let sandbox = Sandbox::new();
    let files = Files::new(&sandbox, "a");
    let seeded = sandbox.run("bg-seed", &["build", "--size", WORK], files.document().to_string()).json();
    let seed = PathBuf::from(seeded["seed"]["sizes"][0]["path"].as_str().unwrap());
    let paths = ["vmlinux", "initrd", "rootfs.ext4", "manifest"].map(|f| files.path(f)).into_iter().chain([seed]);
    for path in paths {
        let good = read(&path).unwrap();
        let mut bad = good.clone();
        bad[7] ^= 1;
        write(&path, bad).unwrap();
        let done = sandbox.run("bg-register", &["--name", "a"], seeded.to_string());
        let doc = done.failed_with(Code::DigestMismatch);
        assert!(doc.message.contains(path.to_str().unwrap()), "{doc:?}");
        assert!(doc.causes.iter().any(|c| c.contains("expected sha256:") && c.contains("found sha256:")), "{doc:?}");
        std::fs::remove_file(&path).unwrap();
        let doc = sandbox.run("bg-register", &["--name", "a"], seeded.to_string()).failed_with(Code::MissingFile);
        assert!(doc.message.contains(path.to_str().unwrap()), "{doc:?}");
        write(&path, good).unwrap();
        assert!(!sandbox.state("images/a").exists() && !sandbox.state("default-image").exists());
        assert_eq!(sandbox.staged(), NO_FILES);
    }
    sandbox.run("bg-register", &["--name", "a"], seeded.to_string()).ok();
}

#[test]
fn the_record_is_the_document_with_the_stores_paths() {
    let sandbox = Sandbox::new();
    let files = Files::new(&sandbox, "a");
    let out = sandbox.run("bg-register", &["--name", "a"], files.document().to_string()).json();
    std::fs::remove_dir_all(files.path("")).unwrap();
    let home = sandbox.state("images/a");
    for (pointer, file) in [
        ("/kernel/vmlinux", "vmlinux"),
        ("/kernel/initrd", "initrd"),
        ("/rootfs/path", "rootfs.ext4"),
        ("/rootfs/manifest", "manifest"),
    ] {
        assert_eq!(out.pointer(pointer).unwrap().as_str().unwrap(), home.join(file).to_str().unwrap());
        assert!(home.join(file).is_file());
    }
    assert_eq!(out["name"], "a");
    assert!(out["registered"]["at"].as_str().unwrap().ends_with('Z'), "{out}");
    let record: Value = serde_json::from_str(&read_to_string(home.join("image.json")).unwrap()).unwrap();
    assert_eq!(record["rootfs"], out["rootfs"]);
    assert_eq!(sandbox.run("bg-image", &["show"], "").json(), record);
    assert_eq!(sandbox.staged(), NO_FILES);
    assert_eq!(sandbox.findings(&["--now"]), Vec::<Value>::new());
}

#[test]
fn a_module_tree_comes_along() {
    let sandbox = Sandbox::new();
    let files = Files::new(&sandbox, "a");
    let tree = files.path("lib/modules/6.1.0-test");
    std::fs::create_dir_all(tree.join("kernel/fs")).unwrap();
    write(tree.join("kernel/fs/ext4.ko"), "module").unwrap();
    write(tree.join("modules.dep"), "").unwrap();
    let mut doc = files.document();
    doc["kernel"]["modules"] = tree.to_str().unwrap().into();
    doc["kernel"]["digests"]["modules"] = lib_common::digest::of_tree(&tree).unwrap().as_str().into();
    let out = sandbox.run("bg-register", &["--name", "a"], doc.to_string()).json();
    let copy = PathBuf::from(out["kernel"]["modules"].as_str().unwrap());
    assert_eq!(read(copy.join("kernel/fs/ext4.ko")).unwrap(), b"module");
    write(tree.join("modules.dep"), "changed").unwrap();
    sandbox.run("bg-register", &["--name", "b"], doc.to_string()).failed_with(Code::DigestMismatch);
    doc["kernel"]["version"] = "../../evil".into();
    let failed = sandbox.run("bg-register", &["--name", "b"], doc.to_string()).failed();
    assert!(matches!(failed.exit, 64 | 65), "a version is no path: {failed:?}");
}

#[test]
fn a_directory_of_modules_that_may_not_be_read_is_77_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let doc = fixture::with_kernel(&sandbox, "a", "6.1.0-test");
    let closed = Path::new(doc["kernel"]["modules"].as_str().unwrap()).join("kernel");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o000)).unwrap();
    let command = sandbox.command("bg-register", &["--name", "a"]);
    // Root may read everything unless that is taken from it.
    let mut command = match nix::unistd::geteuid().is_root() {
        true => through(&command, "setpriv", &["--bounding-set", "-dac_override,-dac_read_search"]),
        false => command,
    };
    let failed = finish(command.spawn().unwrap(), doc.to_string().as_bytes()).failed_with(Code::Permission);
    assert!(failed.causes.concat().contains(closed.to_str().unwrap()), "{failed:?}");
    assert!(!sandbox.state("images/a").exists());
    assert_eq!(sandbox.staged(), NO_FILES);
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o755)).unwrap();
    sandbox.run("bg-register", &["--name", "a"], doc.to_string()).ok();
}

#[test]
fn a_name_that_is_taken_is_73_and_replace_keeps_what_vms_were_made_from() {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "a");
    fixture::create(&sandbox, "dev");
    let other = Files::new(&sandbox, "other").document().to_string();
    let doc = sandbox.run("bg-register", &["--name", "a"], &other).failed_with(Code::Exists);
    assert!(doc.hint.unwrap().contains("--replace"));
    let machine = sandbox.state("machines/dev");
    let before = ["vmlinux", "initrd", "root.ext4", "work.ext4"].map(|f| read(machine.join(f)).unwrap());
    sandbox.run("bg-register", &["--name", "a", "--replace"], &other).ok();
    let image = read_to_string(sandbox.state("images/a/vmlinux")).unwrap();
    assert!(image.ends_with("other"), "the image is the new one");
    let after = ["vmlinux", "initrd", "root.ext4", "work.ext4"].map(|f| read(machine.join(f)).unwrap());
    assert!(before == after, "the VM has what it was made from");
    assert_eq!(sandbox.run("bg-seed", &["check", "--vm", "dev"], "").json()["ok"], true);
    assert_eq!(sandbox.staged(), NO_FILES);
    assert_eq!(sandbox.findings(&["--now"]), Vec::<Value>::new());
}

#[test]
fn of_eight_that_register_a_name_at_once_one_gets_it() {
    let sandbox = Sandbox::new();
    let document = Files::new(&sandbox, "a").document().to_string();
    let started: Vec<_> = (0..8).map(|_| sandbox.command("bg-register", &["--name", "a"]).spawn().unwrap()).collect();
    let feeders = started.into_iter().map(|child| {
        let document = document.clone();
        std::thread::spawn(move || finish(child, document.as_bytes()))
    });
    let feeders: Vec<_> = feeders.collect();
    let (won, lost): (Vec<Done>, Vec<Done>) = feeders.into_iter().map(|f| f.join().unwrap()).partition(|d| d.exit == 0);
    assert_eq!((won.len(), lost.len()), (1, 7), "{lost:?}");
    for done in lost {
        done.failed_with(Code::Exists);
    }
    assert_eq!(sandbox.staged(), NO_FILES);
    assert_eq!(sandbox.findings(&["--now"]), Vec::<Value>::new());
}

#[test]
fn the_first_image_is_the_default_until_another_is_chosen() {
    let sandbox = Sandbox::new();
    let doc = sandbox.run("bg-image", &["show"], "").failed_with(Code::NotFound);
    assert!(doc.hint.unwrap().contains("bg-image default"));
    let default = || sandbox.run("bg-image", &["default"], "").json()["name"].clone();
    fixture::register(&sandbox, "a");
    fixture::register(&sandbox, "b");
    assert_eq!(default(), "a");
    let c = Files::new(&sandbox, "c").document().to_string();
    sandbox.run("bg-register", &["--name", "c", "--default"], c).ok();
    assert_eq!(default(), "c");
    for _ in 0..2 {
        assert_eq!(sandbox.run("bg-image", &["default", "b"], "").json()["name"], "b");
    }
    assert_eq!(default(), "b");
    sandbox.run("bg-image", &["default", "nope"], "").failed_with(Code::NotFound);
    assert_eq!(default(), "b");
    sandbox.run("bg-image", &["rm", "b"], "").ok();
    sandbox.run("bg-image", &["default"], "").failed_with(Code::NotFound);
    fixture::register(&sandbox, "d");
    assert_eq!(default(), "d", "where there is none, the next one is it");
}

#[test]
fn an_image_in_use_stays_and_the_others_go() {
    let sandbox = Sandbox::new();
    for name in ["a", "b", "c"] {
        fixture::register(&sandbox, name);
    }
    fixture::create(&sandbox, "dev");
    let doc = sandbox.run("bg-image", &["rm", "b", "a", "c"], "").failed_with(Code::InUse);
    assert!(doc.message.contains("`dev`") && doc.hint.is_some(), "{doc:?}");
    let names: Vec<String> = children(&sandbox.state("images"))
        .iter()
        .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names, [".lock", "a"], "one that fails does not keep the others");
    // Nothing is known of a VM whose record is damaged, so it counts as a user.
    let record = sandbox.state("machines/dev/machine.json");
    write(&record, "junk").unwrap();
    sandbox.run("bg-image", &["rm", "a"], "").failed_with(Code::InUse);
    sandbox.run("bg-vm", &["rm", "dev"], "").ok();
    sandbox.run("bg-image", &["rm", "a"], "").ok();
    assert_eq!(sandbox.findings(&["--now"]), Vec::<Value>::new());
}

#[test]
fn lists_are_documents_in_a_pipe_and_tables_on_a_terminal() {
    let sandbox = Sandbox::new();
    let terminal = Terminals { stdout: true, ..Terminals::default() };
    let head = "NAME  DEFAULT  DISTRO  RELEASE  SIZE  REGISTERED\n";
    assert_eq!(sandbox.inside(|_, cx| image::ls(cx, ListArgs::default()), b"", terminal).ok(), head);
    assert_eq!(sandbox.run("bg-image", &["ls"], "").ok(), "");
    fixture::register(&sandbox, "a");
    fixture::register(&sandbox, "bb");
    fixture::create(&sandbox, "dev");
    let table = sandbox.inside(|_, cx| image::ls(cx, ListArgs::default()), b"", terminal).ok();
    let rows: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[1][..5], ["a", "*", "debian", "bookworm", "8.0M"]);
    assert_eq!(rows[2][..4], ["bb", "debian", "bookworm", "8.0M"]);
    assert_eq!(table.lines().nth(1).unwrap().find('*'), table.lines().next().unwrap().find("DEFAULT"));
    let vms = sandbox.inside(|_, cx| machine::ls(cx, ListArgs::default()), b"", terminal).ok();
    let rows: Vec<Vec<&str>> = vms.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(
        rows,
        [
            vec!["NAME", "STATE", "IMAGE", "VCPU", "MEMORY", "WORK", "ADDRESS"],
            vec!["dev", "stopped", "a", "1", "1.0G", "16.0M", "-"]
        ]
    );
    assert_eq!(
        sandbox.run("bg-vm", &["ls", "--output", "table"], "").ok(),
        vms,
        "the same table in a pipe, if asked for"
    );
    let names: Vec<Value> =
        sandbox.run("bg-image", &["ls"], "").documents().iter().map(|d| d["name"].clone()).collect();
    assert_eq!(names, ["a", "bb"]);
    // A damaged record is a remark and hides no other.
    write(sandbox.state("images/a/image.json"), "junk").unwrap();
    let done = sandbox.run("bg-image", &["ls"], "");
    assert_eq!(done.documents().len(), 1);
    assert!(done.stderr.starts_with("bg-image: a: "), "{}", done.stderr);
}

#[test]
fn a_seed_of_a_registered_image_is_kept_with_it() {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "a");
    let unseeded = sandbox.run("bg-seed", &["check", "a"], "");
    assert_eq!((unseeded.exit, &unseeded.documents()[0]["checks"][0]["fix"]), (1, &"bg-seed build a".into()));
    let doc = sandbox.run("bg-seed", &["build", "a", "--size", "32M", "--size", WORK, "--size", WORK], "").json();
    let sizes: Vec<u64> =
        doc["seed"]["sizes"].as_array().unwrap().iter().map(|s| s["size_bytes"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [fixture::WORK_BYTES, 32 << 20], "each once, the smallest first");
    let report = sandbox.run("bg-seed", &["check", "a"], "").json();
    assert_eq!(report["ok"], true, "{report}");
    let created = fixture::create(&sandbox, "dev").json();
    assert_eq!(created["disks"]["work"]["from_seed"], true, "{created}");
    let seed = sandbox.state(&format!("images/a/seed-{}.ext4", fixture::WORK_BYTES));
    let mut bytes = read(&seed).unwrap();
    bytes[5000] ^= 1;
    write(&seed, bytes).unwrap();
    let bad = sandbox.run("bg-seed", &["check", "a"], "");
    assert_eq!((bad.exit, &bad.documents()[0]["ok"]), (1, &false.into()), "{bad:?}");
    assert_eq!(sandbox.findings(&["--now"]), Vec::<Value>::new());
}

#[test]
fn an_image_that_a_vm_is_being_made_from_stays_and_a_half_made_vm_names_itself() {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "a");
    sandbox.run("bg-seed", &["clone"], fixture::plan(&sandbox, "dev")).ok();
    let doc = sandbox.run("bg-image", &["rm", "a"], "").failed_with(Code::InUse);
    assert!(doc.message.contains("`dev`"), "{doc:?}");
    sandbox.run("bg-vm", &["rm", "dev"], "").ok();
    sandbox.run("bg-image", &["rm", "a"], "").ok();
}

#[test]
fn a_vm_is_made_of_the_image_that_it_was_planned_with_or_not_at_all() {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "a");
    let plan = fixture::plan(&sandbox, "dev");
    let other = Files::new(&sandbox, "other").document().to_string();
    sandbox.run("bg-register", &["--name", "a", "--replace"], other).ok();
    let doc = sandbox.run("bg-seed", &["clone"], plan).failed_with(Code::BadDocument);
    assert!(doc.message.contains("was replaced") && doc.hint.is_some(), "{doc:?}");
    assert_eq!((children(&sandbox.state("machines")), sandbox.staged()), (NO_FILES, NO_FILES));
}

#[test]
fn seeds_built_for_the_store_take_the_place_of_those_before() {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "a");
    let seeds = || -> Vec<String> {
        let names = children(&sandbox.state("images/a")).into_iter().map(|p| p.file_name().unwrap().to_owned());
        names.map(|n| n.into_string().unwrap()).filter(|n| n.starts_with("seed-")).collect()
    };
    sandbox.run("bg-seed", &["build", "a", "--size", "16M", "--size", "24M"], "").ok();
    assert_eq!(seeds(), ["seed-16777216.ext4", "seed-25165824.ext4"]);
    sandbox.run("bg-seed", &["build", "a", "--size", "16M"], "").ok();
    assert_eq!(seeds(), ["seed-16777216.ext4"]);
    assert_eq!(sandbox.run("bg-seed", &["check", "a"], "").json()["ok"], true);
    // What is left where the build is killed before or after the record is saved.
    write(sandbox.state("images/a/seed-1.ext4"), "").unwrap();
    let found = sandbox.findings(&["--now"]);
    assert_eq!((found.len(), &found[0]["kind"]), (1, &"file".into()), "{found:?}");
    sandbox.collect();
    assert_eq!(seeds(), ["seed-16777216.ext4"]);
}

#[test]
fn who_copies_an_image_keeps_nobody_from_the_others() {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "a");
    let lock = lib_common::sys::lock::Lock::take(&sandbox.state("images/.lock"), std::time::Duration::ZERO).unwrap();
    let mut bad = Files::new(&sandbox, "b").document();
    bad["rootfs"]["digest"] = bad["kernel"]["digests"]["vmlinux"].clone();
    let child = sandbox.command("bg-register", &["--name", "b"]).env("BG_LOCK_WAIT", "0.01").spawn().unwrap();
    finish(child, bad.to_string().as_bytes()).failed_with(Code::DigestMismatch);
    drop(lock);
}
