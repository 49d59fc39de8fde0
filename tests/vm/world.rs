//! One banger: a state directory with the image registered, the tools with that environment, and the audit at the end.

// Tests start the tools as a user does.
#![allow(clippy::disallowed_types)]

use crate::support::is_of_network;
use crate::support::mounts::Mounts;
use crate::support::netns::Namespace;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How long a guest may take to answer, in seconds: under software emulation on a busy machine, 240. As every deadline here
/// it is in proportion to `BG_BOOT_TIMEOUT`.
pub fn boot() -> String {
    (patience() * 4).as_secs().to_string()
}

/// A minute, or `BG_BOOT_TIMEOUT`.
fn patience() -> Duration {
    let seconds = std::env::var("BG_BOOT_TIMEOUT").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(60.0))
}

const BINS: &[(&str, &str)] = &[
    ("bg-kernel", env!("CARGO_BIN_EXE_bg-kernel")),
    ("bg-rootfs", env!("CARGO_BIN_EXE_bg-rootfs")),
    ("bg-seed", env!("CARGO_BIN_EXE_bg-seed")),
    ("bg-register", env!("CARGO_BIN_EXE_bg-register")),
    ("bg-image", env!("CARGO_BIN_EXE_bg-image")),
    ("bg-image-build", env!("CARGO_BIN_EXE_bg-image-build")),
    ("bg-vm", env!("CARGO_BIN_EXE_bg-vm")),
    ("bg-shim", env!("CARGO_BIN_EXE_bg-shim")),
    ("bg-health", env!("CARGO_BIN_EXE_bg-health")),
    ("bg-ssh", env!("CARGO_BIN_EXE_bg-ssh")),
    ("bg-tap", env!("CARGO_BIN_EXE_bg-tap")),
    ("bg-verify", env!("CARGO_BIN_EXE_bg-verify")),
    ("bg-gc", env!("CARGO_BIN_EXE_bg-gc")),
];

/// Where the tools are.
pub fn bin_dir() -> PathBuf {
    Path::new(BINS[0].1).parent().unwrap().to_owned()
}

/// The image's document, built once (from the user's cache, where it lies there).
fn image(world: &World) -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| world.build(&["--distro", "debian"]))
}

/// Runs a command with bytes on its stdin.
fn feed(command: &mut Command, stdin: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // A tool that does not read its stdin closes it: that is its right.
    let _ = pipe.write_all(stdin);
    drop(pipe);
    child.wait_with_output().unwrap()
}

/// One at a time: an emulated guest and its devices keep two processors busy, and deadlines are wall time.
struct Turn;

static TURNS: (Mutex<usize>, Condvar) = (Mutex::new(1), Condvar::new());

impl Turn {
    fn wait() -> Self {
        let mut free = TURNS.1.wait_while(TURNS.0.lock().unwrap(), |free| *free == 0).unwrap();
        *free -= 1;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TURNS.0.lock().unwrap() += 1;
        TURNS.1.notify_one();
    }
}

/// One banger.
pub struct World {
    dir: tempfile::TempDir,
    bins: PathBuf,
    uid: Option<u32>,
    netns: Option<Namespace>,
    mounts: Option<Mounts>,
    _turn: Turn,
}

impl World {
    /// With the image `debian` registered.
    pub fn new() -> Self {
        World::with("debian", image)
    }

    /// With that image registered and no other.
    pub fn with(name: &str, document: impl FnOnce(&World) -> &'static str) -> Self {
        World::bare().furnished(name, document)
    }

    fn bare() -> Self {
        let turn = Turn::wait();
        let dir = tempfile::Builder::new().prefix("bg").tempdir().unwrap();
        World { dir, bins: bin_dir(), uid: None, netns: None, mounts: None, _turn: turn }
    }

    /// The state directory of the image `debian` is a file system of its own, of so many MiB.
    pub fn with_room(test: &str, mib: u32) -> Option<Self> {
        let mut world = World::bare();
        world.mounts = Some(Mounts::new(test, &world.dir.path().join("state"), mib)?);
        Some(world.furnished("debian", image))
    }

    /// That file system.
    pub fn mounts(&self) -> &Mounts {
        self.mounts.as_ref().expect("the test has a file system")
    }

    fn furnished(self, name: &str, document: impl FnOnce(&World) -> &'static str) -> Self {
        let world = self;
        let output = world.pipe("bg-register", &["--name", name], document(&world).as_bytes());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        world
    }

    /// The document of an image whose root file system `bg-rootfs build` makes with these arguments.
    pub fn build(&self, rootfs: &[&str]) -> String {
        let mut document = Vec::new();
        for (tool, args) in
            [("bg-kernel", &["build"][..]), ("bg-rootfs", &[&["build"], rootfs].concat()), ("bg-seed", &["build"])]
        {
            let output = self.pipe(tool, args, &document);
            assert!(output.status.success(), "{tool}: {}", show(&output));
            document = output.stdout;
        }
        String::from_utf8(document).unwrap()
    }

