//! The stand-in for Firecracker against what a real one did: `firecracker-real/seen.tsv` has each case and how the real one ended,
//! `firecracker-real/cases.tsv` what each case changes in `base.json` or the command line.
//!
//! A real one that cannot build its microVM exits with 1, or is ended by signal 6 (`exit -6`) where a request was pending.

#![allow(clippy::disallowed_types, reason = "a test may start programs itself")]

use crate::support::launched::{fake_firecracker, until};
use nix::sys::stat::Mode;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

const BASE: &str = include_str!("firecracker-real/base.json");
const CASES: &str = include_str!("firecracker-real/cases.tsv");
const SEEN: &str = include_str!("firecracker-real/seen.tsv");

/// What cannot be compared, and why.
const NOT_COMPARED: [(&str, &str); 3] = [
    ("mem 4T", "the real one's API came up and its guest never ran, which depends on the host's memory"),
    ("cpu_template T2", "the real one refuses it on a processor that is not one of Intel's Skylake or Cascade Lake"),
    ("huge_pages 2M", "the real one fails where the host has reserved no such pages"),
];

/// A directory with the files that cases name, and a stand-in.
struct Host {
    dir: tempfile::TempDir,
    vmm: PathBuf,
}

/// What a case makes of the base.
struct Case {
    args: Vec<String>,
    text: String,
}

impl Host {
    fn new(mode: &str) -> Self {
        // Short, for sockets' paths have 107 bytes at most.
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("fake")).unwrap();
        let vmm = path("fake/firecracker");
        std::fs::copy(fake_firecracker(), &vmm).unwrap();
        std::fs::write(path("fake/mode"), mode).unwrap();
        std::fs::write(path("fake/version"), "1.17.0-dev").unwrap();
        std::fs::write(path("vmlinux"), b"\x7fELF").unwrap();
        for (file, bytes) in
            [("initrd", 4096), ("root.ext4", 4096), ("work.ext4", 4096), ("thousand", 1000), ("empty", 0)]
        {
            std::fs::write(path(file), vec![b'x'; bytes]).unwrap();
        }
        for file in ["text", "log", "metrics"] {
            std::fs::write(path(file), "some text\n").unwrap();
        }
        std::fs::create_dir(path("directory")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), Mode::S_IRWXU).unwrap();
        Host { dir, vmm }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A value of the table with its `{dir}`, `{x:N}` (so many letters) and `{path:N}` (a path of so many bytes).
    fn filled(&self, text: &str) -> String {
        let dir = self.dir.path().to_str().unwrap();
        let mut text = text.replace("{dir}", dir);
        for (mark, before) in [("{x:", String::new()), ("{path:", format!("{dir}/"))] {
            if let Some((start, rest)) = text.clone().split_once(mark) {
                let (n, end) = rest.split_once('}').unwrap();
                let letters = n.parse::<usize>().unwrap() - before.len();
                text = format!("{start}{before}{}{end}", "x".repeat(letters));
            }
        }
        text
    }

    fn case(&self, name: &str) -> Case {
        let base = self.filled(BASE);
        let mut config: Value = serde_json::from_str(&base).unwrap();
        let mut text = None;
        let mut options = [
            ("--id", "case".to_owned()),
            ("--api-sock", self.filled("{dir}/api")),
            ("--config-file", self.filled("{dir}/config")),
        ];
        let mut flags = vec![];
        for (place, value) in changes(name) {
            let filled = self.filled(value);
            let string = || serde_json::from_str::<String>(&filled).unwrap();
            match place {
                "" => {}
                "text" => {
                    text = Some(
                        string().replace("{config}", &base).replace("{rest}", base.trim().strip_prefix('{').unwrap()),
                    )
                }
                option if option.starts_with("--") => match options.iter_mut().find(|(name, _)| *name == option) {
                    Some((_, old)) => *old = string(),
                    None => flags.push(option.to_owned()),
                },
                pointer => set(&mut config, pointer, &filled),
            }
        }
        let mut args: Vec<String> = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        args.extend(flags);
        Case { args, text: text.unwrap_or_else(|| config.to_string()) }
    }

    /// How the stand-in ended, or `None` where its guest runs. `asked`: a request is pending meanwhile.
    fn run(&self, case: &Case, asked: bool) -> Option<ExitStatus> {
        std::fs::write(self.path("config"), &case.text).unwrap();
        let mut command = Command::new(&self.vmm);
        command
            .args(&case.args)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = Ended(command.spawn().unwrap());
        let stdout = BufReader::new(child.0.stdout.take().unwrap());
        let api = self.path("api");
        let request = asked.then(|| ask(&api));
        let runs = stdout.lines().map_while(Result::ok).any(|line| line.starts_with("run "));
        if runs {
            let mut stream = request.unwrap_or_else(|| ask(&api));
            let mut answer = [0; 512];
            let n = stream.read(&mut answer).unwrap();
            assert!(String::from_utf8_lossy(&answer[..n]).contains("\"state\":\"Running\""), "{:?}", case.args);
            child.0.kill().unwrap();
        }
        let status = child.0.wait().unwrap();
        for file in ["api", "vm.vsock", "none"] {
            let _ = std::fs::remove_file(self.path(file));
        }
        (!runs).then_some(status)
    }
}

