use super::*;
use lib_common::doc::AbsPath;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};

fn base() -> (Rootfs, Kernel) {
    let path = |p: &str| AbsPath::new(p).unwrap();
    let digest = |text: &str| digest::of_bytes(text.as_bytes());
    let rootfs = Rootfs {
        distro: "debian".into(),
        release: "bookworm".into(),
        path: path("/r"),
        size_bytes: 2 << 30,
        digest: digest("rootfs"),
        manifest: path("/m"),
        manifest_digest: digest("manifest"),
    };
    let digests = [("initrd", digest("initrd")), ("modules", digest("modules"))];
    let kernel = Kernel {
        version: "6.1".into(),
        arch: "x86_64".into(),
        vmlinux: path("/v"),
        initrd: path("/i"),
        modules: Some(path("/lib/modules/6.1")),
        digests: digests.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<BTreeMap<_, _>>(),
    };
    (rootfs, kernel)
}

fn plan(recipe: &Recipe) -> Result<Plan> {
    let (rootfs, kernel) = base();
    Plan::of(recipe, &rootfs, &kernel)
}

fn copy_of(from: &Path, to: &str) -> OsString {
    let mut value = from.as_os_str().to_owned();
    value.push(":");
    value.push(to);
    value
}

#[test]
fn the_key_changes_with_what_counts_and_with_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (script, tree) = (dir.path().join("script"), dir.path().join("tree"));
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("f"), "x").unwrap();
    let (run, copy) = (Step::Run(script.clone()), Step::Copy(copy_of(&tree, "/srv/tree")));
    let recipe = |steps: &[Step]| Recipe { steps: steps.to_vec(), ..Recipe::default() };
    let packages = |names: &str| Step::Packages(names.into());
    let key = |recipe: &Recipe| plan(recipe).unwrap().key;
    let whole = recipe(&[packages("a,b"), copy.clone(), run.clone()]);
    let first = key(&whole);
    assert_eq!(key(&recipe(&[packages("b,a,a"), copy.clone(), run.clone()])), first, "order and doubles in a list");
    std::fs::File::open(tree.join("f")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(key(&whole), first, "times of files do not count");
    let mut others = vec![
        key(&recipe(&[copy.clone(), packages("a,b"), run.clone()])),
        key(&recipe(&[packages("a"), copy.clone(), run.clone()])),
        key(&recipe(&[packages("a,b"), Step::Copy(copy_of(&tree, "/srv/other")), run.clone()])),
        key(&Recipe { size: Some(3 << 30), ..whole.clone() }),
        key(&Recipe { modules: true, ..whole.clone() }),
    ];
    std::fs::set_permissions(tree.join("f"), PermissionsExt::from_mode(0o4755)).unwrap();
    others.push(key(&whole));
    std::fs::write(&script, "#!/bin/sh\n\n").unwrap();
    others.push(key(&whole));
    let (mut rootfs, kernel) = base();
    rootfs.digest = digest::of_bytes(b"another");
    others.push(Plan::of(&whole, &rootfs, &kernel).unwrap().key);
    let (rootfs, mut kernel) = base();
    kernel.digests.insert("initrd".into(), digest::of_bytes(b"another"));
    others.push(Plan::of(&whole, &rootfs, &kernel).unwrap().key);
    others.push(first);
    let count = others.len();
    others.sort();
    others.dedup();
    assert_eq!(others.len(), count, "each of these is another image");
}

