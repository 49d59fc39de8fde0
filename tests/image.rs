//! Images that are compared, and records that are brought up to their files: without VMs.

#![allow(clippy::disallowed_types)]

use crate::support::fixture::{self, FOREIGN, Files, WORK};
use crate::support::{Sandbox, Terminals, children};
use lib_common::error::Code;
use lib_common::sys::lock::Lock;
use lib_tools::ops::image::{self, DiffArgs};
use serde_json::{Value, json};
use std::fs::{read, read_to_string, remove_file, write};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Packages as lines of a manifest: `NAME/VERSION/ARCHITECTURE`.
fn manifest(packages: &str) -> String {
    let lines = packages.split_whitespace().map(|one| {
        let words: Vec<&str> = one.split('/').collect();
        format!("{{\"name\":\"{}\",\"version\":\"{}\",\"architecture\":\"{}\"}}\n", words[0], words[1], words[2])
    });
    lines.collect()
}

/// A document of files with these packages, and where it lies.
fn document(sandbox: &Sandbox, mark: &str, packages: &str) -> (Value, PathBuf) {
    let files = Files::new(sandbox, mark);
    write(files.path("manifest"), manifest(packages)).unwrap();
    let doc = files.document();
    let path = files.path("image.json");
    write(&path, doc.to_string()).unwrap();
    (doc, path)
}

const A: &str = "gone/1/all libc6/1/amd64 libc6/1/i386 same/1/all";
const B: &str = "libc6/1/amd64 libc6/2/i386 new/1/all same/1/all";

#[test]
fn packages_are_compared_by_name_and_architecture() {
    let sandbox = Sandbox::new();
    let (a, _) = document(&sandbox, "a", A);
    let (mut b, path) = document(&sandbox, "b", B);
    b["kernel"]["version"] = "6.2.0-test".into();
    write(&path, b.to_string()).unwrap();
    sandbox.run("bg-register", &["--name", "a"], a.to_string()).ok();
    let same = sandbox.run("bg-image", &["diff", "a", "a"], "").json();
    assert_eq!(same["packages"], json!({"added": [], "removed": [], "changed": []}));

    let done = sandbox.run("bg-image", &["diff", "a", path.to_str().unwrap()], "");
    assert_eq!(done.exit, 1, "{done:?}");
    let diff = &done.documents()[0];
    let all = |name: &str| json!([{"name": name, "version": "1", "architecture": "all"}]);
    assert_eq!(
        (&diff["kind"], &diff["a"], &diff["b"]),
        (&"ImageDiff".into(), &"a".into(), &path.to_str().unwrap().into())
    );
    let changed = json!([{"name": "libc6", "architecture": "i386", "from": "1", "to": "2"}]);
    assert_eq!(diff["packages"], json!({"added": all("new"), "removed": all("gone"), "changed": changed}));
    assert_eq!(diff["kernel"], json!({"from": "6.1.0-test", "to": "6.2.0-test"}));
    assert_eq!(diff["sizes"]["rootfs_bytes"], json!({"from": 8 << 20, "to": 8 << 20}));
    assert!(diff["sizes"]["allocated_bytes"]["from"].as_u64().is_some_and(|n| n > 0), "{diff}");

    // The kernel alone is a difference, too.
    let (mut c, path) = document(&sandbox, "c", A);
    c["kernel"]["version"] = "6.2.0-test".into();
    write(&path, c.to_string()).unwrap();
    assert_eq!(sandbox.run("bg-image", &["diff", "a", path.to_str().unwrap()], "").exit, 1);
}

