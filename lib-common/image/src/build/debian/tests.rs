//! What the cache's key follows. Building itself takes a network and half a minute and is tested with the tools.

use super::*;
use crate::build::rootfs::{MANIFEST, RECORD};
use lib_common::doc::{self, AbsPath};

fn places(dir: &Path) -> Places {
    let places = Places { cache_dir: dir.join("cache"), apt_dir: dir.join("apt"), apt_lists: dir.join("lists") };
    std::fs::create_dir_all(&places.apt_dir).unwrap();
    std::fs::create_dir_all(&places.apt_lists).unwrap();
    std::fs::write(places.apt_dir.join("sources.list"), "deb http://a/debian bookworm main\n").unwrap();
    list(&places, "a_debian_dists_bookworm_InRelease", "one");
    places
}

fn list(places: &Places, name: &str, content: &str) {
    std::fs::write(places.apt_lists.join(name), content).unwrap();
}

fn recipe() -> Recipe {
    Recipe { suite: "bookworm".into(), size: DEFAULT_SIZE, packages: vec!["vim,git".into()], mirror: None }
}

#[test]
fn the_key_follows_what_counts_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let places = places(dir.path());
    let key = |recipe: &Recipe| Plan::of(recipe, &places).unwrap().key;
    let first = key(&recipe());
    assert_eq!(key(&Recipe { packages: vec!["git".into(), "vim,git,bash".into()], ..recipe() }), first);
    let others = [
        Recipe { size: 3 << 30, ..recipe() },
        Recipe { packages: vec!["git".into()], ..recipe() },
        Recipe { mirror: Some("http://b/debian".into()), ..recipe() },
    ];
    for other in &others {
        assert_ne!(key(other), first, "{other:?}");
    }
    list(&places, "a_debian_dists_trixie_InRelease", "another suite's");
    list(&places, "lock", "");
    assert_eq!(key(&recipe()), first);
    list(&places, "a_debian_dists_bookworm_InRelease", "after apt-get update");
    assert_ne!(key(&recipe()), first);
}

#[test]
fn recipes_that_cannot_be_are_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let places = places(dir.path());
    let code = |recipe: Recipe| build(&recipe, true, &places, &mut Stages::new("bg-test", None)).unwrap_err().code();
    for suite in ["", "-x", "Bookworm", "book worm", "../x"] {
        assert_eq!(code(Recipe { suite: suite.into(), ..recipe() }), Code::BadValue, "{suite}");
    }
    assert_eq!(code(Recipe { suite: "sid".into(), ..recipe() }), Code::NotFound);
    assert_eq!(code(Recipe { size: 1000, ..recipe() }), Code::BadValue);
    assert_eq!(code(Recipe { packages: vec!["--help".into()], ..recipe() }), Code::BadValue);
    assert!(!places.cache_dir.exists());
}

#[test]
fn a_cached_root_is_whole_or_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let rootfs = Rootfs {
        distro: "debian".into(),
        release: "bookworm".into(),
        path: AbsPath::new(path(IMAGE)).unwrap(),
        size_bytes: 5,
        digest: digest::of_bytes(b"12345"),
        manifest: AbsPath::new(path(MANIFEST)).unwrap(),
        manifest_digest: digest::of_bytes(b"m"),
    };
    std::fs::write(path(RECORD), doc::to_json(&rootfs)).unwrap();
    assert_eq!(load(dir.path()), None);
    std::fs::write(path(IMAGE), "12345").unwrap();
    std::fs::write(path(MANIFEST), "m").unwrap();
    assert_eq!(load(dir.path()), Some(rootfs));
    std::fs::write(path(IMAGE), "123").unwrap();
    assert_eq!(load(dir.path()), None);
}
