//! A Firecracker that runs no guest: it takes the configuration file and serves the API strictly by its documentation, binds
//! the vsock socket, and otherwise does what the file `mode` beside it says. For tests of the suite; it shares no line with
//! the client, and its schema is written from the documentation alone.
//!
//! Beside it lie `mode`; `version`, `1.10.1` without it; and `go`, which lets a guest do what its mode says, lest it be over
//! before the starter's `keep`. `runs` counts its starts.

// It is a test's, and stands for a foreign program.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod api;
mod schema;

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// O_NONBLOCK on Linux, x86-64 and arm64.
const NONBLOCK: i32 = 0o4000;

/// What it was told beside its command line.
struct Stage {
    dir: PathBuf,
    mode: String,
    version: String,
}

impl Stage {
    fn set() -> Self {
        let dir = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).ok().map(|text| text.trim().to_owned());
        let (mode, version) = (read("mode").unwrap_or_default(), read("version").unwrap_or("1.10.1".into()));
        Stage { dir, mode, version }
    }

    fn wait_for_go(&self) {
        while !self.dir.join("go").exists() {
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Which start this is.
    fn count(&self) -> u64 {
        let mut options = std::fs::OpenOptions::new();
        let mut runs = options.create(true).append(true).open(self.dir.join("runs")).unwrap();
        runs.write_all(b"x").unwrap();
        runs.metadata().unwrap().len()
    }
}

fn main() {
    let stage = Stage::set();
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args == ["--version"] {
        println!("Firecracker v{}\n\nSupported snapshot data format versions: v4.0.0", stage.version);
        return;
    }
    let (id, socket, file) = options(&args);
    if stage.mode == "dies-first" {
        eprintln!("a warning\nout of luck");
        exit(1);
    }
    if stage.mode == "mute" {
        forever();
    }
    let config = configuration(&file, &stage.version).unwrap_or_else(|why| fail(&why));
    log(&config, "it began");
    if stage.mode == "dies" {
        log(&config, "no vCPU could be made");
        exit(1);
    }
    let (running, told) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let listener = UnixListener::bind(&socket).unwrap_or_else(|e| fail(&format!("the API socket {socket}: {e}")));
    let instance = api::Instance {
        id,
        version: stage.version.clone(),
        mode: stage.mode.clone(),
        running: Arc::clone(&running),
        told: Arc::clone(&told),
    };
    std::thread::spawn(move || api::serve(&listener, &instance));
    if stage.mode == "dies-later" {
        std::thread::park_timeout(Duration::from_millis(100));
        exit(148);
    }
    let uds = PathBuf::from(config["vsock"]["uds_path"].as_str().unwrap());
    let vsock = UnixListener::bind(&uds).unwrap_or_else(|e| fail(&format!("the vsock socket {}: {e}", uds.display())));
    let agent = stage.mode == "agent";
    std::thread::spawn(move || vsock.incoming().flatten().for_each(|stream| connected(stream, agent)));
    guest(&stage, &config, &uds, (&running, &told));
}

/// `--id`, `--api-sock` and `--config-file`, each once and nothing else.
fn options(args: &[String]) -> (String, String, PathBuf) {
    let value = |name: &str| {
        let at = args.iter().position(|a| a == name).unwrap_or_else(|| fail(&format!("{name} is missing")));
        args.get(at + 1).cloned().unwrap_or_else(|| fail(&format!("{name} has no value")))
    };
    if args.len() != 6 {
        fail(&format!("arguments that are not understood: {args:?}"));
    }
    let id = value("--id");
    if id.is_empty() || id.len() > 64 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        fail(&format!("the id `{id}`"));
    }
    (id, value("--api-sock"), value("--config-file").into())
}

