//! Images that are built: what was asked for is in them and nothing of the build is, and a build that fails or is ended
//! leaves nothing.

#![allow(clippy::disallowed_types)]

mod content;
mod failing;
mod interrupted;
mod user;

use super::repository::{PACKAGE, Repository};
use super::world::{World, show};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};

/// On the image `debian`, with a cache of the test's own.
fn command(world: &World, args: &[&str]) -> Command {
    let base = ["--base", "debian", "--memory", "512M"];
    let mut command = world.command("bg-image-build", &[&base, args].concat());
    command.env("BG_CACHE_DIR", cache(world));
    command
}

fn cache(world: &World) -> PathBuf {
    world.path().join("cache")
}

/// What is in the cache of images, but for its lock.
fn cached(world: &World) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(cache(world).join("image")) else { return vec![] };
    entries.map(|e| e.unwrap().path()).filter(|path| !path.ends_with(".lock")).collect()
}

fn run(world: &World, args: &[&str]) -> Output {
    command(world, args).output().unwrap()
}

fn build(world: &World, args: &[&str]) -> (Value, String) {
    let output = run(world, args);
    assert!(output.status.success(), "{args:?}: {}", show(&output));
    (serde_json::from_slice(&output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The `Error` document of a build that failed, after which nothing is left.
fn fails(world: &World, args: &[&str], exit: i32) -> Value {
    let output = run(world, args);
    assert_eq!(output.status.code(), Some(exit), "{args:?}: {}", show(&output));
    assert!(output.stdout.is_empty(), "{}", show(&output));
    world.assert_nothing_is_left();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

fn script(world: &World, name: &str, text: &str) -> String {
    let path = world.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}