/// A child that a test which fails does not leave behind.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a request to an API that is about to be there; its answer has not been read.
fn ask(api: &Path) -> UnixStream {
    let mut stream = None;
    until("the API is up", || {
        stream = UnixStream::connect(api).ok();
        stream.is_some()
    });
    let mut stream = stream.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream
}

/// The places that a case changes, and to what.
fn changes(name: &str) -> Vec<(&'static str, &'static str)> {
    let fields = |line: &'static str| {
        let mut fields = line.split('\t');
        let case = fields.next().unwrap();
        (case == name).then(|| (fields.next().unwrap_or_default(), fields.next().unwrap_or_default()))
    };
    let changes: Vec<_> = CASES.lines().skip(1).filter_map(fields).collect();
    assert!(!changes.is_empty(), "`{name}` is in seen.tsv and not in cases.tsv");
    changes
}

/// Sets or removes what a pointer leads to; an index at the end of an array appends.
fn set(config: &mut Value, pointer: &str, value: &str) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match config.pointer_mut(parent).unwrap() {
        Value::Array(items) => items.push(serde_json::from_str(value).unwrap()),
        Value::Object(fields) if value == "remove" => drop(fields.remove(key)),
        Value::Object(fields) => drop(fields.insert(key.to_owned(), serde_json::from_str(value).unwrap())),
        other => panic!("{pointer}: {other}"),
    }
}

fn in_words(end: Option<ExitStatus>) -> String {
    match end.map(|status| (status.code(), status.signal())) {
        None => "RUNS".into(),
        Some((Some(code), _)) => format!("exit {code}"),
        Some((None, signal)) => format!("exit -{}", signal.unwrap()),
    }
}

#[test]
fn the_stand_in_takes_and_refuses_what_a_real_firecracker_did() {
    let (host, slow) = (Host::new("runs"), Host::new("builds-until-asked"));
    let (mut compared, mut differ) = (0, vec![]);
    let rows: Vec<(&str, &str)> = SEEN.lines().skip(1).map(|line| line.split_once('\t').unwrap()).collect();
    for (name, _) in NOT_COMPARED {
        assert!(rows.iter().any(|(case, _)| *case == name), "`{name}` is no case");
    }
    for (name, real) in rows {
        let (case, skipped) = (host.case(name), NOT_COMPARED.iter().find(|(case, _)| *case == name));
        if let Some((_, why)) = skipped {
            crate::support::not_run(&format!("the case `{name}`"), why);
            continue;
        }
        // A panic of the real one while it builds was that of a pending request; one of its command line was not.
        let asked = real == "exit -6" && !name.starts_with("arg: ");
        let got = if asked { slow.run(&slow.case(name), true) } else { host.run(&case, false) };
        compared += 1;
        if in_words(got) != real {
            differ.push(format!("{name}: {} in place of {real}", in_words(got)));
        }
    }
    assert!(differ.is_empty(), "{compared} compared; {differ:#?}");
    assert_eq!(compared, 130);
}

#[test]
fn a_request_that_waits_for_the_build_is_answered_when_it_is_over() {
    let slow = Host::new("builds-until-asked");
    assert_eq!(slow.run(&slow.case("base"), true), None);
    let refused = slow.case("vcpu 33");
    assert_eq!(in_words(slow.run(&refused, true)), "exit -6");
    let quick = Host::new("runs");
    assert_eq!(in_words(quick.run(&quick.case("vcpu 33"), false)), "exit 1", "the same where nobody asks");
}
