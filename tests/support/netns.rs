//! Network namespaces for tests: one that lives as long as its value does, tools that are run in it, and threads that
//! look at the world from inside. Nothing that a test does here is seen outside.

#![allow(clippy::disallowed_types)]

use super::{Done, Sandbox, finish, program};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A namespace, held by a process that does nothing.
pub struct Namespace {
    holder: Child,
}

impl Namespace {
    /// A new one, with a loopback that is up; `None`, and a line that says so, where this host gives no such thing.
    pub fn new(test: &str) -> Option<Self> {
        let missing = if !nix::unistd::geteuid().is_root() {
            Some("it takes root to make a network namespace")
        } else if !std::path::Path::new("/dev/net/tun").exists() {
            Some("there is no /dev/net/tun")
        } else {
            None
        };
        if let Some(reason) = missing {
            crate::support::not_run(test, reason);
            return None;
        }
        let script = "ip link set lo up && echo up && exec cat";
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "sh", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        if line != "up\n" {
            holder.wait().unwrap();
            crate::support::not_run(test, "unshare --net is refused");
            return None;
        }
        Some(Namespace { holder })
    }

    /// A process in it.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// A command that runs in it.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid())).arg("--").arg(program).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A tool of that sandbox, in it, not started yet.
    pub fn tool(&self, sandbox: &Sandbox, tool: &str, args: &[&str]) -> Command {
        let mut command = self.command(program(tool), args);
        command.env_clear().envs(sandbox.env()).current_dir(sandbox.path("home"));
        command
    }

    /// Runs a tool of that sandbox in it.
    pub fn run(&self, sandbox: &Sandbox, tool: &str, args: &[&str], stdin: impl AsRef<[u8]>) -> Done {
        finish(self.tool(sandbox, tool, args).spawn().unwrap(), stdin.as_ref())
    }

    /// Runs a program in it that has to succeed; its output. Words are separated by blanks.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let done: Done = self.command(words[0], &words[1..]).output().unwrap().into();
        assert_eq!(done.exit, 0, "{line}: {done:?}");
        done.text()
    }

    /// Does something in a thread that is inside.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.pid())).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// The names of its interfaces, without the loopback.
    pub fn links(&self) -> Vec<String> {
        let lines = self.ok("ip -o link show");
        let name = |line: &str| line.split_whitespace().nth(1).unwrap().trim_end_matches(':').to_owned();
        lines.lines().map(name).filter(|name| name != "lo").collect()
    }

    /// Something to the world behind it: an interface `uplink` at 192.0.2.1, and the default route by that to a namespace
    /// that has these addresses of the world.
    pub fn uplink(&self, test: &str, addresses: &[&str]) -> Option<Namespace> {
        let world = Namespace::new(test)?;
        self.connect("uplink", &world, "host");
        self.ok("ip addr add 192.0.2.1/24 dev uplink");
        self.ok("ip route add default via 192.0.2.2");
        world.ok("ip addr add 192.0.2.2/24 dev host");
        for address in addresses {
            world.ok(&format!("ip addr add {address}/32 dev lo"));
        }
        Some(world)
    }

    /// A cable between an interface of this namespace and one of another.
    pub fn connect(&self, own: &str, other: &Namespace, its: &str) {
        self.ok(&format!("ip link add {own} type veth peer name {its} netns {}", other.pid()));
        self.ok(&format!("ip link set {own} up"));
        other.ok(&format!("ip link set {its} up"));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
