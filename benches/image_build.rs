//! What building costs, as ratios of what it cannot do without, measured in one run: `cargo bench --bench image_build`.
//!
//! - a root file system, against mmdebstrap writing the same tar to a file, by turns;
//! - an image of 2 GiB with two packages: all but the guest's boot and the package manager's own time;
//! - the same build again, from the cache;
//! - the largest resident memory of `bg-image-build`.
//!
//! Needs what `make setup` installs, and the mirrors. `BG_BENCH_RUNS` is the number of runs (3). Prints a table, then every
//! sample as a line of JSON.

#![allow(clippy::disallowed_types, missing_docs)]

use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a program did.
struct Run {
    seconds: f64,
    peak_bytes: u64,
    stdout: Vec<u8>,
}

/// Runs it to its end, which must be a success. Its memory is looked at every millisecond.
fn run(command: &mut Command, stdin: &[u8]) -> Run {
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let (ended, watch) = std::sync::mpsc::channel::<()>();
    let watcher = std::thread::spawn(move || {
        let mut peak = 0;
        loop {
            peak = high_water(&status).unwrap_or(0).max(peak);
            if watch.recv_timeout(Duration::from_millis(1)) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                return peak;
            }
        }
    });
    let output = child.wait_with_output().unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    drop(ended);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Run { seconds, peak_bytes: watcher.join().unwrap(), stdout: output.stdout }
}

/// `VmHWM`, in bytes.
fn high_water(status: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|k| k << 10)
}

fn tool(name: &str) -> Command {
    let path = match name {
        "bg-kernel" => env!("CARGO_BIN_EXE_bg-kernel"),
        "bg-rootfs" => env!("CARGO_BIN_EXE_bg-rootfs"),
        _ => env!("CARGO_BIN_EXE_bg-image-build"),
    };
    Command::new(path)
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
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

/// Root builds and mmdebstrap alone, by turns; and the document of a root.
fn roots(runs: usize, dir: &Path, kernel: &[u8]) -> (Vec<f64>, Vec<f64>, Vec<u8>) {
    let path = std::env::var_os("PATH").unwrap();
    let real = std::env::split_paths(&path).map(|d| d.join("mmdebstrap")).find(|p| p.is_file()).expect("mmdebstrap");
    let arguments = recorder(dir, &real);
    let mut first = vec![dir.to_owned()];
    first.extend(std::env::split_paths(&path));
    let with_recorder = std::env::join_paths(first).unwrap();
    let (mut ours, mut alone, mut document) = (vec![], vec![], vec![]);
    for n in 0..=runs {
        let mut build = tool("bg-rootfs");
        build.args(["build", "--distro", "debian", "--no-cache"]).env("PATH", &with_recorder);
        let built = run(build.env("BG_CACHE_DIR", dir.join("cache")), kernel);
        let lines = std::fs::read_to_string(&arguments).unwrap();
        let mut command = Command::new(&real);
        command.args(lines.lines().map(|arg| if arg == "-" { dir.join("root.tar") } else { PathBuf::from(arg) }));
        let tar = run(command.env("LC_ALL", "C.UTF-8"), b"");
        document = built.stdout;
        // The first of each fills the page cache.
        if n > 0 {
            ours.push(built.seconds);
            alone.push(tar.seconds);
        }
    }
    (ours, alone, document)
}

/// The stages of `bg-image-build` in a document, in seconds, that `chosen` chooses.
fn stages(document: &Value, chosen: impl Fn(&str) -> bool) -> f64 {
    let timings = document["timings"].as_array().unwrap().iter().filter(|t| t["tool"] == "bg-image-build");
    timings.filter(|t| chosen(t["stage"].as_str().unwrap())).map(|t| t["ms"].as_f64().unwrap() / 1e3).sum()
}

fn main() {
    let runs = std::env::var("BG_BENCH_RUNS").map_or(3, |n| n.parse().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let kernel = run(tool("bg-kernel").arg("build"), b"").stdout;
    let (ours, alone, base) = roots(runs, dir, &kernel);
    let build = |force: &[&str]| {
        let mut command = tool("bg-image-build");
        command.args(["--packages", "tree,file"]).args(force);
        command.env("BG_CACHE_DIR", dir.join("cache")).env("BG_STATE_DIR", dir.join("state"));
        command.env("BG_RUNTIME_DIR", dir.join("run"));
        run(&mut command, &base)
    };
    build(&[]);
    let (mut whole, mut overhead, mut cached, mut peak) = (vec![], vec![], vec![], 0);
    for _ in 0..runs {
        let built = build(&["--force"]);
        let document: Value = serde_json::from_slice(&built.stdout).unwrap();
        let guests = stages(&document, |stage| stage == "boot_guest" || stage.ends_with("_packages"));
        whole.push(built.seconds);
        overhead.push(built.seconds - guests);
        peak = peak.max(built.peak_bytes);
        cached.push(build(&[]).seconds);
    }
    let ratio = median(&ours) / median(&alone);
    println!("| measure | median of {runs} | |\n|---|---|---|");
    println!("| root build | {:.2} s | {ratio:.3} times mmdebstrap alone ({:.2} s) |", median(&ours), median(&alone));
    println!("| image build | {:.2} s | all but boot and packages: {:.2} s |", median(&whole), median(&overhead));
    println!("| the same again | {:.3} s | |", median(&cached));
    println!("| peak memory of bg-image-build | {:.1} MiB | the largest |", peak as f64 / f64::from(1 << 20));
    println!(
        "{}",
        json!({"root_s": ours, "mmdebstrap_s": alone, "image_s": whole, "overhead_s": overhead, "cached_s": cached,
            "peak_bytes": peak})
    );
}