#[test]
fn a_comparison_is_a_table_on_a_terminal() {
    let sandbox = Sandbox::new();
    for (name, packages) in [("a", A), ("b", B)] {
        let (doc, _) = document(&sandbox, name, packages);
        sandbox.run("bg-register", &["--name", name], doc.to_string()).ok();
    }
    let terminal = Terminals { stdout: true, ..Terminals::default() };
    let shown = sandbox.inside(
        |_, cx| image::diff(cx, &DiffArgs { a: "a".parse()?, b: "b".parse()?, table: None }),
        b"",
        terminal,
    );
    assert_eq!(shown.exit, 1, "{shown:?}");
    let text = shown.text();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let expected = [
        &["PACKAGE", "ARCHITECTURE", "a", "b"][..],
        &["-", "gone", "all", "1", "-"],
        &["~", "libc6", "i386", "1", "2"],
        &["+", "new", "all", "-", "1"],
        &[],
        &["IMAGE", "a", "b"],
        &["kernel", "6.1.0-test", "6.1.0-test"],
        &["size", "8.0M", "8.0M"],
    ];
    assert_eq!(rows[..8], expected, "{text}");
    assert_eq!(sandbox.run("bg-image", &["diff", "a", "b", "--output", "table"], "").text(), text);
}

#[test]
fn a_manifest_that_is_not_what_was_registered_is_compared_with_nothing() {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "a");
    fixture::register(&sandbox, "b");
    let path = sandbox.state("images/b/manifest");
    write(&path, manifest("other/1/all")).unwrap();
    let doc = sandbox.run("bg-image", &["diff", "a", "b"], "").failed_with(Code::DigestMismatch);
    assert!(doc.message.contains(path.to_str().unwrap()) && doc.hint.is_some(), "{doc:?}");
    remove_file(&path).unwrap();
    sandbox.run("bg-image", &["diff", "a", "b"], "").failed_with(Code::MissingFile);
    sandbox.run("bg-image", &["diff", "a", "./nowhere"], "").failed_with(Code::MissingFile);
}

/// A store with the image `a`: a kernel that could be one, a module tree, a seed and foreign sections.
struct Store {
    sandbox: Sandbox,
}

const OLD: &str = "6.1.0-old";
const NEW: &str = "6.1.0-new";

impl Store {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let doc = fixture::with_kernel(&sandbox, "a", OLD);
        let seeded = sandbox.run("bg-seed", &["build", "--size", WORK], fixture::with_foreign(&doc.to_string())).ok();
        sandbox.run("bg-register", &["--name", "a"], seeded).ok();
        Store { sandbox }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.sandbox.state("images/a").join(name)
    }

    fn record(&self) -> String {
        read_to_string(self.file("image.json")).unwrap()
    }

    fn parsed(&self) -> Value {
        // No number of serde_json's holds the foreign ones.
        serde_json::from_str(&self.record().replace(&format!("{FOREIGN},"), "")).unwrap()
    }

    /// Reconciles, prints the record that then is there, and leaves an image whose every file is what that says.
    #[track_caller]
    fn reconcile(&self, args: &[&str], stdin: &str) -> Value {
        let before = self.parsed();
        let done = self.sandbox.run("bg-image", &[&["reconcile"], args].concat(), stdin);
        assert_eq!(done.ok(), self.record());
        let now = self.parsed();
        assert!(self.record().contains(FOREIGN), "{now}");
        for section in ["/registered/at", "/rootfs", "/name"] {
            assert_eq!(now.pointer(section).unwrap(), before.pointer(section).unwrap());
        }
        let mut again = now.clone();
        again["name"] = "again".into();
        self.sandbox.run("bg-register", &["--replace"], again.to_string()).ok();
        assert_eq!(self.sandbox.run("bg-seed", &["check", "a"], "").json()["ok"], true);
        assert_eq!(self.sandbox.findings(&["--now"]), Vec::<Value>::new());
        assert_eq!(self.sandbox.staged(), Vec::<PathBuf>::new());
        now
    }

    /// It is refused, and the record is as it was.
    #[track_caller]
    fn refuses(&self, args: &[&str], stdin: &str, code: Code) -> lib_common::doc::ErrorDoc {
        let before = self.record();
        let doc = self.sandbox.run("bg-image", &[&["reconcile"], args].concat(), stdin).failed_with(code);
        assert_eq!(self.record(), before);
        assert_eq!(self.sandbox.staged(), Vec::<PathBuf>::new());
        assert!(doc.hint.is_some(), "{doc:?}");
        doc
    }
}

