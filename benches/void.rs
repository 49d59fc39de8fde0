//! What reading Void's packages costs: `cargo bench --bench void`.
//!
//! - the packages of the test distribution, which are Debian's programs in packages as Void's are, unpacked into an ext4;
//! - an index of 14,500 made-up packages, of which thousands are needed, read and resolved, and what that takes of memory.
//!
//! Needs what `make setup` installs, and the mirrors. `BG_BENCH_RUNS` is the number of runs (5). Prints the rows of a table,
//! and every sample as JSON.

// What tests share is not all of use here.
#![allow(clippy::disallowed_types, missing_docs, dead_code, unused_imports)]

mod measured;
#[path = "../tests/support/mod.rs"]
mod support;

use lib_image::build::void::packages::BASE;
use measured::{median, run};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use support::xbps::full;
use support::xbps::package::PackageSpec;
use support::xbps::repository::Repository;

/// As many as Void has for x86_64, roughly.
const PACKAGES: usize = 14_500;

/// What each of them needs: so many that come behind it.
const NEEDS: usize = 4;

fn build(repository: &Path, args: &[&str], kernel: &[u8]) -> measured::Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bg-rootfs"));
    command.args(["build", "--distro", "void", "--repository"]).arg(repository);
    run(command.args(args), kernel)
}

/// Its packages, without the configure boot: the stage `unpack`, in milliseconds, and how many they are.
fn unpack(runs: usize, kernel: &[u8]) {
    let repository = &full::repository().dir;
    let plan = build(repository, &["--dry-run"], kernel).stdout;
    let count = plan.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    let samples: Vec<f64> = (0..runs)
        .map(|_| {
            let built = build(repository, &["--no-cache"], kernel).stdout;
            let document: Value = serde_json::from_slice(&built).unwrap();
            let stages = document["timings"].as_array().unwrap().iter();
            let unpack = |t: &&Value| t["tool"] == "bg-rootfs" && t["stage"] == "unpack";
            stages.rev().find(unpack).unwrap()["ms"].as_f64().unwrap()
        })
        .collect();
    println!("| {count} packages unpacked into ext4 | {:.0} ms |", median(&samples));
    println!("{}", json!({"unpack_ms": samples, "packages": count}));
}

/// A number that looks drawn at random, the same each time.
fn spread(n: usize) -> usize {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

/// A repository with an index of that many, those that every root has first, each of which needs others behind it.
fn large(dir: &Path) {
    let mut names: Vec<String> = BASE.iter().map(|name| (*name).to_owned()).collect();
    names.extend((names.len()..PACKAGES).map(|n| format!("package-number-{n}")));
    let mut repository = Repository::new(dir);
    for (n, name) in names.iter().enumerate() {
        let behind = &names[n + 1..];
        let needs = (1..=NEEDS).filter(|_| !behind.is_empty()).map(|k| spread(n * NEEDS + k) % behind.len());
        let needs: Vec<String> = needs.map(|other| format!("{}>=0", behind[other])).collect();
        let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
        let mut spec = PackageSpec::new(name, &format!("1.{}_1", n % 9)).needs(&needs);
        spec = spec.file(&format!("usr/share/{name}"), name, 0o644);
        repository = repository.add_as(&spec, name.as_bytes());
        // As long as those of Void's are.
        for (key, text) in [
            ("short_desc", format!("A package of a made-up repository: {name}")),
            ("homepage", format!("https://example.org/{name}")),
            ("license", "MIT".into()),
            ("maintainer", "Somebody <somebody@example.org>".into()),
            ("source-revisions", format!("{name}:0123456789")),
            ("build-date", "2023-01-01 00:00 UTC".into()),
        ] {
            repository = repository.say(name, key, text.into());
        }
    }
    repository.write(std::env::consts::ARCH);
}

fn resolve(runs: usize, dir: &Path, kernel: &[u8]) {
    large(dir);
    let runs: Vec<_> = (0..runs).map(|_| build(dir, &["--dry-run"], kernel)).collect();
    let needed = runs[0].stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    let seconds: Vec<f64> = runs.iter().map(|run| run.seconds).collect();
    let peak = runs.iter().map(|run| run.peak_bytes).max().unwrap();
    let mib = peak as f64 / f64::from(1 << 20);
    println!("| {PACKAGES} packages, {needed} needed | {:.3} s, {mib:.1} MiB |", median(&seconds));
    println!("{}", json!({"resolve_s": seconds, "peak_bytes": peak, "needed": needed}));
}

fn main() {
    let runs = std::env::var("BG_BENCH_RUNS").map_or(5, |n| n.parse().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let kernel = run(Command::new(env!("CARGO_BIN_EXE_bg-kernel")).arg("build"), b"").stdout;
    unpack(runs, &kernel);
    resolve(runs, scratch.path(), &kernel);
}
