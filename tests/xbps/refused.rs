//! Repositories with something wrong in them, given to `bg-rootfs build --distro void`: each is refused, by the package's
//! name, before any guest is booted, and nothing is written but into the cache of downloads.

use crate::support::fixture::Files;
use crate::support::served::Served;
use crate::support::xbps::key::SigningKey;
use crate::support::xbps::package::{Content, Entry, PackageSpec};
use crate::support::xbps::repository::Repository;
use crate::support::{Done, Sandbox, children};
use lib_common::digest::of_bytes;
use std::path::{Path, PathBuf};

/// The package that something is wrong with, and another one beside it.
const VICTIM: &str = "bgvictim";
const OTHER: &str = "bgother";

/// Whatever a base is made of, as packages with nothing in them.
const BASE: &[&str] = &[
    "base-container",
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "dhcpcd",
    "e2fsprogs",
    "file",
    "iproute2",
    "iputils",
    "kmod",
    "less",
    "ncurses",
    "openssh",
    "procps-ng",
    "runit-void",
    "shadow",
    "sudo",
    "util-linux",
    "xbps",
];

fn victim() -> PackageSpec {
    PackageSpec::new(VICTIM, "1_1").file("usr/share/bgvictim/fine", "fine\n", 0o644)
}

fn other() -> PackageSpec {
    PackageSpec::new(OTHER, "1_1").file("usr/share/bgother/fine", "fine\n", 0o644)
}

/// With an entry that no honest tool writes.
fn with(path: &str, content: Content) -> PackageSpec {
    let mut spec = victim();
    spec.entries.push(Entry { path: path.into(), content, mode: 0o644, uid: 0, gid: 0 });
    spec
}

fn file() -> Content {
    Content::File(b"escaped\n".to_vec())
}

/// A repository of the base and what `add` adds.
fn repository(sandbox: &Sandbox, name: &str, add: impl FnOnce(Repository) -> Repository) -> PathBuf {
    let dir = sandbox.path(name);
    std::fs::create_dir(&dir).unwrap();
    let base = BASE.iter().fold(Repository::new(&dir), |all, name| all.add(&PackageSpec::new(name, "1_1")));
    add(base).write(std::env::consts::ARCH)
}

fn build(sandbox: &Sandbox, repository: &str, more: &[&str]) -> Done {
    let files = Files::new(sandbox, &format!("kernel-{}", sandbox.path("").read_dir().unwrap().count()));
    let wanted = format!("{VICTIM},{OTHER}");
    let args = ["build", "--distro", "void", "--repository", repository, "--packages", &wanted];
    sandbox.run("bg-rootfs", &[&args[..], more].concat(), files.document().to_string())
}

/// It is refused, with a word about the package.
#[track_caller]
fn refused(sandbox: &Sandbox, what: &str, done: &Done) -> String {
    let doc = done.failed();
    let said = format!("{} {:?} {:?}", doc.message, doc.causes, doc.details);
    assert!(said.contains(VICTIM), "{what}: {said}");
    assert!(!["internal", "usage"].contains(&doc.code.as_str()), "{what}: {said}");
    let roots = children(&sandbox.path("cache/rootfs")).into_iter().filter(|path| path.is_dir());
    assert_eq!(roots.collect::<Vec<_>>(), Vec::<PathBuf>::new(), "{what}: no root file system");
    assert_eq!(children(&sandbox.state("machines")), Vec::<PathBuf>::new(), "{what}: no guest");
    assert!(!anywhere(&sandbox.path(""), "escaped"), "{what}: it was written");
    said
}

/// Whether there is a file of that name.
fn anywhere(dir: &Path, name: &str) -> bool {
    let is_it = |path: &PathBuf| path.file_name().is_some_and(|n| n == name) || path.is_dir() && anywhere(path, name);
    children(dir).iter().filter(|path| !path.is_symlink()).any(is_it)
}

#[test]
fn a_good_repository_is_planned_and_a_hostile_archive_is_refused() {
    let sandbox = Sandbox::new();
    let good = repository(&sandbox, "good", |all| all.add(&victim()).add(&other()));
    let planned = build(&sandbox, good.to_str().unwrap(), &["--dry-run"]);
    let line = r#"{"name":"bgvictim","version":"1_1","architecture":"noarch"}"#;
    assert!(planned.exit == 0 && planned.text().lines().any(|l| l == line), "{planned:?}");

    let mut linked = with("etc/out", Content::Symlink("../../..".into()));
    linked = linked.file("etc/out/escaped", "escaped\n", 0o644);
    let cases = vec![
        ("a path that leads out", with("../escaped", file())),
        ("one that leads out further down", with("usr/../../escaped", file())),
        ("an absolute path", with("/escaped", file())),
        ("a file behind a link that leads out", linked),
        ("a hard link out", with("usr/bin/x", Content::Hardlink("../../../etc/passwd".into()))),
        ("a hard link to nothing", with("usr/bin/x", Content::Hardlink("usr/bin/nothing".into()))),
        ("a device", with("usr/bin/null", Content::Device)),
        ("an entry twice", with("usr/share/bgvictim/fine", file())),
        ("a file below a file", with("usr/share/bgvictim/fine/x", file())),
        ("another's file", with("usr/share/bgother/fine", file())),
    ];
    for (what, spec) in cases {
        let dir = repository(&sandbox, what, |all| all.add(&spec).add(&other()));
        refused(&sandbox, what, &build(&sandbox, dir.to_str().unwrap(), &[]));
    }
}

