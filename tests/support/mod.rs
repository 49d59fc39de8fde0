//! A banger of its own for each test: directories, environment, and tools that are run in it, either as the programs
//! that they are or inside this process. Knows what every tool promises of its streams and its status, and no verb.

// Tests start the tools as a user does; the library's own `Cmd` is part of what they test.
#![allow(clippy::disallowed_types)]

pub mod fixture;
pub mod footprint;
pub mod fresh;
pub mod launched;
pub mod mounts;
pub mod netns;
pub mod served;
pub mod source;
pub mod xbps;

use lib_common::doc::{API_VERSION, ErrorDoc, strict};
use lib_common::error::Code;
use lib_machine::config::Env;
use lib_tools::cli::{Answer, Context, Io, run_with};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Every tool and its program. `invariants` compares the list with Cargo.toml.
pub const TOOLS: &[(&str, &str)] = &[
    ("bg-bench", env!("CARGO_BIN_EXE_bg-bench")),
    ("bg-doctor", env!("CARGO_BIN_EXE_bg-doctor")),
    ("bg-gc", env!("CARGO_BIN_EXE_bg-gc")),
    ("bg-health", env!("CARGO_BIN_EXE_bg-health")),
    ("bg-image", env!("CARGO_BIN_EXE_bg-image")),
    ("bg-image-build", env!("CARGO_BIN_EXE_bg-image-build")),
    ("bg-kernel", env!("CARGO_BIN_EXE_bg-kernel")),
    ("bg-register", env!("CARGO_BIN_EXE_bg-register")),
    ("bg-rootfs", env!("CARGO_BIN_EXE_bg-rootfs")),
    ("bg-seed", env!("CARGO_BIN_EXE_bg-seed")),
    ("bg-shim", env!("CARGO_BIN_EXE_bg-shim")),
    ("bg-ssh", env!("CARGO_BIN_EXE_bg-ssh")),
    ("bg-tap", env!("CARGO_BIN_EXE_bg-tap")),
    ("bg-verify", env!("CARGO_BIN_EXE_bg-verify")),
    ("bg-vm", env!("CARGO_BIN_EXE_bg-vm")),
];

/// The findings that are about a network.
const NETWORK_KINDS: [&str; 9] = ["tap", "tap_pool", "lease", "bridge", "port", "nft", "net_dir", "subnet", "route"];

/// The program of a tool.
pub fn program(tool: &str) -> &'static str {
    TOOLS.iter().find(|(name, _)| *name == tool).unwrap_or_else(|| panic!("no tool {tool}")).1
}

/// Whether committed files are to be written anew instead of compared (`BG_UPDATE=1 cargo test`).
pub fn updating() -> bool {
    std::env::var_os("BG_UPDATE").is_some_and(|v| v == "1")
}

/// A state, runtime, cache and home directory that no other test sees.
pub struct Sandbox {
    dir: tempfile::TempDir,
}