#[test]
fn what_cannot_be_done_is_known_before_anything_is_begun() {
    let (missing, empty) = (Path::new("/nowhere/script"), tempfile::NamedTempFile::new().unwrap());
    for (step, code) in [
        (Step::Run(missing.into()), Code::MissingFile),
        (Step::Run(empty.path().into()), Code::BadValue),
        (Step::Packages("-y".into()), Code::BadValue),
        (Step::Packages("@nothing".into()), Code::BadValue),
        (Step::Copy("/etc/hostname".into()), Code::BadValue),
        (Step::Copy(":/etc".into()), Code::BadValue),
        (Step::Copy("/etc/hostname:relative".into()), Code::BadValue),
        (Step::Copy("/etc/hostname:/a/../b".into()), Code::BadValue),
        (Step::Copy("/etc/hostname:/".into()), Code::BadValue),
        (Step::Copy("/nowhere/file:/a".into()), Code::MissingFile),
    ] {
        let found = plan(&Recipe { steps: vec![step.clone()], ..Recipe::default() });
        match &step {
            // Into the root directory, under its own name.
            Step::Copy(value) if value == "/etc/hostname:/" => assert!(found.is_ok(), "{found:?}"),
            _ => assert_eq!(found.unwrap_err().code(), code, "{step:?}"),
        }
    }
    assert_eq!(plan(&Recipe { size: Some(1 << 30), ..Recipe::default() }).unwrap_err().code(), Code::BadValue);
}

/// Path, kind, mode, link target and content of an entry.
type Entry = (Vec<u8>, char, u32, String, Vec<u8>);

fn entries(value: &OsString) -> Vec<Entry> {
    let mut bytes = vec![];
    Copy::parse(value).unwrap().write_to(&mut bytes).unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    let entry = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut content = vec![];
        entry.read_to_end(&mut content).unwrap();
        let target = entry.link_name().unwrap().map(|t| t.display().to_string()).unwrap_or_default();
        let (kind, mode) = (entry.header().entry_type().as_byte() as char, entry.header().mode().unwrap());
        (entry.path_bytes().into_owned(), kind, mode, target, content)
    };
    archive.entries().unwrap().map(entry).collect()
}

#[test]
fn odd_names_modes_and_links_are_in_the_tar_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("a:/b");
    std::fs::create_dir_all(&tree).unwrap();
    let long = "l".repeat(250);
    let odd = OsString::from_vec(b"-n\n\xff \\".to_vec());
    std::fs::write(tree.join(&odd), "odd").unwrap();
    std::fs::write(tree.join(&long), "long").unwrap();
    std::fs::set_permissions(tree.join(&long), PermissionsExt::from_mode(0o6711)).unwrap();
    symlink("../somewhere else", tree.join("s")).unwrap();
    let found = entries(&copy_of(&tree, "/srv/x/y"));
    let paths: Vec<_> = found.iter().map(|(path, ..)| path.clone()).collect();
    let below = |name: &[u8]| [b"srv/x/y/", name].concat();
    let expected: Vec<Vec<u8>> = vec![
        b"srv/".to_vec(),
        b"srv/x/".to_vec(),
        b"srv/x/y/".to_vec(),
        below(b"-n\n\xff \\"),
        below(long.as_bytes()),
        below(b"s"),
    ];
    let bare = |p: &Vec<u8>| p.strip_suffix(b"/").unwrap_or(p).to_vec();
    assert_eq!(paths.iter().map(bare).collect::<Vec<_>>(), expected.iter().map(bare).collect::<Vec<_>>());
    assert_eq!((found[4].1, found[4].2, found[4].4.as_slice()), ('0', 0o6711, &b"long"[..]));
    assert_eq!((found[5].1, found[5].3.as_str()), ('2', "../somewhere else"));
    let into = entries(&copy_of(&tree.join("s"), "/opt/"));
    assert_eq!(into.last().unwrap().0, b"opt/s");
    let root = entries(&copy_of(&tree, "/"));
    assert!(root[0].0.starts_with(b"b"), "into the root directory, under its own name: {root:?}");
    let content = entries(&copy_of(&tree.join("."), "/"));
    assert_eq!(content[0].0, b"-n\n\xff \\", "the content alone, and nothing about the root directory itself");
}

#[test]
fn what_no_tar_should_carry_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let e = Copy::parse(&copy_of(dir.path(), "/srv/d")).unwrap_err();
    assert_eq!(e.code(), Code::BadInput);
    assert!(e.message().contains("socket"), "{e}");
}

#[test]
fn the_packages_of_all_steps_are_one_sorted_list() {
    let steps = ["zsh,tree", "tree,bat"].map(|names| Step::Packages(names.into())).to_vec();
    assert_eq!(plan(&Recipe { steps, ..Recipe::default() }).unwrap().packages(), ["bat", "tree", "zsh"]);
}