#[test]
fn an_archive_that_is_not_what_the_index_says_is_refused() {
    let sandbox = Sandbox::new();
    let whole = victim().archive();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        bytes
    };
    let mut later = victim();
    later.version = "2_1".into();
    let mut foreign = victim();
    foreign.arch = "aarch64".into();
    let mut needy = victim();
    needy.run_depends = vec![format!("{OTHER}>=1_1")];
    let half = &whole[..whole.len() / 2];
    let sum = || plist::Value::String("0".repeat(64));
    let true_sum = || plist::Value::String(of_bytes(&whole).hex().to_owned());
    type Add<'a> = Box<dyn Fn(Repository) -> Repository + 'a>;
    let cases: Vec<(&str, Add<'_>)> = vec![
        ("another digest", Box::new(|all| all.add(&victim()).say(VICTIM, "filename-sha256", sum()))),
        ("another size", Box::new(|all| all.add(&victim()).say(VICTIM, "filename-size", 7_u64.into()))),
        ("half of it", Box::new(|all| all.add_as(&victim(), half))),
        ("a bit flipped in front", Box::new(|all| all.add_as(&victim(), &flipped(9)))),
        (
            "a bit flipped in the middle",
            Box::new(|all| all.add_as(&victim(), &flipped(whole.len() / 2)).say(VICTIM, "filename-sha256", true_sum())),
        ),
        ("no archive", Box::new(|all| all.add_as(&victim(), b"<html>not found</html>"))),
        ("another version", Box::new(|all| all.add_as(&victim(), &later.archive()))),
        ("another architecture", Box::new(|all| all.add_as(&victim(), &foreign.archive()))),
        ("another package", Box::new(|all| all.add_as(&victim(), &other().archive()))),
        ("other dependencies", Box::new(|all| all.add_as(&victim(), &needy.archive()))),
    ];
    for (what, add) in cases {
        let dir = repository(&sandbox, what, |all| add(all).add(&other()));
        refused(&sandbox, what, &build(&sandbox, dir.to_str().unwrap(), &[]));
    }
}

#[test]
fn what_cannot_be_installed_together_is_refused() {
    let sandbox = Sandbox::new();
    let changed = |change: &dyn Fn(&mut PackageSpec)| {
        let mut spec = victim();
        change(&mut spec);
        spec
    };
    let list = |item: &str| vec![item.to_owned()];
    for (what, spec, word) in [
        ("no such package", changed(&|s| s.run_depends = list("bgnothing>=0")), "bgnothing"),
        ("a version too new", changed(&|s| s.run_depends = list("bgother>=1.1_1")), OTHER),
        ("a version too old", changed(&|s| s.run_depends = list("bgother>=0<1_1")), OTHER),
        ("not exactly that one", changed(&|s| s.run_depends = list("bgother-1_2")), OTHER),
        ("a library that nobody has", changed(&|s| s.shlib_requires = list("libbgnone.so.7")), "libbgnone.so.7"),
        ("a conflict", changed(&|s| s.conflicts = list("bgother>=0")), OTHER),
    ] {
        let dir = repository(&sandbox, what, |all| all.add(&spec).add(&other()));
        let said = refused(&sandbox, what, &build(&sandbox, dir.to_str().unwrap(), &[]));
        assert!(said.contains(word), "{what}: {said}");
    }
}

#[test]
fn a_package_that_another_one_replaces_is_left_out_with_a_remark() {
    let sandbox = Sandbox::new();
    let mut spec = victim();
    spec.replaces = vec!["bgother>=0".to_owned()];
    let dir = repository(&sandbox, "replaces", |all| all.add(&spec).add(&other()));
    let done = build(&sandbox, dir.to_str().unwrap(), &["--dry-run"]);
    assert_eq!(done.exit, 0, "{done:?}");
    assert!(done.text().contains(VICTIM) && !done.text().contains(OTHER), "{done:?}");
    assert!(done.stderr.contains("`bgother-1_1` is left out: another package replaces it"), "{done:?}");
}

#[test]
fn a_remote_package_needs_a_signature_by_a_key_that_is_trusted() {
    let sandbox = Sandbox::new();
    let keys = ["one", "two"].map(|name| {
        let dir = sandbox.path(name);
        std::fs::create_dir(&dir).unwrap();
        let key = SigningKey::generate(&dir);
        let public = dir.join("public.pem");
        std::fs::write(&public, &key.public).unwrap();
        (key, public.display().to_string())
    });
    let [(key, trusted), (stranger, _)] = keys;
    let dir = |name: &str| {
        let dir = sandbox.path(name);
        std::fs::create_dir(&dir).unwrap();
        dir
    };
    let signed = |name: &str, key: &SigningKey| {
        let all = Repository::new(&dir(name)).sign(key).add(&victim()).add(&other());
        BASE.iter().fold(all, |all, name| all.add(&PackageSpec::new(name, "1_1"))).write(std::env::consts::ARCH)
    };
    let unsigned = repository(&sandbox, "unsigned", |all| all.add(&victim()).add(&other()));
    let by_a_stranger = signed("stranger", &stranger);
    let altered = signed("altered", &key);
    let signature = altered.join(format!("{}.sig2", victim().file_name()));
    std::fs::copy(altered.join(format!("{}.sig2", other().file_name())), signature).unwrap();
    for (what, dir) in [("no signature", unsigned), ("a stranger's", by_a_stranger), ("another's", altered)] {
        let served = Served::directory(&dir);
        let url = format!("http://127.0.0.1:{}", served.port);
        let done = build(&sandbox, &url, &["--key", &trusted]);
        let doc = done.failed();
        let said = format!("{} {:?} {:?}", doc.message, doc.causes, doc.details);
        assert!(said.contains("sig") || said.contains("key"), "{what}: {said}");
        let roots = children(&sandbox.path("cache/rootfs")).into_iter().filter(|path| path.is_dir());
        assert_eq!(roots.collect::<Vec<_>>(), Vec::<PathBuf>::new(), "{what}");
    }
}
