//! What building costs, as ratios of what it cannot do without, measured in one run: `cargo bench --bench image_build`.
//!
//! - a root file system, against mmdebstrap writing the same tar to a file, by turns;
//! - an image of 2 GiB with two packages: all but the guest's boot and the package manager's own time;
//! - the same build again, from the cache;
//! - the largest resident memory of `bg-image-build`.
//!
//! Needs what `make setup` installs, and the mirrors. `BG_BENCH_RUNS` is the number of runs (3). Prints the rows of a table,
//! and every sample as JSON. `-- roots` and `-- images` measure the one or the other.

#![allow(clippy::disallowed_types, missing_docs)]

mod measured;

use measured::{median, run};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn tool(name: &str) -> Command {
    let path = match name {
        "bg-kernel" => env!("CARGO_BIN_EXE_bg-kernel"),
        "bg-rootfs" => env!("CARGO_BIN_EXE_bg-rootfs"),
        _ => env!("CARGO_BIN_EXE_bg-image-build"),
    };
    Command::new(path)
}

/// A program `mmdebstrap` in `dir` that writes its arguments down and then is the real one.
fn recorder(dir: &Path, real: &Path) -> PathBuf {
    let (program, arguments) = (dir.join("mmdebstrap"), dir.join("arguments"));
    let script =
        format!("#!/bin/sh\nprintf '%s\\n' \"$@\" >'{}'\nexec '{}' \"$@\"\n", arguments.display(), real.display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    arguments
}

/// Root builds and mmdebstrap alone, by turns.
fn roots(runs: usize, dir: &Path, kernel: &[u8]) -> (Vec<f64>, Vec<f64>) {
    let path = std::env::var_os("PATH").unwrap();
    let real = std::env::split_paths(&path).map(|d| d.join("mmdebstrap")).find(|p| p.is_file()).expect("mmdebstrap");
    let arguments = recorder(dir, &real);
    let mut first = vec![dir.to_owned()];
    first.extend(std::env::split_paths(&path));
    let with_recorder = std::env::join_paths(first).unwrap();
    let (mut ours, mut alone) = (vec![], vec![]);
    for n in 0..=runs {
        let mut build = tool("bg-rootfs");
        build.args(["build", "--distro", "debian", "--no-cache"]).env("PATH", &with_recorder);
        let built = run(build.env("BG_CACHE_DIR", dir.join("cache")), kernel);
        let lines = std::fs::read_to_string(&arguments).unwrap();
        let mut command = Command::new(&real);
        command.args(lines.lines().map(|arg| if arg == "-" { dir.join("root.tar") } else { PathBuf::from(arg) }));
        let tar = run(command.env("LC_ALL", "C.UTF-8"), b"");
        // The first of each fills the page cache.
        if n > 0 {
            ours.push(built.seconds);
            alone.push(tar.seconds);
        }
    }
    (ours, alone)
}

/// The stages of `bg-image-build` in a document, in seconds, that `chosen` chooses.
fn stages(document: &Value, chosen: impl Fn(&str) -> bool) -> f64 {
    let timings = document["timings"].as_array().unwrap().iter().filter(|t| t["tool"] == "bg-image-build");
    timings.filter(|t| chosen(t["stage"].as_str().unwrap())).map(|t| t["ms"].as_f64().unwrap() / 1e3).sum()
}

/// Where `make setup` has put vhost-device-vsock, for tools with a cache of the measurement's own.
fn link_programs(cache: &Path) {
    let users = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let users = users.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache"));
    std::fs::create_dir_all(cache).unwrap();
    let program = "vhost-device-vsock";
    std::os::unix::fs::symlink(users.join("banger").join(program), cache.join(program)).unwrap();
}

fn measure_roots(runs: usize, dir: &Path, kernel: &[u8]) {
    let (ours, alone) = roots(runs, dir, kernel);
    let ratio = median(&ours) / median(&alone);
    println!("| root build | {:.2} s | {ratio:.3} times mmdebstrap alone ({:.2} s) |", median(&ours), median(&alone));
    println!("{}", json!({"root_s": ours, "mmdebstrap_s": alone}));
}

fn measure_images(runs: usize, dir: &Path, kernel: &[u8]) {
    let base = run(tool("bg-rootfs").args(["build", "--distro", "debian"]), kernel).stdout;
    let cache = dir.join("cache");
    link_programs(&cache);
    let build = |force: &[&str]| {
        let mut command = tool("bg-image-build");
        command.args(["--packages", "tree,file"]).args(force);
        command.env("BG_CACHE_DIR", &cache).env("BG_STATE_DIR", dir.join("state"));
        run(command.env("BG_RUNTIME_DIR", dir.join("run")), &base)
    };
    // Fills the cache of downloads.
    build(&[]);
    let (mut whole, mut overhead, mut cached, mut peak, mut parts) = (vec![], vec![], vec![], 0, Value::Null);
    for _ in 0..runs {
        let built = build(&["--force"]);
        let document: Value = serde_json::from_slice(&built.stdout).unwrap();
        let guests = stages(&document, |stage| stage == "boot_guest" || stage.ends_with("_packages"));
        whole.push(built.seconds);
        overhead.push(built.seconds - guests);
        peak = peak.max(built.peak_bytes);
        parts = document["timings"].clone();
        cached.push(build(&[]).seconds);
    }
    let mib = peak as f64 / f64::from(1 << 20);
    println!("| image build | {:.2} s | all but boot and packages: {:.2} s |", median(&whole), median(&overhead));
    println!("| the same again | {:.3} s | from the cache |", median(&cached));
    println!("| peak memory of bg-image-build | {mib:.1} MiB | the largest of {runs} |");
    println!("{}", json!({"image_s": whole, "overhead_s": overhead, "cached_s": cached, "peak_bytes": peak}));
    println!("{}", json!({"stages_of_the_last": parts}));
}

fn main() {
    let runs = std::env::var("BG_BENCH_RUNS").map_or(3, |n| n.parse().unwrap());
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wants = |part: &str| asked.is_empty() || asked.iter().any(|arg| arg == part);
    let scratch = tempfile::tempdir().unwrap();
    let kernel = run(tool("bg-kernel").arg("build"), b"").stdout;
    if wants("roots") {
        measure_roots(runs, scratch.path(), &kernel);
    }
    if wants("images") {
        measure_images(runs, scratch.path(), &kernel);
    }
}
