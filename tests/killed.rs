//! Tools that are interrupted or killed in the middle: what was begun is undone, or found and removed by
//! `bg-verify | bg-gc`. A program that they start is replaced by one that says so and then waits, so each end comes at
//! a known point.

#![allow(clippy::disallowed_types)]

use crate::support::fixture::{self, Files, WORK};
use crate::support::{Done, Sandbox, children, finish};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command};

/// A program that waits for ever, and a pipe that it keeps open as long as it lives.
struct Waiting {
    program: PathBuf,
    pipe: File,
}

impl Waiting {
    fn new(sandbox: &Sandbox, name: &str) -> Self {
        let (dir, fifo) = (sandbox.path("fake"), sandbox.path(&format!("{name}.fifo")));
        std::fs::create_dir_all(&dir).unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let program = dir.join(name);
        let script = format!("#!/bin/sh\nexec 9>'{}'\necho here >&9\nexec sleep 1000\n", fifo.display());
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let pipe = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(fifo).unwrap();
        Waiting { program, pipe }
    }

    fn dir(&self) -> &str {
        self.program.parent().unwrap().to_str().unwrap()
    }

    /// Waits until it has been started.
    fn started(&mut self) {
        wait_for(&self.pipe, PollFlags::POLLIN, "the program");
        let mut said = [0; 5];
        self.pipe.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"here\n");
    }

    /// Waits until it has ended.
    fn ended(&mut self) {
        wait_for(&self.pipe, PollFlags::POLLHUP, "the program");
    }
}

/// Where a tool is stopped.
struct Point {
    name: &'static str,
    /// The program that is replaced.
    program: &'static str,
    tool: &'static str,
    args: &'static [&'static str],
    /// The variable that names the program, else it is found in PATH.
    variable: Option<&'static str>,
}

const POINTS: &[Point] = &[
    Point {
        name: "while the work disk is made",
        program: "mke2fs",
        tool: "bg-vm",
        args: &["create", "dev", "--work-size", WORK, "--no-start"],
        variable: None,
    },
    Point {
        name: "while the vsock device is started",
        program: "vhost-device-vsock",
        tool: "bg-vm",
        args: &["create", "dev", "--work-size", WORK],
        variable: Some("BG_VHOST_DEVICE_VSOCK"),
    },
    Point {
        name: "while a seed is built for the store",
        program: "mke2fs",
        tool: "bg-seed",
        args: &["build", "debian", "--size", WORK],
        variable: None,
    },
    Point {
        name: "while a record is brought up",
        program: "mke2fs",
        tool: "bg-image",
        args: &["reconcile", "debian"],
        variable: None,
    },
    Point {
        name: "while the work disk of a verification is made",
        program: "mke2fs",
        tool: "bg-image",
        args: &["verify", "debian"],
        variable: None,
    },
    Point {
        name: "while the vsock device of a verification is started",
        program: "vhost-device-vsock",
        tool: "bg-image",
        args: &["verify", "debian"],
        variable: Some("BG_VHOST_DEVICE_VSOCK"),
    },
    Point {
        name: "while a seed is built in the cache",
        program: "mke2fs",
        tool: "bg-seed",
        args: &["build", "--size", WORK],
        variable: None,
    },
];

/// A store with the image `debian`, and the tool stopped at that point.
fn stopped_at(point: &Point) -> (Sandbox, Waiting, Child) {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "debian");
    let mut waiting = Waiting::new(&sandbox, point.program);
    let mut command: Command = sandbox.command(point.tool, point.args);
    command.env("BG_QEMU", "/bin/false");
    match point.variable {
        Some(variable) => command.env(variable, &waiting.program),
        None => command.env("PATH", format!("{}:{}", waiting.dir(), std::env::var("PATH").unwrap())),
    };
    let mut child = command.spawn().unwrap();
    let document = Files::new(&sandbox, "other").document().to_string();
    // Verbs that read no stdin have closed it.
    let _ = child.stdin.take().unwrap().write_all(document.as_bytes());
    waiting.started();
    (sandbox, waiting, child)
}

fn end(child: Child, signal: Signal) -> Done {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
    finish(child, b"")
}

fn assert_nothing_left(sandbox: &Sandbox, what: &str) {
    for dir in ["machines", "staging"] {
        assert_eq!(children(&sandbox.state(dir)), Vec::<PathBuf>::new(), "{what}");
    }
    assert_eq!(children(&sandbox.path("run")), Vec::<PathBuf>::new(), "{what}");
    let mut seeds = children(&sandbox.path("cache/seed"));
    seeds.retain(|path| !path.ends_with(".lock"));
    assert_eq!(seeds, Vec::<PathBuf>::new(), "{what}");
    assert_eq!(sandbox.findings(&["--now"]), Vec::<Value>::new(), "{what}");
}

#[test]
fn an_interrupted_tool_undoes_what_it_began() {
    for point in POINTS {
        for (signal, exit, code) in [(Signal::SIGINT, 130, "interrupted"), (Signal::SIGTERM, 143, "terminated")] {
            let (sandbox, mut waiting, child) = stopped_at(point);
            let done = end(child, signal);
            assert_eq!((done.exit, done.failed().code.as_str()), (exit, code), "{}: {done:?}", point.name);
            waiting.ended();
            assert_nothing_left(&sandbox, point.name);
        }
    }
}

