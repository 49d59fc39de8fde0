//! From packages to an image that is not configured yet, without any guest.

use super::*;
use fs_err as fs;
use lib_xbps::fixture::{Spec, repository};
use plist::Value;

/// A repository of the base, with nothing in it, and of these.
fn with(dir: &Path, specs: &[Spec], forged: &[(usize, &str, Value)]) -> Location {
    let base = packages::BASE.iter().map(|name| Spec::new(&format!("{name}-1_1")));
    let all: Vec<Spec> = specs.iter().cloned().chain(base).collect();
    fs::create_dir_all(dir).unwrap();
    repository(dir, &all, forged);
    Location::Dir(dir.to_owned())
}

fn tool(version: &str) -> Spec {
    Spec::new(&format!("tool-{version}")).file("usr/bin/tool", version).install("#!/bin/sh\n")
}

fn recipe(from: &Location, lock: Option<PathBuf>) -> Recipe {
    Recipe {
        arch: Some("x86_64".into()),
        size: 64 << 20,
        base: true,
        packages: vec!["tool".into()],
        providers: vec![],
        staging: false,
        repositories: vec![from.clone()],
        key: None,
        lock,
        update: false,
    }
}

fn stages() -> Stages {
    Stages::new("bg-test", None)
}

fn image(recipe: &Recipe, cache: &Path) -> Result<Digest> {
    let unconfigured = plan(recipe, cache, &mut stages())?.make(&mut stages())?;
    digest::of_file(&unconfigured.image())
}

#[test]
fn two_builds_from_one_lock_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let from = with(&path("repository"), &[tool("1_1")], &[]);
    let locked = recipe(&from, Some(path("lock")));
    plan(&locked, &path("cache"), &mut stages()).unwrap().plan().pending().save().unwrap();
    let first = image(&locked, &path("cache")).unwrap();
    assert_eq!(image(&recipe(&from, None), &path("other")).unwrap(), first, "the lock says what the index does");
    assert_eq!(image(&locked, &path("third")).unwrap(), first);
    assert_eq!(fs::read_dir(path("cache/rootfs")).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count(), 0);
}

#[test]
fn the_lock_file_counts_until_it_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let from = with(&path("repository"), &[tool("1_1")], &[]);
    let locked = recipe(&from, Some(path("lock")));
    let cache = path("cache");
    plan(&locked, &cache, &mut stages()).unwrap().plan().pending().save().unwrap();
    let key = plan(&locked, &cache, &mut stages()).unwrap().key;
    with(&path("repository"), &[tool("2_1")], &[]);
    assert_eq!(plan(&locked, &cache, &mut stages()).unwrap().key, key);
    let e = image(&locked, &cache).unwrap_err();
    assert!(e.code() == Code::MissingFile && e.message().contains("tool-1_1"), "{e}");
    assert!(e.get_hint().unwrap().contains("--update"));
    let update = Recipe { update: true, ..locked.clone() };
    let planned = plan(&update, &cache, &mut stages()).unwrap();
    assert_eq!(planned.plan().changes(), Some(&["changed tool-1_1 to tool-2_1".to_owned()][..]));
    assert_ne!(planned.key, key);
    planned.plan().pending().save().unwrap();
    image(&locked, &cache).unwrap();
    let more = Recipe { packages: vec!["tool,other".into()], ..locked.clone() };
    let e = image(&more, &cache).unwrap_err();
    assert!(e.with_causes().contains("`other`") && e.get_hint().unwrap().contains("--update"), "{e}");
    let less = Recipe { packages: vec![], ..locked };
    let e = image(&less, &cache).unwrap_err();
    assert!(e.message().contains("tool-2_1"), "{e}");
}

#[test]
fn what_is_not_as_the_index_says_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let sum = || Value::String("0".repeat(64));
    let needs = || Value::Array(vec!["bash>=0".into()]);
    for (what, code, forged) in [
        ("digest", Code::DigestMismatch, vec![(0, "filename-sha256", sum())]),
        ("size", Code::DigestMismatch, vec![(0, "filename-size", 7u64.into())]),
        ("run_depends", Code::BadInput, vec![(0, "run_depends", needs())]),
    ] {
        let from = with(&dir.path().join(what), &[tool("1_1")], &forged);
        let e = image(&recipe(&from, None), &dir.path().join("cache")).unwrap_err();
        assert!(e.code() == code && e.with_causes().contains("tool-1_1"), "{what}: {}", e.with_causes());
    }
}

#[test]
fn recipes_that_cannot_be_are_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let from = with(&dir.path().join("repository"), &[tool("1_1")], &[]);
    let code = |recipe: Recipe| plan(&recipe, &cache, &mut stages()).unwrap_err().code();
    let good = recipe(&from, None);
    assert_eq!(code(Recipe { arch: Some("i686".into()), ..good.clone() }), Code::BadValue);
    assert_eq!(code(Recipe { arch: Some("aarch64".into()), ..good.clone() }), Code::MissingFile);
    assert_eq!(code(Recipe { size: 1000, ..good.clone() }), Code::BadValue);
    assert_eq!(code(Recipe { packages: vec!["none".into()], ..good.clone() }), Code::NotFound);
    assert_eq!(code(Recipe { key: Some(dir.path().join("none")), ..good.clone() }), Code::MissingFile);
    assert!(!cache.exists());
    let planned = plan(&good, &cache, &mut stages()).unwrap();
    assert!(
        runs_on(planned.arch(), "x86_64") && !runs_on(planned.arch(), "aarch64") && runs_on("aarch64-musl", "aarch64")
    );
}

#[test]
fn a_root_without_the_base_has_what_was_named_and_nothing_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let from =
        with(&dir.path().join("repository"), &[Spec::new("plain-1_1").file("usr/share/plain", "x"), tool("1_1")], &[]);
    let made = |name: &str| {
        let recipe = Recipe { base: false, packages: vec![name.into()], ..recipe(&from, None) };
        let planned = plan(&recipe, &dir.path().join("cache"), &mut stages()).unwrap();
        let names: Vec<String> = planned.packages().into_iter().map(|one| one.name).collect();
        let unconfigured = planned.make(&mut stages()).unwrap();
        let image = ext4_view::Ext4::load_from_path(unconfigured.image()).unwrap();
        (names, unconfigured.has_scripts(), image)
    };
    let (names, has_scripts, image) = made("plain");
    assert_eq!((names, has_scripts), (vec!["plain".to_owned()], false));
    for gone in ["/etc", "/proc", "/var/lib/banger", "/var/db/xbps/keys"] {
        assert!(!image.exists(gone).unwrap(), "{gone}");
    }
    assert_eq!(image.read("/usr/share/plain").unwrap(), b"x");
    let (_, has_scripts, image) = made("tool");
    assert!(has_scripts && image.exists("/proc").unwrap(), "scripts are run in a system");
    let list = image.read("/var/lib/banger/configure/list").unwrap();
    assert_eq!(list, b"001 tool 1_1 x86_64\n", "a package for all gets the root's architecture");
}
