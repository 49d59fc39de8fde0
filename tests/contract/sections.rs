//! Sections: a tool is strict with those that it reads, and leaves all others alone, byte for byte.

use crate::support::fixture::{self, FOREIGN, Files, WORK};
use crate::support::{Done, Sandbox};
use lib_common::error::Code;
use serde_json::Value;

/// A filter, and the sections that it reads.
const READERS: &[(&str, &[&str], &[&str])] = &[
    ("bg-register", &["--name", "b"], &["kernel", "rootfs", "seed"]),
    ("bg-seed", &["build", "--size", WORK], &["rootfs"]),
    ("bg-seed", &["check"], &["rootfs", "seed"]),
    ("bg-seed", &["clone"], &["spec", "image"]),
    ("bg-image-build", &[], &["kernel", "rootfs"]),
    ("bg-image", &["reconcile", "a", "--kernel", "-"], &["kernel"]),
];

/// A store with the image `a`, the `Image` document of files outside of it with a seed, and a plan of the VM `dev`.
fn documents() -> (Sandbox, String, String) {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "a");
    let image = Files::new(&sandbox, "b").document().to_string();
    let image = sandbox.run("bg-seed", &["build", "--size", WORK], image).ok();
    let machine = fixture::plan(&sandbox, "dev");
    (sandbox, image, machine)
}

fn of<'a>(args: &[&str], image: &'a str, machine: &'a str) -> &'a str {
    if args.first() == Some(&"clone") { machine } else { image }
}

/// The document with its text changed inside one section: right after its opening brace.
fn inserted(doc: &str, section: &str, text: &str) -> String {
    let key = format!("\"{section}\":{{");
    assert_eq!(doc.matches(&key).count(), 1, "{section} in {doc}");
    doc.replace(&key, &format!("{key}{text},"))
}

fn says(done: &Done, words: &[&str]) {
    let doc = done.failed_with(Code::BadDocument);
    let all = format!("{} {:?} {:?}", doc.message, doc.causes, doc.hint);
    for word in words {
        assert!(all.contains(word), "{word:?} is missing: {all}");
    }
}

#[test]
fn an_unknown_field_is_named_with_the_nearest_known_one() {
    let (sandbox, image, machine) = documents();
    let misspelt = [
        ("kernel", "vmlinx", "vmlinux"),
        ("rootfs", "relase", "release"),
        ("seed", "sizs", "sizes"),
        ("spec", "vpcu", "vcpu"),
        ("image", "rotfs", "rootfs"),
    ];
    for (tool, args, sections) in READERS {
        for section in *sections {
            let (_, wrong, right) = misspelt.iter().find(|(s, ..)| s == section).unwrap();
            let doc = of(args, &image, &machine);
            // `rootfs` and `kernel` of a machine stand in its section `image`.
            let text = inserted(doc, section, &format!("\"{wrong}\":1"));
            let done = sandbox.run(tool, args, text);
            says(&done, &[&format!("`{section}`"), wrong, &format!("did you mean `{right}`?")]);
        }
    }
    assert!(!sandbox.state("machines/dev").exists() && !sandbox.state("images/b").exists());
}

#[test]
fn a_field_that_stands_twice_is_an_error() {
    let (sandbox, image, machine) = documents();
    let first =
        [("kernel", "version"), ("rootfs", "distro"), ("seed", "source_digest"), ("spec", "image"), ("image", "name")];
    for (tool, args, sections) in READERS {
        for section in *sections {
            let (_, field) = first.iter().find(|(s, _)| s == section).unwrap();
            let doc = of(args, &image, &machine);
            let value: Value = serde_json::from_str(doc).unwrap();
            let text = inserted(doc, section, &format!("\"{field}\":{}", value[section][field]));
            says(&sandbox.run(tool, args, text), &[&format!("duplicate field `{field}`")]);
        }
    }
}

#[test]
fn a_digest_that_stands_twice_is_an_error() {
    let (sandbox, image, _) = documents();
    let value: Value = serde_json::from_str(&image).unwrap();
    let text = inserted(&image, "digests", &format!("\"vmlinux\":{}", value["kernel"]["digests"]["vmlinux"]));
    says(&sandbox.run("bg-register", &["--name", "b"], text), &["vmlinux"]);
}

