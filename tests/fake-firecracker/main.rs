//! A Firecracker that runs no guest: it takes the configuration file and serves the API as a real one does, binds the vsock
//! socket, and otherwise does what the file `mode` beside it says. For tests of the suite; it shares no line with the client. It is
//! written from the documentation and from what a real one did (`tests/firecracker-real`).
//!
//! A real one that fails to build the microVM exits with 1, but while a request to its API is pending it panics and aborts. A
//! fault of the command line is a status of its own, or a panic.
//!
//! Beside it lie `mode`; `version`, `1.10.1` without it; and `go`, which lets a guest do what its mode says, lest it be over
//! before the starter's `keep`. `runs` counts its starts.

// It is a test's, and stands for a foreign program.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod api;
mod build;
mod log;
mod options;
mod schema;

use api::Build;
use build::Built;
use log::Log;
use options::Options;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
    let options = Options::parse(&args).unwrap_or_else(|why| {
        eprintln!("Arguments parsing error: {why}\n\nFor more information try --help.");
        exit(153)
    });
    if stage.mode == "dies-first" {
        eprintln!("a warning\nout of luck");
        exit(1);
    }
    if stage.mode == "mute" {
        forever();
    }
    let mut log = Log::new(&options.id);
    set_up(&mut log, &options).unwrap_or_else(|why| fail(&log, &why));
    options.check_id().unwrap_or_else(|why| panics(&log, &why));
    log.info(&format!("Running Firecracker v{}", stage.version));
    let text = std::fs::read_to_string(&options.config_file)
        .unwrap_or_else(|e| panics(&log, &format!("Unable to open or read from the configuration file: {e}")));
    let listener = UnixListener::bind(&options.api_sock)
        .unwrap_or_else(|e| fail(&log, &format!("Failed to open the API socket: {}: {e}", options.api_sock.display())));
    let (running, told) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let instance = api::Instance {
        id: options.id,
        version: stage.version.clone(),
        mode: stage.mode.clone(),
        build: Arc::default(),
        running: Arc::clone(&running),
        told: Arc::clone(&told),
    };
    let building = Arc::clone(&instance.build);
    std::thread::spawn(move || api::serve(&listener, &instance));
    let built = stage.build(&text, &mut log, &building).unwrap_or_else(|why| unbuilt(&log, &building, &why));
    guest(&stage, &log, built, (&building, &running, &told));
}

fn set_up(log: &mut Log, options: &Options) -> Result<(), String> {
    options.level.iter().try_for_each(|level| log.set_level(level))?;
    log.show_level(options.show_level);
    options.log_path.iter().try_for_each(|path| log.open(path))
}

impl Stage {
    /// Builds the microVM, as slowly and as well as the mode says.
    fn build(&self, text: &str, log: &mut Log, building: &Build) -> Result<Built, String> {
        log.warn("it began");
        match self.mode.as_str() {
            "builds-until-asked" => building.wait_until_asked(Duration::from_secs(10)),
            "builds-slowly" => std::thread::park_timeout(Duration::from_millis(300)),
            "dies-later" => {
                std::thread::park_timeout(Duration::from_millis(100));
                exit(148);
            }
            _ => {}
        }
        let config = build::parse(text).map_err(|why| format!("Invalid JSON: {why}"))?;
        let built = build::build(&config, &self.version, log)?;
        match self.mode.as_str() {
            "dies" => Err("no vCPU could be made".into()),
            "fails-slowly" => {
                std::thread::park_timeout(Duration::from_millis(300));
                Err("no memory could be had".into())
            }
            _ => Ok(built),
        }
    }
}

/// What the guest does, as far as its console shows it.
fn guest(stage: &Stage, log: &Log, built: Built, (building, running, told): (&Build, &AtomicBool, &AtomicBool)) {
    let count = stage.count();
    println!("run {count} of the guest\r");
    if let Some((uds, vsock)) = built.vsock {
        let agent = stage.mode == "agent";
        std::thread::spawn(move || vsock.incoming().flatten().for_each(|stream| connected(stream, agent)));
        // Without a host that listens nobody is told.
        let up = if stage.mode == "silent" { None } else { UnixStream::connect(format!("{}_51", uds.display())).ok() };
        drop(up);
    }
    running.store(stage.mode != "not-started", Ordering::SeqCst);
    building.finish();
    log.info("Successfully started microvm that was configured from one single json");
    if let Some(metrics) = built.metrics {
        log::write_to(&metrics, "{\"utc_timestamp_ms\":1}\n");
    }
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

/// The end of one that could not build its microVM.
fn unbuilt(log: &Log, building: &Build, why: &str) -> ! {
    let why = format!("RunWithApiError error: Failed to build MicroVM from Json: {why}");
    if building.is_asked() {
        log.error(&why);
        panics(log, "VMM disconnected: RecvError");
    }
    fail(log, &why)
}

fn fail(log: &Log, why: &str) -> ! {
    log.error(why);
    eprintln!("Error: {why:?}");
    log.error("Firecracker exiting with error. exit_code=1");
    exit(1)
}

fn panics(log: &Log, why: &str) -> ! {
    log.error(&format!("Firecracker panicked at src/firecracker/src/main.rs:1:1:\n{why}"));
    std::process::abort()
}

fn forever() -> ! {
    loop {
        std::thread::park();
    }
}