#[test]
fn a_record_that_is_right_is_left_alone_byte_for_byte() {
    let store = Store::new();
    let record = store.record();
    for args in [&["reconcile", "a"][..], &["reconcile"]] {
        let done = store.sandbox.run("bg-image", args, "");
        assert_eq!((done.ok(), store.record()), (record.clone(), record.clone()));
        assert!(done.stderr.contains("nothing was changed"), "{}", done.stderr);
    }
    // Nor does the kernel that it has already change it.
    let done = store.sandbox.run("bg-image", &["reconcile", "a", "--kernel", "-"], &record);
    assert_eq!((done.ok(), store.record()), (record.clone(), record));
}

#[test]
fn seeds_that_are_missing_damaged_or_stale_are_made_anew() {
    let store = Store::new();
    let seed = store.file(&format!("seed-{}.ext4", fixture::WORK_BYTES));
    let good = read(&seed).unwrap();
    remove_file(&seed).unwrap();
    store.reconcile(&["a"], "");
    assert!(read(&seed).unwrap() == good, "equal homes give equal seeds");

    let mut bad = good.clone();
    bad[5000] ^= 1;
    write(&seed, bad).unwrap();
    store.reconcile(&["a"], "");
    assert!(read(&seed).unwrap() == good);

    let record = store.record();
    let source = record.split("\"source_digest\":\"").nth(1).unwrap().split('"').next().unwrap();
    let stale = record
        .replace(&format!("\"source_digest\":\"{source}"), &format!("\"source_digest\":\"sha256:{}", "0".repeat(64)));
    write(store.file("image.json"), stale).unwrap();
    let doc = store.reconcile(&[], "");
    assert_eq!(doc["seed"]["source_digest"], doc["rootfs"]["digest"]);
    let sizes = |doc: &Value| {
        doc["seed"]["sizes"].as_array().unwrap().iter().map(|s| s["size_bytes"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(sizes(&doc), [fixture::WORK_BYTES], "the sizes that it had");

    let record = store.record();
    let (head, rest) = record.split_once("\"seed\":").unwrap();
    let rest = rest.split_once("]},").unwrap().1;
    write(store.file("image.json"), format!("{head}{rest}")).unwrap();
    remove_file(&seed).unwrap();
    let doc = store.reconcile(&["a"], "");
    assert_eq!(sizes(&doc), [2 << 30, 8 << 30], "the sizes that `bg-seed build` makes");
}

#[test]
fn a_kernel_that_was_rebuilt_in_its_place_is_recorded() {
    let store = Store::new();
    write(store.file("initrd"), "070701 another").unwrap();
    let doc = store.reconcile(&["a"], "");
    assert_eq!(doc["kernel"]["version"], OLD);
    write(store.file("vmlinux"), fixture::kernel(NEW)).unwrap();
    store.refuses(&["a"], "", Code::BadInput);
    let trees = store.file("modules/lib/modules");
    std::fs::create_dir(trees.join(NEW)).unwrap();
    write(trees.join(NEW).join("modules.dep"), "new").unwrap();
    let doc = store.reconcile(&["a"], "");
    assert_eq!(doc["kernel"]["version"], NEW);
    assert_eq!(doc["kernel"]["modules"], trees.join(NEW).to_str().unwrap());
    std::fs::remove_dir_all(trees.join(OLD)).unwrap();
    let record = store.record();
    store.reconcile(&["a"], "");
    assert_eq!(store.record(), record);
}

#[test]
fn what_is_no_kernel_is_not_recorded_and_what_is_missing_is_asked_for() {
    let store = Store::new();
    for (file, bytes) in [("vmlinux", &b"\x7fELF no kernel"[..]), ("vmlinux", b""), ("initrd", b"no cpio")] {
        let good = read(store.file(file)).unwrap();
        remove_file(store.file(file)).unwrap();
        let doc = store.refuses(&["a"], "", Code::MissingFile);
        assert!(doc.hint.unwrap().contains("bg-kernel build | bg-image reconcile --kernel - a"));
        write(store.file(file), bytes).unwrap();
        store.refuses(&["a"], "", Code::BadInput);
        remove_file(store.file(file)).unwrap();
        write(store.file(file), good).unwrap();
    }
    std::fs::remove_dir_all(store.file("modules")).unwrap();
    let doc = store.refuses(&["a"], "", Code::MissingFile);
    assert!(doc.message.contains("modules"), "{doc:?}");
    let kernel = fixture::with_kernel(&store.sandbox, "again", OLD);
    store.reconcile(&["a", "--kernel", "-"], &kernel.to_string());
}

#[test]
fn another_kernel_takes_the_place_of_the_old_one_and_vms_keep_theirs() {
    let store = Store::new();
    let made = store.sandbox.run("bg-vm", &["create", "dev", "--no-start", "--work-size", WORK], "");
    made.ok();
    let own = ["vmlinux", "initrd"].map(|file| read(store.sandbox.state("machines/dev").join(file)).unwrap());
    let mut kernel = fixture::with_kernel(&store.sandbox, "new", NEW);
    kernel["timings"] = json!([{"tool": "bg-kernel", "stage": "unpack", "ms": 1.5}]);
    kernel["z"] = "of the kernel's document".into();
    let path = store.sandbox.path("kernel.json");
    write(&path, kernel.to_string()).unwrap();
    let mut bad = kernel.clone();
    bad["kernel"]["digests"]["initrd"] = bad["kernel"]["digests"]["vmlinux"].clone();
    store.refuses(&["a", "--kernel", "-"], &bad.to_string(), Code::DigestMismatch);

    let before = std::fs::metadata(store.file("rootfs.ext4")).unwrap();
    let doc = store.reconcile(&["a", "--kernel", path.to_str().unwrap()], "");
    assert_eq!(doc["kernel"]["version"], NEW);
    assert_eq!(doc["kernel"]["vmlinux"], store.file("vmlinux").to_str().unwrap());
    assert_eq!(read(store.file("vmlinux")).unwrap(), fixture::kernel(NEW));
    assert_eq!(children(&store.file("modules/lib/modules")), [store.file("modules/lib/modules").join(NEW)]);
    assert!(doc.get("z").is_none(), "of the kernel's document its kernel is taken: {doc}");
    let tools: Vec<&str> = doc["timings"].as_array().unwrap().iter().map(|t| t["tool"].as_str().unwrap()).collect();
    assert!(tools.contains(&"bg-kernel") && tools.last() == Some(&"bg-image"), "{tools:?}");
    use std::os::unix::fs::MetadataExt;
    let after = std::fs::metadata(store.file("rootfs.ext4")).unwrap();
    assert_eq!(before.ino(), after.ino(), "the root file system is not copied");
    let now = ["vmlinux", "initrd"].map(|file| read(store.sandbox.state("machines/dev").join(file)).unwrap());
    assert!(own == now, "the VM has the kernel that it was made with");
}

#[test]
fn who_changes_an_image_meanwhile_has_the_last_word_and_nobody_waits_for_the_work() {
    let store = Store::new();
    let kernel = fixture::with_kernel(&store.sandbox, "new", NEW).to_string();
    for (n, args) in [&["reconcile", "a", "--kernel", "-"][..], &["reconcile", "a"]].into_iter().enumerate() {
        write(store.file("initrd"), format!("070701 {n}")).unwrap();
        let events = store.sandbox.path(&format!("events-{n}"));
        let lock = Lock::take(&store.sandbox.state("images/.lock"), Duration::ZERO).unwrap();
        let mut child = store.sandbox.command("bg-image", args).env("BG_EVENTS", &events).spawn().unwrap();
        child.stdin.take().unwrap().write_all(if n == 0 { kernel.as_bytes() } else { b"" }).unwrap();
        let begun = Instant::now();
        while !read_to_string(&events).unwrap_or_default().contains("\"stage\":\"record\"") {
            assert!(begun.elapsed() < Duration::from_secs(60), "it waits for the lock with its work not done");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let other = store.record().replacen("bookworm", "bullseye", 1);
        let other = if n == 0 { other } else { store.record().replacen("bullseye", "bookworm", 1) };
        write(store.file("image.json"), &other).unwrap();
        drop(lock);
        let doc = crate::support::finish(child, b"").failed_with(Code::InUse);
        assert!(doc.hint.is_some(), "{doc:?}");
        assert_eq!((store.record(), store.sandbox.staged()), (other, vec![]));
    }
}

#[test]
fn a_root_file_system_that_has_changed_is_never_recorded() {
    let store = Store::new();
    let seed = store.file(&format!("seed-{}.ext4", fixture::WORK_BYTES));
    remove_file(seed).unwrap();
    for file in ["rootfs.ext4", "manifest"] {
        let good = read(store.file(file)).unwrap();
        let mut bad = good.clone();
        bad[7] ^= 1;
        write(store.file(file), bad).unwrap();
        let doc = store.refuses(&["a"], "", Code::DigestMismatch);
        assert!(doc.message.contains(file) && doc.hint.unwrap().contains("--replace"), "{}", doc.message);
        remove_file(store.file(file)).unwrap();
        store.refuses(&["a"], "", Code::MissingFile);
        write(store.file(file), good).unwrap();
    }
    store.reconcile(&["a"], "");
}

#[test]
fn an_image_without_a_seed_gives_vms_all_the_same_and_the_timings_say_how() {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "old");
    let doc = fixture::create(&sandbox, "dev").json();
    assert_eq!((&doc["disks"]["work"]["method"], &doc["disks"]["work"]["from_seed"]), (&"built".into(), &false.into()));
    let stages: Vec<&str> = doc["timings"].as_array().unwrap().iter().map(|t| t["stage"].as_str().unwrap()).collect();
    assert!(stages.contains(&"make_work") && !stages.contains(&"clone_work"), "{stages:?}");
    let disk = sandbox.state("machines/dev/work.ext4");
    let read = Command::new("debugfs").args(["-R", "cat /.bashrc"]).arg(disk).output().unwrap();
    assert_eq!(String::from_utf8(read.stdout).unwrap(), "# for tests\n", "the image's own /root");
}

#[test]
fn an_image_whose_files_are_gone_is_reported_and_no_vmm_is_an_error() {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "a");
    let child = sandbox.command("bg-image", &["verify"]).env("BG_QEMU", "/no/qemu").spawn().unwrap();
    crate::support::finish(child, b"").failed_with(Code::MissingProgram);
    assert_eq!(children(&sandbox.state("machines")), Vec::<PathBuf>::new());
    remove_file(sandbox.state("images/a/rootfs.ext4")).unwrap();
    let done = sandbox.run("bg-image", &["verify", "a"], "");
    let report = &done.documents()[0];
    assert_eq!((done.exit, &report["subject"], &report["ok"]), (1, &"image a".into(), &false.into()));
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.len() == 11 && checks.iter().all(|c| c["ok"] == false && c["fix"].is_string()), "{report}");
    assert!(checks.last().unwrap()["message"].as_str().unwrap().contains("rootfs.ext4 is missing"), "{report}");
    assert_eq!(children(&sandbox.state("machines")), Vec::<PathBuf>::new());
}