/// A verb of the library, run without a command line.
pub type Verb = fn(NoArgs, &mut Context<'_>) -> lib_common::Result<Answer>;

/// No command line.
#[derive(clap::Parser)]
pub struct NoArgs {}

/// Which standard streams are terminals, for [`Sandbox::inside`].
#[derive(Clone, Copy, Default)]
pub struct Terminals {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// Whether a finding is no leak, but a part of a network that is only shown.
pub fn is_of_network(finding: &Value) -> bool {
    finding["is_leak"] == false && NETWORK_KINDS.iter().any(|kind| finding["kind"] == *kind)
}

impl Sandbox {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("bg").tempdir().unwrap();
        std::fs::create_dir(dir.path().join("home")).unwrap();
        Sandbox { dir }
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub fn state(&self, below: &str) -> PathBuf {
        self.path("state").join(below)
    }

    /// The whole environment of a tool: nothing of the caller's but PATH.
    pub fn env(&self) -> Env {
        let dir = |below: &str| self.path(below).display().to_string();
        let mut env = Env::from([("LC_ALL".to_owned(), "C".to_owned()), ("HOME".to_owned(), dir("home"))]);
        for (variable, below) in
            [("BG_STATE_DIR", "state"), ("BG_RUNTIME_DIR", "run"), ("BG_CACHE_DIR", "cache"), ("BG_NET_DIR", "net")]
        {
            env.insert(variable.into(), dir(below));
        }
        // A VM with a card is for tests that have a network namespace of their own.
        env.insert("BG_NET".into(), "off".into());
        env.insert("PATH".into(), std::env::var("PATH").unwrap());
        env
    }

    /// The tool, not started yet.
    pub fn command(&self, tool: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program(tool));
        command.args(args).env_clear().envs(self.env()).current_dir(self.path("home"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a tool to its end.
    pub fn run(&self, tool: &str, args: &[&str], stdin: impl AsRef<[u8]>) -> Done {
        finish(self.command(tool, args).spawn().unwrap(), stdin.as_ref())
    }

    /// Runs a verb inside this process.
    pub fn inside(&self, verb: Verb, stdin: &[u8], terminals: Terminals) -> Done {
        let (mut stdout, mut stderr) = (vec![], vec![]);
        let exit = run_with(
            "bg-test",
            verb,
            Io {
                args: vec!["bg-test".into()],
                env: self.env(),
                root: false,
                stdin: (Box::new(stdin), terminals.stdin),
                stdout: (Box::new(&mut stdout), terminals.stdout),
                stderr: (Box::new(&mut stderr), terminals.stderr),
            },
        );
        Done { exit: exit.into(), stdout, stderr: String::from_utf8(stderr).unwrap() }
    }

    /// Says that nothing was made: a tool has no side effect before its stdin was read and parsed.
    #[track_caller]
    pub fn assert_untouched(&self, what: &str) {
        for dir in ["state", "run", "cache", "net"] {
            assert!(!self.path(dir).exists(), "{what}: {dir} was made");
        }
    }

    /// What lies in staging.
    pub fn staged(&self) -> Vec<PathBuf> {
        children(&self.state("staging"))
    }

    /// The findings of `bg-verify`, without what it only shows of the network that this test runs in.
    pub fn findings(&self, args: &[&str]) -> Vec<Value> {
        let done = self.run("bg-verify", args, "");
        assert!(matches!(done.exit, 0 | 1), "{done:?}");
        let found = done.documents();
        assert_eq!(done.exit == 1, found.iter().any(|f| f["is_leak"] == true), "exit 1 is a leak: {done:?}");
        found.into_iter().filter(|f| !is_of_network(f)).collect()
    }

    /// `bg-verify --now | bg-gc --now`, after which nothing may be found.
    pub fn collect(&self) {
        let found = self.run("bg-verify", &["--now"], "");
        self.run("bg-gc", &["--now"], &found.stdout).ok();
        assert_eq!(self.findings(&["--now"]), Vec::<Value>::new());
    }
}

/// Another program with a command's environment, directory and piped streams, and no arguments yet.
pub fn like(command: &Command, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut other = Command::new(program);
    other.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    other.current_dir(command.get_current_dir().unwrap());
    other.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    other
}

/// A program that starts that command, which follows the program's own arguments.
pub fn through(command: &Command, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Command {
    let mut other = like(command, program);
    other.args(args).arg(command.get_program()).args(command.get_args());
    other
}

/// Says that a test, or a part of it, cannot run here, and why. Straight to the file: of a test that passes, and does not run,
/// the harness shows nothing that was printed.
pub fn not_run(test: &str, reason: &str) {
    std::io::stderr().write_all(format!("NOT RUN: {test} ({reason})\n").as_bytes()).unwrap();
}

/// Whether strace(1) is there, which holds programs up, kills them at a known point, and says what they did.
pub fn has_strace(test: &str) -> bool {
    let there = Command::new("strace").arg("-V").output().is_ok_and(|o| o.status.success());
    if !there {
        not_run(test, "strace is not installed");
    }
    there
}

/// What a directory holds, sorted; nothing where it is missing.
pub fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return vec![] };
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Feeds a started tool and waits for its end.
pub fn finish(mut child: Child, stdin: &[u8]) -> Done {
    if let Some(mut pipe) = child.stdin.take() {
        // A tool that does not read its stdin closes it: that is its right.
        let _ = pipe.write_all(stdin);
    }
    child.wait_with_output().unwrap().into()
}

/// How a tool ended and what it said.
#[derive(Debug)]
pub struct Done {
    /// Its exit status; that of a shell where a signal ended it.
    pub exit: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let exit = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap());
        Done { exit, stdout: output.stdout, stderr: String::from_utf8(output.stderr).unwrap() }
    }
}

impl Done {
    /// It must have succeeded; its stdout.
    #[track_caller]
    pub fn ok(&self) -> String {
        assert_eq!(self.exit, 0, "{self:?}");
        self.text()
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    /// It must have succeeded with one document.
    #[track_caller]
    pub fn json(&self) -> Value {
        let text = self.ok();
        assert_eq!(text.lines().count(), 1, "one document, one line: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A document a line, whatever its status.
    #[track_caller]
    pub fn documents(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// It must have failed as every failure does: nothing on stdout, the `Error` document as the last line of stderr,
    /// a known code, and that code's exit status.
    #[track_caller]
    pub fn failed(&self) -> ErrorDoc {
        assert_eq!(self.stdout, b"", "stdout is empty on failure: {self:?}");
        let last = self.stderr.lines().last().unwrap_or_else(|| panic!("stderr is empty: {self:?}"));
        let doc: ErrorDoc = strict(last).unwrap_or_else(|e| panic!("{e:?}: {self:?}"));
        assert_eq!((doc.api_version.as_str(), doc.kind.as_str()), (API_VERSION, "Error"), "{self:?}");
        let code = Code::ALL.iter().find(|c| c.as_str() == doc.code).unwrap_or_else(|| panic!("unknown: {self:?}"));
        assert_eq!((i32::from(doc.exit), i32::from(code.exit())), (self.exit, self.exit), "{self:?}");
        doc
    }

    /// It must have failed with this code.
    #[track_caller]
    pub fn failed_with(&self, code: Code) -> ErrorDoc {
        let doc = self.failed();
        assert_eq!(doc.code, code.as_str(), "{self:?}");
        doc
    }
}