#[test]
fn a_value_of_the_wrong_type_is_named() {
    let (sandbox, image, machine) = documents();
    let cases: &[(usize, &str, Value)] = &[
        (0, "/rootfs/path", "relative/path".into()),
        (0, "/rootfs/path", "/a/../b".into()),
        (0, "/rootfs/digest", "sha256:XYZ".into()),
        (0, "/rootfs/digest", "md5:abc".into()),
        (0, "/rootfs/size_bytes", "8G".into()),
        (0, "/rootfs/size_bytes", (-1).into()),
        (0, "/kernel/digests", Value::Null),
        (3, "/spec/vcpu", "two".into()),
        (3, "/spec/vmm", "bochs".into()),
        (3, "/image/name", "No Name".into()),
        (3, "/id", "not an id".into()),
        (3, "/name", "../dev".into()),
    ];
    for (reader, pointer, wrong) in cases {
        let (tool, args, _) = READERS[*reader];
        let mut doc: Value = serde_json::from_str(of(args, &image, &machine)).unwrap();
        *doc.pointer_mut(pointer).unwrap() = wrong.clone();
        let failed = sandbox.run(tool, args, doc.to_string()).failed();
        let field = pointer.rsplit('/').next().unwrap();
        let said = format!("{failed:?}");
        assert_eq!(failed.exit, 65, "{pointer} = {wrong}: {said}");
        assert!(said.contains(field) || said.contains(wrong.as_str().unwrap_or(field)), "{pointer} = {wrong}: {said}");
    }
}

#[test]
fn a_section_that_is_missing_names_the_tool_that_writes_it() {
    let (sandbox, image, machine) = documents();
    let owners = [("kernel", "bg-kernel"), ("rootfs", "bg-rootfs"), ("spec", "bg-vm plan"), ("image", "bg-vm plan")];
    for (tool, args, sections) in READERS {
        for (section, owner) in owners.iter().filter(|(s, _)| sections.contains(s)) {
            let mut doc: Value = serde_json::from_str(of(args, &image, &machine)).unwrap();
            doc.as_object_mut().unwrap().shift_remove(*section).unwrap();
            says(&sandbox.run(tool, args, doc.to_string()), &[&format!("`{section}`"), owner]);
        }
    }
}

#[test]
fn foreign_sections_come_out_as_they_went_in() {
    let (sandbox, image, machine) = documents();
    // A seed of its own: `bg-seed build` reads what `bg-register` then stores.
    let of_a = sandbox.run("bg-image", &["show", "a"], "").ok();
    let image = sandbox.run("bg-seed", &["build", "--size", WORK], fixture::with_foreign(&image)).ok();
    assert!(image.contains(FOREIGN), "bg-seed build: {image}");
    let registered = sandbox.run("bg-register", &["--name", "b"], &image).ok();
    assert!(registered.contains(FOREIGN), "bg-register: {registered}");
    let record = std::fs::read_to_string(sandbox.state("images/b/image.json")).unwrap();
    assert!(record.contains(FOREIGN), "the record: {record}");
    assert!(sandbox.run("bg-image", &["show", "b"], "").ok().contains(FOREIGN));
    let reconciled = sandbox.run("bg-image", &["reconcile", "b", "--kernel", "-"], fixture::with_foreign(&of_a)).ok();
    assert!(reconciled.contains(FOREIGN), "bg-image reconcile: {reconciled}");
    let cloned = sandbox.run("bg-seed", &["clone"], fixture::with_foreign(&machine)).ok();
    assert!(cloned.contains(FOREIGN), "bg-seed clone: {cloned}");
}

#[test]
fn a_document_on_several_lines_goes_out_on_one() {
    let (sandbox, image, _) = documents();
    let value: Value = serde_json::from_str(&image).unwrap();
    let pretty = serde_json::to_string_pretty(&value).unwrap();
    let out = sandbox.run("bg-register", &["--name", "b"], pretty).json();
    assert_eq!(out["rootfs"]["digest"], value["rootfs"]["digest"]);
}