/// The configuration, which is as the schema says, and whose files are there.
fn configuration(file: &Path, version: &str) -> Result<Value, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let config: Value = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?;
    schema::check(&config, schema::FULL_VM_CONFIGURATION, version)?;
    let path = |pointer: &str| config.pointer(pointer).and_then(Value::as_str).map(PathBuf::from);
    let drives = config["drives"].as_array().into_iter().flatten();
    let drives = drives.map(|d| d["path_on_host"].as_str().map(PathBuf::from));
    for file in drives.chain(["/boot-source/kernel_image_path", "/boot-source/initrd_path"].map(path)).flatten() {
        if !file.is_file() {
            return Err(format!("{} is no file", file.display()));
        }
    }
    for pipe in ["/logger/log_path", "/metrics/metrics_path"].map(path).into_iter().flatten() {
        if !pipe.metadata().is_ok_and(|m| m.is_file() || m.file_type().is_fifo()) {
            return Err(format!("{} is neither file nor named pipe", pipe.display()));
        }
    }
    Ok(config)
}

/// What the guest does, as far as its console shows it.
fn guest(stage: &Stage, config: &Value, uds: &Path, (running, told): (&AtomicBool, &AtomicBool)) {
    let count = stage.count();
    println!("run {count} of the guest\r");
    if stage.mode != "silent" {
        UnixStream::connect(format!("{}_51", uds.display())).unwrap();
    }
    write_to(config, "/metrics/metrics_path", "{\"utc_timestamp_ms\":1}\n");
    running.store(stage.mode != "not-started", Ordering::SeqCst);
    match stage.mode.as_str() {
        "poweroff" | "poweroff-exits" => {
            stage.wait_for_go();
            println!("dev login: [   12.345678] reboot: Power down\r");
            if stage.mode == "poweroff-exits" {
                exit(0);
            }
        }
        "says-so" => {
            stage.wait_for_go();
            println!("reboot: Power down\r\nit was only a joke\r");
        }
        "resets" => {
            stage.wait_for_go();
            // A kernel takes longer for this than its VMM's parent to ask.
            while !told.load(Ordering::SeqCst) {
                std::thread::park_timeout(Duration::from_millis(2));
            }
            exit(0);
        }
        "resets-once" if count == 1 => {
            stage.wait_for_go();
            println!("[   12.345678] reboot: Restarting system\r");
            exit(0);
        }
        "crashes" => {
            stage.wait_for_go();
            exit(149);
        }
        "floods" => (0..u64::MAX).for_each(|n| println!("{n} of a flood")),
        _ => {}
    }
    forever();
}

/// The guest's end of a connection: `CONNECT PORT` and, where there is an agent, its HTTP.
fn connected(stream: UnixStream, agent: bool) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    let _ = lines.read_line(&mut line);
    let port = line.strip_prefix("CONNECT ").and_then(|p| p.trim_end().parse::<u32>().ok());
    // Nobody listens there, so the connection is closed.
    if !agent || port != Some(52) {
        return;
    }
    let _ = (&stream).write_all(b"OK 1073741824\n");
    line.clear();
    let _ = lines.read_line(&mut line);
    if line.starts_with("POST /shutdown ") {
        let _ = (&stream).write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
        println!("[   12.345678] reboot: System halted\r");
    }
}

fn log(config: &Value, text: &str) {
    write_to(config, "/logger/log_path", &format!("2026-01-01T00:00:00.000000000 [anonymous-instance:main] {text}\n"));
}

/// Nobody who does not read keeps it waiting.
fn write_to(config: &Value, pointer: &str, text: &str) {
    let Some(path) = config.pointer(pointer).and_then(Value::as_str) else { return };
    let mut options = std::fs::OpenOptions::new();
    options.append(true).custom_flags(NONBLOCK);
    options.open(path).and_then(|mut file| file.write_all(text.as_bytes())).unwrap();
}

/// A configuration that it does not take.
fn fail(why: &str) -> ! {
    eprintln!("{why}");
    exit(152)
}

fn forever() -> ! {
    loop {
        std::thread::park();
    }
}
