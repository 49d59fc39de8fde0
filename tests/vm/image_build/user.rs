//! An ordinary user builds the same image that root builds.

use super::{PACKAGE, Repository, World, build, script};
use lib_common::digest::of_bytes;
use lib_common::disk::tree::write_tar;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Debian's `nobody`.
const NOBODY: u32 = 65534;

/// What differs between any two builds, whoever makes them: the times and inode numbers in caches and logs.
const PER_BUILD: &[&str] = &["etc/ld.so.cache", "var/cache/ldconfig/aux-cache"];

/// Every file by its name: kind, mode, owner, and its content or where it leads.
fn files(rootfs: &Path) -> BTreeMap<String, String> {
    let mut bytes = vec![];
    write_tar(rootfs, Path::new("/"), &mut bytes).unwrap();
    let mut archive = tar::Archive::new(&*bytes);
    let mut all = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut content = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        let (mode, uid, gid) = (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap());
        let line = format!("{:?} {mode:o} {uid}:{gid} {}", header.entry_type(), of_bytes(&content));
        if !PER_BUILD.contains(&name.as_str()) {
            all.insert(name, line);
        }
    }
    all
}

#[test]
fn an_image_that_an_ordinary_user_builds_equals_roots() {
    if !nix::unistd::geteuid().is_root() {
        println!("NOT RUN: an_image_that_an_ordinary_user_builds_equals_roots (it takes root to build as two users)");
        return;
    }
    let shared = tempfile::tempdir().unwrap();
    std::fs::set_permissions(shared.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let repository = Repository::serve(shared.path());
    let built = |world: World| {
        let source = script(&world, "source", &repository.becomes_the_only_source());
        let copy = format!("{}:/srv/", shared.path().join("package").display());
        let host = format!("127.0.0.1:{}", repository.port);
        let steps = ["--allow-host", &host, "--run", &source, "--packages", PACKAGE, "--copy", &copy];
        let (doc, _) = build(&world, &steps);
        let rootfs = Path::new(doc["rootfs"]["path"].as_str().unwrap()).to_owned();
        (doc["rootfs"]["manifest_digest"].clone(), files(&rootfs))
    };
    let (manifest, by_root) = built(World::new());
    let (same, by_user) = built(World::of_user(NOBODY));
    assert_eq!(manifest, same);
    let differ: Vec<_> = by_root.iter().filter(|(name, file)| by_user.get(*name) != Some(file)).collect();
    let more: Vec<_> = by_user.keys().filter(|name| !by_root.contains_key(*name)).collect();
    let traces = ["var/lib/systemd/random-seed", "etc/ssh/ssh_host_ed25519_key", "var/lib/dbus/machine-id"];
    let journals = by_root.keys().filter(|name| name.starts_with("var/log/journal/")).count();
    assert!(journals == 0 && traces.iter().all(|trace| !by_root.contains_key(*trace)), "traces of the build");
    assert!(by_root.len() > 5000, "{}", by_root.len());
    assert!(differ.is_empty() && more.is_empty(), "differ: {differ:#?}\nonly the user's: {more:#?}");
}
