//! A build that fails says at which step and why, and leaves nothing.

#![allow(clippy::disallowed_types)]

use super::{PACKAGE, Repository, World, fails, run, script, show};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

#[test]
fn a_build_that_fails_says_why_and_leaves_nothing() {
    let world = World::new();
    let first = script(&world, "first", "#!/bin/sh\nfor n in $(seq 30); do echo \"first $n\"; done\n");
    let failing = script(&world, "failing", "#!/bin/sh\necho at last >&2; printf 'no line feed'; exit 3\n");
    let never = script(&world, "never", "#!/bin/sh\necho never\n");
    let doc = fails(&world, &["--run", &first, "--run", &failing, "--run", &never], 71);
    assert_eq!(doc["code"], "command_failed", "{doc}");
    let details = &doc["details"];
    assert_eq!((&details["step"], &details["status"]), (&format!("run {failing}").into(), &"exit 3".into()), "{doc}");
    assert_eq!(details["output"], "at last\nno line feed", "the lines of this step alone: {doc}");
    assert_eq!(doc["causes"], serde_json::json!(["no line feed"]));

    let repository = Repository::serve(world.path());
    let source = script(&world, "source", &repository.becomes_the_only_source());
    let doc = fails(&world, &["--run", &source, "--packages", PACKAGE], 71);
    let host = format!("127.0.0.1:{}", repository.port);
    assert!(doc["causes"].to_string().contains(&host), "the refused host is named: {doc}");
    assert!(doc["hint"].as_str().unwrap().contains("--allow-host"), "{doc}");
    assert_eq!(repository.downloads(), 0);

    let kept = run(&world, &["--keep-failed", "--run", &failing]);
    assert_eq!(kept.status.code(), Some(71), "{}", show(&kept));
    let listed = world.json("bg-vm", &["ls", "--output", "json"]);
    let name = listed["name"].as_str().unwrap().to_owned();
    assert!(show(&kept).contains(&format!("bg-vm rm --force {name}")), "{}", show(&kept));
    assert_eq!(world.guest(&name, "hostname"), name);
    assert_eq!(world.findings(), Vec::<Value>::new(), "a VM that was left on purpose is no leak");
    world.ok("bg-vm", &["rm", "--force", &name]);
    world.assert_nothing_is_left();
}

#[test]
fn packages_that_cannot_be_had_fail_the_step_and_are_named() {
    let world = World::new();
    let repository = Repository::serve(world.path());
    let source = script(&world, "source", &repository.becomes_the_only_source());
    let host = format!("127.0.0.1:{}", repository.port);
    let doc = fails(&world, &["--allow-host", &host, "--run", &source, "--packages", "bgnothing"], 71);
    assert_eq!(doc["details"]["step"], "packages bgnothing", "{doc}");
    assert!(doc["details"]["output"].as_str().unwrap().contains("Unable to locate package bgnothing"), "{doc}");

    let host = format!("127.0.0.1:{}", repository.end());
    let doc = fails(&world, &["--allow-host", &host, "--run", &source, "--packages", PACKAGE], 71);
    assert!(doc["causes"].to_string().contains(&host), "the mirror that is gone is named: {doc}");
}

#[test]
fn a_disk_that_is_full_fails_the_step() {
    let world = World::new();
    let fill = "#!/bin/sh\nexec fallocate -l 20G /srv/fill\n";
    let fill = script(&world, "fill", fill);
    let doc = fails(&world, &["--run", &fill], 71);
    assert!(doc["details"]["output"].as_str().unwrap().contains("No space left on device"), "the guest's: {doc}");

    if !nix::unistd::geteuid().is_root() {
        crate::support::not_run("a_disk_that_is_full_fails_the_step, for the host's disk", "a mount needs root");
        return;
    }
    let small = Mounted::tmpfs(&world.path().join("small"), "size=400m");
    let base = world.path().join("base.json");
    std::fs::write(&base, world.ok("bg-image", &["show", "debian"])).unwrap();
    let fill =
        script(&world, "fill", "#!/bin/sh\nexec dd if=/dev/zero of=/srv/fill bs=1M count=900 conv=fsync status=none\n");
    let mut command = world.command("bg-image-build", &["--file", base.to_str().unwrap(), "--run", &fill]);
    let output = command.env("BG_STATE_DIR", small.0.join("state")).env("BG_CACHE_DIR", world.path().join("cache"));
    let output = output.env("BG_MEMORY", "512M").output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", show(&output));
    let said = show(&output);
    assert!(said.contains(small.0.to_str().unwrap()) && said.contains("is full"), "{said}");
    let left: Vec<_> = std::fs::read_dir(small.0.join("state/machines")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
    world.assert_nothing_is_left();
}

/// A file system of the test's own; dropped, it is unmounted.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn tmpfs(at: &Path, options: &str) -> Self {
        std::fs::create_dir(at).unwrap();
        let mut mount = Command::new("mount");
        assert!(mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(at).status().unwrap().success());
        Mounted(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg(&self.0).status().unwrap().success());
    }
}
