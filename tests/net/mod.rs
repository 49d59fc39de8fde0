//! `bg-tap`, each test in a network namespace of its own: TAPs, addresses, what guests may reach, and that nothing is
//! left of it.

#![allow(clippy::disallowed_types)]

mod audit;
mod audit_fabric;
mod bench;
mod failing;
mod forwarding;
mod going;
mod in_netns;
mod killed;
mod life;
mod loans;
mod machines;
mod owner;
mod parallel;
mod pool;
mod reach;
mod reboot;
mod replaced;
mod tables;
mod up;

use crate::audit::assert_can_be_pasted;
use crate::support::netns::Namespace;
use crate::support::{Done, Sandbox, children};
use serde_json::Value;

/// A namespace and a sandbox, with what the tests of this module do in them.
struct Host {
    sandbox: Sandbox,
    netns: Namespace,
}

impl Host {
    fn new(test: &str) -> Option<Self> {
        Some(Host { netns: Namespace::new(test)?, sandbox: Sandbox::new() })
    }

    /// With a network that is up.
    fn up(test: &str) -> Option<Self> {
        let host = Self::new(test)?;
        host.tap(&["up"], "").ok();
        Some(host)
    }

    fn tap(&self, args: &[&str], stdin: impl AsRef<[u8]>) -> Done {
        self.netns.run(&self.sandbox, "bg-tap", args, stdin)
    }

    /// The document of a VM with an address and a TAP.
    fn acquire(&self, n: u32) -> Value {
        self.tap(&["acquire"], machine(n)).json()
    }

    /// What `bg-verify` finds.
    fn verify(&self, args: &[&str]) -> Vec<Value> {
        let done = self.netns.run(&self.sandbox, "bg-verify", args, "");
        let found = done.documents();
        assert_eq!(done.exit, i32::from(found.iter().any(|f| f["is_leak"] == true)), "{done:?}");
        assert_can_be_pasted(&found);
        found
    }

    /// `bg-verify --now | bg-gc --now`, after which there is no leak. Gives the kinds and ids of what was taken.
    fn collect(&self) -> Vec<(String, String)> {
        let found: String = self.verify(&["--now"]).iter().map(|f| format!("{f}\n")).collect();
        let taken = self.netns.run(&self.sandbox, "bg-gc", &["--now"], &found);
        taken.ok();
        assert_eq!(leaks(&self.verify(&["--now"])), Vec::<&Value>::new(), "after {found}");
        let word = |f: &Value, field: &str| f[field].as_str().unwrap().to_owned();
        taken.documents().iter().map(|f| (word(f, "kind"), word(f, "id"))).collect()
    }

    /// A process that has a TAP open, as a VMM does, and is then held up for ten minutes, in a call that is not made.
    fn hold(&self, tap: &str) -> std::process::Child {
        let log = self.sandbox.path("strace").display().to_string();
        let held = "inject=ioctl:retval=0:delay_exit=600000000:when=2";
        let line = ["-o", &log, "-e", "trace=ioctl", "-e", held, "ip", "tuntap", "del", tap, "mode", "tap"];
        let holder = self.netns.command("strace", &line).spawn().unwrap();
        self.wait_until_open(tap, true);
        holder
    }

    /// A VM that runs with a TAP, as far as the network knows, and that no verb is about.
    fn bystander(&self) -> Bystander {
        let tap = self.acquire(BYSTANDER)["net"]["tap"].as_str().unwrap().to_owned();
        let holder = self.hold(&tap);
        Bystander { was: self.seen_of(&tap), tap, holder }
    }

    /// What `ls` and the kernel say of a TAP.
    fn seen_of(&self, tap: &str) -> (Value, Value) {
        let listed = self.ls().into_iter().find(|listed| listed["tap"] == tap).unwrap();
        let link = self.link(tap);
        (
            listed,
            serde_json::json!([
                link["ifindex"],
                link["master"],
                link["ifalias"],
                link["linkinfo"]["info_data"],
                link["flags"]
            ]),
        )
    }

    /// All TAPs and addresses but the bystander's.
    fn others(&self) -> Vec<Value> {
        self.ls().into_iter().filter(|listed| listed["machine_id"] != id(BYSTANDER)).collect()
    }

    fn wait_until_open(&self, tap: &str, open: bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while self.ls().iter().find(|listed| listed["tap"] == tap).unwrap()["open"] != open {
            assert!(std::time::Instant::now() < deadline, "{tap}: open is not {open}");
        }
    }

    fn ls(&self) -> Vec<Value> {
        self.tap(&["ls"], "").documents()
    }

    fn idle(&self) -> Vec<String> {
        let listed = self.tap(&["pool", "ls"], "").documents();
        listed.iter().map(|tap| tap["tap"].as_str().unwrap().to_owned()).collect()
    }

    /// An interface as `ip` sees it.
    fn link(&self, name: &str) -> Value {
        let all: Value = serde_json::from_str(&self.netns.ok(&format!("ip -j -d link show {name}"))).unwrap();
        all[0].clone()
    }

    /// `down`, after which nothing may be left.
    fn down(&self, args: &[&str]) {
        self.tap(&[&["down"], args].concat(), "").ok();
        self.assert_bare();
    }

    /// Nothing of a network is left.
    #[track_caller]
    fn assert_bare(&self) {
        let own = |name: &String| name.starts_with("tap-") || name.starts_with("bg-");
        assert_eq!(self.netns.links().into_iter().filter(own).collect::<Vec<_>>(), Vec::<String>::new());
        assert_eq!(self.netns.ok("nft list ruleset"), "");
        assert_eq!(children(&self.sandbox.path("net")), Vec::<std::path::PathBuf>::new());
    }
}

/// The number of a VM that no verb is about.
const BYSTANDER: u32 = 999;

/// That VM's TAP, and what it was like.
struct Bystander {
    tap: String,
    was: (Value, Value),
    holder: std::process::Child,
}

impl Bystander {
    #[track_caller]
    fn assert_untouched(&self, host: &Host, what: &str) {
        assert_eq!(host.seen_of(&self.tap), self.was, "{what}");
    }

    /// It ends, and nobody has its TAP open any more.
    fn end(self, host: &Host) {
        let tap = self.tap.clone();
        drop(self);
        host.wait_until_open(&tap, false);
    }
}

impl Drop for Bystander {
    /// The kernel ends the held up program with the one that holds it up: PTRACE_O_EXITKILL.
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Those findings that are leaks.
fn leaks(found: &[Value]) -> Vec<&Value> {
    found.iter().filter(|f| f["is_leak"] == true).collect()
}

/// The id of the VM number `n`.
fn id(n: u32) -> String {
    format!("{n:08x}{:024x}", 1)
}

/// The document of a VM that has no address yet.
fn machine(n: u32) -> String {
    format!(r#"{{"api_version":"banger/v1","kind":"Machine","name":"dev","id":"{}"}}"#, id(n))
}

/// The stages of a document that `bg-tap` went through.
fn stages(doc: &Value) -> Vec<&str> {
    doc["timings"].as_array().unwrap().iter().map(|t| t["stage"].as_str().unwrap()).collect()
}
