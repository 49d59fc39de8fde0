//! `bg-tap`, each test in a network namespace of its own: TAPs, addresses, what guests may reach, and that nothing is
//! left of it.

#![allow(clippy::disallowed_types)]

mod bench;
mod in_netns;
mod killed;
mod life;
mod owner;
mod parallel;
mod pool;
mod reach;
mod up;

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
        let own = |name: &String| name.starts_with("tap-") || name.starts_with("bg-");
        assert_eq!(self.netns.links().into_iter().filter(own).collect::<Vec<_>>(), Vec::<String>::new());
        assert_eq!(self.netns.ok("nft list ruleset"), "");
        assert_eq!(children(&self.sandbox.path("net")), Vec::<std::path::PathBuf>::new());
    }
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

/// Whether strace(1) is there, which holds programs up and kills them at a known point.
fn has_strace(test: &str) -> bool {
    let there = std::process::Command::new("strace").arg("-V").output().is_ok_and(|o| o.status.success());
    if !there {
        println!("NOT RUN: {test} (strace is not installed)");
    }
    there
}
