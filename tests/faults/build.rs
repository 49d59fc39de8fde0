//! The same for an image build, whose guest pretends too: an SSH server that says yes to whatever it is to do.

use super::verbs::{SAMPLE, Verb, without_key};
use super::{World, interrupted, killed, refused};
use crate::support::fixture;
use crate::support::{Done, children, finish};
use std::process::Command;

pub const ARGS: &[&str] = &["--force", "--size", "16M", "--modules", "--copy", "motd:/etc/", "--run", "script"];

const BUILD: Verb = Verb {
    tool: "bg-image-build",
    args: ARGS,
    before: base,
    after: |world, what| {
        assert_eq!(temporary(world), 0, "{what}");
        is_built(world, &build(world), what);
    },
    children: false,
    fails: false,
    sample: SAMPLE,
};

/// What it is built on, and with.
pub fn base(world: &World) -> String {
    world.set_mode("guest");
    without_key(world);
    for (file, content) in [("motd", "hello\n"), ("script", "#!/bin/sh\ntrue\n")] {
        std::fs::write(world.sandbox.path("home").join(file), content).unwrap();
    }
    let files = world.sandbox.path("files-base");
    if files.exists() {
        std::fs::remove_dir_all(files).unwrap();
    }
    fixture::with_kernel(&world.sandbox, "base", fixture::RELEASE).to_string()
}

fn build(world: &World) -> Done {
    finish(world.command(BUILD.tool, ARGS).spawn().unwrap(), base(world).as_bytes())
}

/// How many VMs of builds there are.
fn temporary(world: &World) -> usize {
    let of_build = |path: &std::path::PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("build-");
    children(&world.sandbox.state("machines")).iter().filter(|path| of_build(path)).count()
}

/// The image is whole, and nothing half made is beside it.
fn is_built(world: &World, built: &Done, what: &str) {
    let mut doc = built.json();
    assert_eq!(doc["rootfs"]["size_bytes"], 16 << 20, "{what}");
    let names = |dir: &std::path::Path| {
        let names = children(dir).into_iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    let cached = names(&world.sandbox.path("cache/image"));
    let whole: Vec<_> = cached.iter().filter(|name| *name != ".lock").collect();
    assert_eq!(whole.len(), 1, "{what}: {cached:?}");
    // Whoever registers it compares every digest.
    doc["name"] = "built".into();
    world.sandbox.run("bg-register", &["--replace"], doc.to_string()).ok();
}

/// The guest that pretends needs Debian's python3 with paramiko.
pub fn has_guest(test: &str) -> bool {
    let there = Command::new("/usr/bin/python3").args(["-c", "import paramiko"]).output();
    let there = there.is_ok_and(|output| output.status.success());
    if !there {
        crate::support::not_run(test, "python3-paramiko is not installed");
    }
    there
}

#[test]
fn an_image_build_killed_at_any_call_can_be_repeated() {
    let test = "an_image_build_killed_at_any_call_can_be_repeated";
    if has_guest(test) {
        killed(test, &BUILD);
    }
}

#[test]
fn a_call_of_an_image_build_that_fails_is_told_with_its_path_and_leaves_nothing() {
    let test = "a_call_of_an_image_build_that_fails_is_told_with_its_path_and_leaves_nothing";
    if has_guest(test) {
        refused(test, &BUILD);
    }
}

#[test]
fn an_interrupted_call_of_an_image_build_is_made_again() {
    let test = "an_interrupted_call_of_an_image_build_is_made_again";
    if has_guest(test) {
        interrupted(test, &BUILD);
    }
}
