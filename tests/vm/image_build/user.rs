//! An ordinary user builds the same image that root builds.

use super::{PACKAGE, Repository, World, build, script};
use crate::vm::files::files;
use std::path::Path;

/// Debian's `nobody`.
const NOBODY: u32 = 65534;

#[test]
fn an_image_that_an_ordinary_user_builds_equals_roots() {
    if !nix::unistd::geteuid().is_root() {
        crate::support::not_run(
            "an_image_that_an_ordinary_user_builds_equals_roots",
            "it takes root to build as two users",
        );
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
