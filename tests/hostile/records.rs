//! Records that a disk, or somebody, has changed: they are told of, kept, and nobody else's trouble.

use super::{bounded, flipped, full};
use crate::support::{Done, Sandbox, fixture};
use lib_common::doc::MAX_BYTES;
use std::fs::{read, write};
use std::path::Path;

/// A store with the image `debian` and the VMs `a`, whose record is to be damaged, and `b`.
fn store() -> Sandbox {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "debian");
    for name in ["a", "b"] {
        fixture::create(&sandbox, name);
    }
    sandbox
}

/// What no reader can take for the record that it was.
pub fn damages(good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let text = std::str::from_utf8(good).unwrap().trim_end();
    let with = |members: &str| format!("{},{members}}}\n", text.strip_suffix('}').unwrap()).into_bytes();
    vec![
        ("empty", vec![]),
        ("zeros, as a power failure leaves them", vec![0; good.len()]),
        ("too long", with(&format!(r#""x":"{}""#, "x".repeat(MAX_BYTES)))),
        ("deep", "[".repeat(100_000).into()),
        ("a member twice", with(r#""name":"a""#)),
        ("no UTF-8", [good, b"\xff"].concat()),
        ("of the version before", text.replacen("banger/v1", "banger/v0", 1).into()),
        ("of the next version", text.replacen("banger/v1", "banger/v2", 1).into()),
        ("of another kind", text.replacen(r#""kind":""#, r#""kind":"X"#, 1).into()),
        ("two of them", [good, good].concat()),
    ]
}

fn names(done: &Done) -> Vec<String> {
    done.documents().iter().map(|d| d["name"].as_str().unwrap().to_owned()).collect()
}

/// Whether bg-verify says something of that owner, or place.
fn is_found(sandbox: &Sandbox, what: &str) -> bool {
    let found = sandbox.findings(&["--now"]);
    found.iter().any(|f| f["owner"] == what || f["id"].as_str().is_some_and(|id| id.contains(what)))
}

/// Everything that a user might type next, but its removal. None of it may change the file.
fn try_everything(sandbox: &Sandbox, record: &Path, what: &str) {
    let before = read(record).unwrap();
    for (tool, args) in [
        ("bg-vm", &["show", "a"][..]),
        ("bg-vm", &["start", "a"]),
        ("bg-vm", &["stop", "a"]),
        ("bg-vm", &["restart", "a"]),
        ("bg-vm", &["kill", "a"]),
        ("bg-vm", &["stats", "a"]),
        ("bg-health", &["a"]),
        ("bg-ssh", &["a", "--", "true"]),
        ("bg-ssh", &["--known-hosts", "a"]),
    ] {
        let failed = sandbox.run(tool, args, "").failed();
        assert_eq!(failed.code, "bad_document", "{what}: {tool} {args:?}: {failed:?}");
    }
    sandbox.run("bg-vm", &["create", "a", "--no-start"], "").failed();
    let found = sandbox.run("bg-verify", &["--now"], "");
    sandbox.run("bg-gc", &["--now"], &found.stdout).ok();
    assert!(read(record).unwrap() == before, "{what}: the record was changed");
}

#[test]
fn a_damaged_vm_is_named_and_kept_and_the_others_are_listed() {
    let sandbox = store();
    let record = sandbox.state("machines/a/machine.json");
    let good = read(&record).unwrap();
    for (what, bad) in damages(&good) {
        write(&record, bad).unwrap();
        let done = bounded(&sandbox, &sandbox.command("bg-vm", &["ls"]), b"");
        assert_eq!((names(&done), done.exit), (vec!["b".to_owned()], 0), "{what}: {done:?}");
        assert!(done.stderr.starts_with("bg-vm: a: ") && done.stderr.contains("machine.json"), "{what}: {done:?}");
        assert!(is_found(&sandbox, "a"), "{what}");
        try_everything(&sandbox, &record, what);
        sandbox.run("bg-vm", &["show", "b"], "").ok();
    }
    // A file of four gigabytes is not read to its end.
    std::fs::File::create(&record).unwrap().set_len(4 << 30).unwrap();
    for (tool, args) in [("bg-vm", &["ls"][..]), ("bg-vm", &["show", "a"]), ("bg-verify", &["--now"])] {
        bounded(&sandbox, &sandbox.command(tool, args), b"");
    }
    assert_eq!(record.metadata().unwrap().len(), 4 << 30);
    write(&record, good).unwrap();
    assert_eq!(names(&sandbox.run("bg-vm", &["ls"], "")), ["a", "b"]);
}

#[test]
fn no_prefix_and_no_flipped_bit_hides_another_vm() {
    let sandbox = store();
    let record = sandbox.state("machines/a/machine.json");
    let good = read(&record).unwrap();
    let whole = good.len() - 1;
    let prefixes = (0..whole).step_by(if full() { 1 } else { 37 }).map(|end| good[..end].to_vec());
    for bad in prefixes {
        write(&record, &bad).unwrap();
        let done = sandbox.run("bg-vm", &["ls"], "");
        assert_eq!(names(&done), ["b"], "{}", String::from_utf8_lossy(&bad));
        assert!(done.stderr.starts_with("bg-vm: a: "), "{done:?}");
    }
    for bad in flipped(&good, if full() { 1 } else { 257 }) {
        write(&record, &bad).unwrap();
        let done = sandbox.run("bg-vm", &["ls"], "");
        let (listed, told) = (names(&done), done.stderr.starts_with("bg-vm: a: "));
        assert_eq!(done.exit, 0, "{done:?}");
        // What the bit stands for may be anybody's word; whoever is listed under `a`'s directory is `a`.
        let expected = if told { vec!["b"] } else { vec!["a", "b"] };
        assert_eq!(listed, expected, "{}", String::from_utf8_lossy(&bad));
    }
}

#[test]
fn what_lies_beside_a_record_is_damaged_for_its_own_vm_alone() {
    let sandbox = store();
    let good = sandbox.run("bg-vm", &["ls"], "");
    let state = |name: &str| sandbox.state(&format!("machines/a/{name}"));
    for name in ["exit.json", "journal", "known_hosts", "lock"] {
        let before = read(state(name)).ok();
        for bad in [&b""[..], b"junk", b"\xff\xff", &b"[".repeat(100_000)] {
            write(state(name), bad).unwrap();
            let done = bounded(&sandbox, &sandbox.command("bg-vm", &["ls"]), b"");
            assert_eq!(names(&done), names(&good), "{name}");
            sandbox.findings(&["--now"]);
        }
        match before {
            Some(before) => write(state(name), before).unwrap(),
            None => std::fs::remove_file(state(name)).unwrap(),
        }
    }
}

#[test]
fn a_damaged_image_is_named_and_kept_and_the_others_are_listed() {
    let sandbox = store();
    fixture::register(&sandbox, "void");
    let record = sandbox.state("images/debian/image.json");
    let good = read(&record).unwrap();
    for (what, bad) in damages(&good) {
        write(&record, &bad).unwrap();
        let done = bounded(&sandbox, &sandbox.command("bg-image", &["ls"]), b"");
        assert_eq!((names(&done), done.exit), (vec!["void".to_owned()], 0), "{what}: {done:?}");
        assert!(done.stderr.contains("debian"), "{what}: {done:?}");
        assert!(is_found(&sandbox, "debian"), "{what}");
        for (tool, args) in [("bg-image", &["show", "debian"][..]), ("bg-vm", &["plan", "new", "--image", "debian"])] {
            assert_eq!(sandbox.run(tool, args, "").failed().code, "bad_document", "{what}: {tool} {args:?}");
        }
        let again = fixture::Files::new(&sandbox, &what.replace([' ', ','], "-")).document().to_string();
        sandbox.run("bg-register", &["--name", "debian"], again).failed();
        let found = sandbox.run("bg-verify", &["--now"], "");
        sandbox.run("bg-gc", &["--now"], &found.stdout).ok();
        assert!(read(&record).unwrap() == bad, "{what}: the record was changed");
        // Its VMs have all that they need.
        sandbox.run("bg-vm", &["show", "a"], "").ok();
    }
    write(&record, good).unwrap();
    assert_eq!(names(&sandbox.run("bg-image", &["ls"], "")), ["debian", "void"]);
}