    /// The same, in a network namespace of its own, where VMs get a network card.
    pub fn in_netns(test: &str) -> Option<Self> {
        let netns = Namespace::new(test)?;
        let mut world = World::new();
        world.netns = Some(netns);
        Some(world)
    }

    /// That namespace.
    pub fn netns(&self) -> &Namespace {
        self.netns.as_ref().expect("the test has a namespace")
    }

    /// The same, owned and used by another user, with copies of the programs that this user can read.
    pub fn of_user(uid: u32) -> Self {
        let mut world = World::new();
        let bins = world.dir.path().join("bin");
        std::fs::create_dir_all(world.dir.path().join("libexec/banger")).unwrap();
        std::fs::create_dir(&bins).unwrap();
        for (name, path) in BINS {
            std::fs::copy(path, bins.join(name)).unwrap();
        }
        let agent = bin_dir().join("../libexec/banger/guest-agent");
        std::fs::copy(agent, world.dir.path().join("libexec/banger/guest-agent")).unwrap();
        std::fs::copy(vsock_device(), bins.join("vhost-device-vsock")).unwrap();
        let chowned = Command::new("chown").arg("-R").arg(uid.to_string()).arg(world.dir.path()).status().unwrap();
        assert!(chowned.success());
        world.bins = bins;
        world.uid = Some(uid);
        world
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A file or directory of the VM `name`.
    pub fn vm_file(&self, name: &str, file: &str) -> PathBuf {
        self.dir.path().join("state/machines").join(name).join(file)
    }

    /// A tool with this banger's environment.
    pub fn command(&self, tool: &str, args: &[&str]) -> Command {
        let program = self.bins.join(tool);
        let mut command = match self.uid {
            None => self.program(&program.display().to_string()),
            Some(uid) => {
                let mut command = self.program("setpriv");
                let id = uid.to_string();
                command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(program);
                command
            }
        };
        command.args(args);
        command
    }

    /// Gives a command this banger's environment.
    fn dress(&self, command: &mut Command) {
        let path = std::env::var("PATH").unwrap_or_default();
        command.stdin(Stdio::null()).current_dir("/").env("PATH", format!("{}:{path}", self.bins.display()));
        command.env("BG_STATE_DIR", self.dir.path().join("state")).env("BG_RUNTIME_DIR", self.dir.path().join("run"));
        command.env("BG_NET_DIR", self.dir.path().join("net"));
        command.env("BG_NET", if self.netns.is_some() { "on" } else { "off" });
        // Wherever the cache is that the test sets.
        let device = self.bins.join("vhost-device-vsock");
        command.env("BG_VHOST_DEVICE_VSOCK", if self.uid.is_some() { device } else { vsock_device() });
        if self.uid.is_some() {
            command.env("HOME", self.dir.path()).env_remove("XDG_CACHE_HOME").env_remove("XDG_RUNTIME_DIR");
        }
    }

    /// A tool with this banger's environment, in a network namespace.
    pub fn command_in(&self, netns: &Namespace, tool: &str, args: &[&str]) -> Command {
        let mut command = netns.command(&self.bins.join(tool).display().to_string(), args);
        self.dress(&mut command);
        command
    }

    /// Runs a script of pipelines/.
    pub fn script(&self, path: &str, args: &[&str]) -> Output {
        self.program(path).args(args).output().unwrap()
    }

    /// Any program, with the tools in its PATH.
    pub fn program(&self, program: &str) -> Command {
        let mut command = match (&self.netns, &self.mounts) {
            (Some(netns), _) => netns.command(program, &[]),
            (None, Some(mounts)) => mounts.command(program, &[]),
            (None, None) => Command::new(program),
        };
        self.dress(&mut command);
        command
    }

    /// Runs a tool.
    pub fn run(&self, tool: &str, args: &[&str]) -> Output {
        self.command(tool, args).output().unwrap()
    }

    /// Runs a tool with bytes on its stdin.
    pub fn pipe(&self, tool: &str, args: &[&str], stdin: &[u8]) -> Output {
        feed(&mut self.command(tool, args), stdin)
    }

    /// Starts a tool and lets it run.
    pub fn spawn(&self, tool: &str, args: &[&str], events: &Path) -> Child {
        let mut command = self.command(tool, args);
        command.env("BG_EVENTS", events).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs a tool that must succeed, and gives its stdout.
    pub fn ok(&self, tool: &str, args: &[&str]) -> String {
        let output = self.run(tool, args);
        assert!(output.status.success(), "{tool} {args:?}: {}\n{}", show(&output), self.consoles());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a tool that must succeed with one document.
    pub fn json(&self, tool: &str, args: &[&str]) -> Value {
        let text = self.ok(tool, args);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{tool} {args:?}: {e}: {text}"))
    }

    /// A VM that is healthy, with little memory and a small work disk.
    pub fn boot(&self, name: &str) -> Value {
        self.ok("bg-vm", &["create", name, "--memory", "512M", "--work-size", "2G"]);
        self.healthy(name)
    }

    /// Waits until the VM is healthy, on the VMM that was asked for.
    pub fn healthy(&self, name: &str) -> Value {
        let doc = self.json("bg-health", &[name, "--wait", &boot()]);
        let asked = std::env::var("BG_VMM").unwrap_or("auto".into());
        assert!(asked == "auto" || doc["vmm"]["kind"] == *asked, "{}", doc["vmm"]);
        doc
    }

    /// Runs one shell line in the guest, which must succeed, and gives what it printed, trimmed.
    pub fn guest(&self, name: &str, line: &str) -> String {
        self.ok("bg-ssh", &[name, "--", line]).trim().to_owned()
    }

    /// `status` of `bg-vm show`.
    pub fn status(&self, name: &str) -> Value {
        self.json("bg-vm", &["show", name])["status"].take()
    }

    /// Waits until `done` holds; a minute is the most where a boot may take as long.
    pub fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < patience(), "{what} did not come\n{}", self.consoles());
            std::thread::yield_now();
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// The findings of `bg-verify --now`, without what it only shows of the network.
    pub fn findings(&self) -> Vec<Value> {
        let output = self.run("bg-verify", &["--now"]);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{}", show(&output));
        let stdout = String::from_utf8(output.stdout).unwrap();
        let found = stdout.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        found.filter(|finding| !is_of_network(finding)).collect()
    }

    /// `bg-verify --now | bg-gc --now`, after which nothing may be found. A tool that was killed between fork and exec
    /// leaves its locks to its child for a moment, and what is locked is not abandoned yet: so until it is clean.
    pub fn collect(&self) {
        self.until("a clean audit", || {
            let found = self.run("bg-verify", &["--now"]);
            let output = self.pipe("bg-gc", &["--now"], &found.stdout);
            assert!(output.status.success(), "{}", show(&output));
            self.findings().is_empty()
        });
    }

    /// Processes whose arguments name this banger's directory.
    pub fn processes(&self) -> Vec<String> {
        let here = self.dir.path().join("run").display().to_string();
        let pids = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().into_string().ok());
        let lines = pids.filter(|p| p.bytes().all(|b| b.is_ascii_digit())).filter_map(|pid| {
            let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
            line.contains(&here).then(|| format!("{pid}: {line}"))
        });
        lines.collect()
    }

    /// Says that no VM is there, nor anything that one has had.
    #[track_caller]
    pub fn assert_nothing_is_left(&self) {
        assert_eq!(self.processes(), Vec::<String>::new());
        assert_eq!(self.findings(), Vec::<Value>::new());
        for dir in ["state/machines", "state/staging", "run"] {
            let left = std::fs::read_dir(self.dir.path().join(dir)).unwrap().map(|e| e.unwrap().path());
            assert_eq!(left.collect::<Vec<PathBuf>>(), Vec::<PathBuf>::new());
        }
    }

    /// What the guests printed last, for messages.
    fn consoles(&self) -> String {
        let Ok(machines) = std::fs::read_dir(self.dir.path().join("state/machines")) else { return String::new() };
        let logs = machines.flat_map(|m| {
            let dir = m.unwrap().path();
            ["console.log", "shim.log"].map(|file| dir.join(file))
        });
        let texts = logs.map(|log| {
            let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
            let tail: Vec<&str> = text.lines().rev().take(15).collect();
            format!("--- {}\n{}\n", log.display(), tail.into_iter().rev().collect::<Vec<_>>().join("\n"))
        });
        texts.collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let listed = self.run("bg-vm", &["ls", "--output", "json"]).stdout;
        for line in String::from_utf8_lossy(&listed).lines() {
            let doc: Value = serde_json::from_str(line).unwrap_or_default();
            if let Some(name) = doc["name"].as_str() {
                self.run("bg-vm", &["rm", "--force", name]);
            }
        }
        if std::thread::panicking() {
            let found = self.run("bg-verify", &["--now"]);
            self.pipe("bg-gc", &["--now"], &found.stdout);
            return;
        }
        if self.netns.is_some() {
            self.ok("bg-tap", &["down"]);
        }
        assert_eq!(self.findings(), Vec::<Value>::new(), "the test left something");
        assert_eq!(self.processes(), Vec::<String>::new(), "the test left processes");
    }
}

/// What a tool said.
pub fn show(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\nstdout: {}\nstderr: {}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Where `make setup` has put it.
pub fn vsock_device() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).unwrap();
    let cached = cache.join("banger/vhost-device-vsock/bin/vhost-device-vsock");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|d| d.join("vhost-device-vsock"));
    in_path.chain([cached]).find(|p| p.is_file()).expect("vhost-device-vsock is installed by `make setup`")
}
