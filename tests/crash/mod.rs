//! What happens between two tools, and to what a VM needs while it runs: a runtime directory that goes, a program that is
//! replaced, a lock that is waited for, a store that has a copy. Each ends with one VM, or none, and nothing of it twice.

#![allow(clippy::disallowed_types)]

mod copies;
mod elsewhere;
mod late;
mod lost;
mod undone;

use crate::running::{Suite, World};
use crate::support::finish;
use crate::support::launched::until;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The processes that the VM's document names.
fn processes(world: &World, vm: &str) -> Value {
    let doc = world.vm(&["show", vm], "").json();
    assert_eq!(doc["status"]["state"], "running", "{doc}");
    serde_json::json!([doc["vmm"]["pid"], doc["vmm"]["shim_pid"], doc["vmm"]["shim_start_time"]])
}

/// How many shims run for that runtime directory.
fn shims(dir: &Path) -> usize {
    let found = lib_machine::store::processes::of_runtime_dir(dir).unwrap();
    found.iter().filter(|process| process.exe.ends_with("bg-shim")).count()
}

/// The runtime directory of a VM that runs.
fn runtime_dir(world: &World, vm: &str) -> PathBuf {
    let doc = world.vm(&["show", vm], "").json();
    Path::new(doc["vmm"]["vsock"].as_str().unwrap()).parent().unwrap().to_owned()
}

fn no_leaks(world: &World, what: &str) {
    let found = world.sandbox.findings(&["--now"]);
    assert!(found.iter().all(|f| f["is_leak"] == false), "{what}: {found:#?}");
}