#[test]
fn what_a_tool_is_making_is_no_leak_however_the_audit_is_asked() {
    for point in POINTS {
        let (sandbox, mut waiting, child) = stopped_at(point);
        let found = sandbox.run("bg-verify", &["--now"], "");
        assert_eq!((found.exit, found.text().as_str()), (0, ""), "{}", point.name);
        end(child, Signal::SIGKILL);
        waiting.ended();
    }
}

#[test]
fn what_a_killed_tool_left_is_found_and_removed() {
    for point in POINTS {
        let (sandbox, mut waiting, child) = stopped_at(point);
        let done = end(child, Signal::SIGKILL);
        assert_eq!(done.exit, 128 + 9, "{}: {done:?}", point.name);
        // What the tool started does not outlive it.
        waiting.ended();
        assert!(!sandbox.findings(&["--now"]).is_empty(), "{}: it was killed with nothing begun", point.name);
        sandbox.collect();
        assert_nothing_left(&sandbox, point.name);
        fixture::create(&sandbox, "dev");
        assert_eq!(sandbox.run("bg-image", &["show", "debian"], "").json()["name"], "debian");
    }
}

/// Verbs that are killed after each of their stages, on a store with the image `debian` and the VM `old`.
const STAGED: &[(&str, &[&str])] = &[
    ("bg-vm", &["create", "dev", "--work-size", WORK, "--no-start"]),
    ("bg-vm", &["rm", "old"]),
    ("bg-vm", &["rm", "old", "gone"]),
    ("bg-seed", &["build", "debian", "--size", WORK]),
    ("bg-register", &["--name", "new"]),
    ("bg-register", &["--name", "debian", "--replace"]),
    ("bg-image", &["rm", "spare"]),
    ("bg-image", &["reconcile", "debian"]),
    ("bg-image", &["reconcile", "debian", "--kernel", "-"]),
];

/// Runs a tool and kills it once it has sent so many events; false where it ended before.
pub fn killed_after(sandbox: &Sandbox, mut command: Command, stdin: &str, events: usize) -> bool {
    let fifo = sandbox.path("events");
    let _ = std::fs::remove_file(&fifo);
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut pipe = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo).unwrap();
    let tool = format!("{command:?}");
    let mut child = command.env("BG_EVENTS", &fifo).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let (mut said, mut chunk) = (String::new(), [0; 4096]);
    while said.matches('\n').count() < events && !said.contains(r#""event":"end""#) {
        wait_for(&pipe, PollFlags::POLLIN, &tool);
        let n = pipe.read(&mut chunk).unwrap();
        said += std::str::from_utf8(&chunk[..n]).unwrap();
    }
    end(child, Signal::SIGKILL);
    // A child that it had just forked has its pipe and its locks for a moment longer.
    wait_for(&pipe, PollFlags::POLLHUP, &tool);
    !said.contains(r#""event":"end""#)
}

fn wait_for(pipe: &File, what: PollFlags, who: &str) {
    // The end is always reported; events that nobody read must not be.
    let asked = if what == PollFlags::POLLHUP { PollFlags::empty() } else { what };
    let mut fds = [PollFd::new(pipe.as_fd(), asked)];
    let n = poll(&mut fds, PollTimeout::from(30_000_u16)).unwrap();
    assert_eq!(n, 1, "{who}: {what:?} did not come");
}

#[test]
fn whatever_is_killed_after_whichever_stage_is_whole_or_gone() {
    for verb in STAGED {
        for events in 1.. {
            let sandbox = Sandbox::new();
            fixture::register(&sandbox, "debian");
            fixture::register(&sandbox, "spare");
            fixture::create(&sandbox, "old");
            let document = Files::new(&sandbox, "other").document().to_string();
            let killed = killed_after(&sandbox, sandbox.command(verb.0, verb.1), &document, events);
            let what = format!("{} {:?} after {events} events", verb.0, verb.1);
            sandbox.collect();
            assert_eq!(sandbox.staged(), Vec::<PathBuf>::new(), "{what}");
            for vm in children(&sandbox.state("machines")) {
                let name = vm.file_name().unwrap().to_str().unwrap();
                assert_eq!(sandbox.run("bg-vm", &["show", name], "").json()["status"]["state"], "stopped", "{what}");
                assert_eq!(sandbox.run("bg-seed", &["check", "--vm", name], "").json()["ok"], true, "{what}");
            }
            for image in sandbox.run("bg-image", &["ls"], "").documents() {
                let mut again = image.clone();
                again["name"] = "again".into();
                // Every file that the record names is there, and is what the record says.
                sandbox.run("bg-register", &["--replace"], again.to_string()).ok();
            }
            assert!(sandbox.state("images/debian/image.json").is_file(), "{what}");
            if !killed {
                break;
            }
        }
    }
}

#[test]
fn the_next_command_undoes_what_a_killed_one_left_of_the_same_vm() {
    let (sandbox, mut waiting, child) = stopped_at(&POINTS[0]);
    end(child, Signal::SIGKILL);
    waiting.ended();
    sandbox.run("bg-vm", &["rm", "dev"], "").ok();
    assert_nothing_left(&sandbox, "after bg-vm rm");
}
