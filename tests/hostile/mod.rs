//! What comes from somebody who means harm, or from a disk that does: documents, records, guests, VMMs, names. Each has
//! one answer, of bounded size, in bounded time, and hurts nobody else.

#![allow(clippy::disallowed_types, reason = "a test may start programs itself")]

mod documents;
mod guests;
mod limits;
mod names;
mod records;
mod running;
mod sessions;
mod settings;
mod terminals;
mod vmms;

use crate::running::World;
use crate::support::launched::{SHIM, until};
use crate::support::{Done, Sandbox, finish, through};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What one run may use, whatever it is given: CPU time in milliseconds, and memory in KiB. Without optimisation, as seeded
/// defects are tried, the same work takes several times as long.
const CPU_MS: u64 = if cfg!(debug_assertions) { 5000 } else { 1000 };
const RSS_KIB: u64 = 64 << 10;

/// Whether everything is to be tried, and not a sample.
fn full() -> bool {
    std::env::var_os("BG_TEST_FULL").is_some()
}

/// The program that measures another.
fn measurer() -> PathBuf {
    let path = Path::new(SHIM).with_file_name("examples/measured");
    assert!(path.is_file(), "{} is an example: `cargo test` without --test builds it", path.display());
    path
}

/// Runs a command that [`Sandbox::command`] made to its end, which must come with little CPU time and memory.
#[track_caller]
fn bounded(sandbox: &Sandbox, command: &Command, stdin: &[u8]) -> Done {
    bounded_with(CPU_MS, sandbox, command, stdin)
}

/// The same with as much CPU time, in milliseconds, as its own work takes.
#[track_caller]
fn bounded_with(cpu_ms: u64, sandbox: &Sandbox, command: &Command, stdin: &[u8]) -> Done {
    let report = tempfile::NamedTempFile::new_in(sandbox.path("")).unwrap();
    let child = through(command, measurer(), &[]).env("MEASURED", report.path()).spawn().unwrap();
    let done = finish(child, stdin);
    let used = std::fs::read_to_string(report.path()).unwrap();
    let (cpu, rss) = used.split_once(' ').unwrap();
    let (cpu, rss): (u64, u64) = (cpu.parse().unwrap(), rss.parse().unwrap());
    let what = format!("{command:?}");
    assert!(cpu < cpu_ms, "{cpu} ms of CPU time: {what}");
    assert!(rss < RSS_KIB, "{rss} KiB of memory: {what}");
    done
}

/// Every bit of it flipped, one at a time; of many, every `step`th.
fn flipped(bytes: &[u8], step: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len() * 8).step_by(step).map(|bit| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    })
}

/// Starts the VM `dev`. Gives its runtime directory, once its guest can be connected to.
fn started(world: &World) -> PathBuf {
    let doc = world.vm(&["start", "dev"], "").json();
    let vsock = PathBuf::from(doc["vmm"]["vsock"].as_str().unwrap());
    until("the guest is up", || vsock.exists());
    vsock.parent().unwrap().to_owned()
}
