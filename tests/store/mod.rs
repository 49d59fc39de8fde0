//! What becomes of a store under faults and crowds: full, read-only and vanished state directories, many tools at once,
//! resources that somebody took away by hand, random histories, and thousands of lives. The VMs pretend to run.
//!
//! `BG_TEST_FULL` runs all of it; without it, samples.

#![allow(clippy::disallowed_types)]

mod full;
mod lost;
mod model;
mod races;
mod soak;

use crate::support::fixture::{Files, WORK};
use crate::support::launched::fake_firecracker;
use crate::support::mounts::Mounts;
use crate::support::netns::Namespace;
use crate::support::{Done, Sandbox, finish, program};
use serde_json::Value;
use std::process::Command;

const NONE: Vec<Value> = vec![];

/// Whether everything is to be run, instead of a sample.
fn is_full() -> bool {
    std::env::var_os("BG_TEST_FULL").is_some()
}

/// Where the tools of a world run.
enum Place {
    /// Where the tests do.
    Here,
    /// In a network namespace of its own, where VMs have cards.
    Net(Namespace),
    /// Where the state directory is a file system of its own.
    Mounts(Mounts),
}

/// A store with the image `debian`, whose VMs pretend to run. Dropped, none of them does.
struct World {
    sandbox: Sandbox,
    place: Place,
}

impl World {
    /// Whose guests shut down when their agent is asked.
    fn new() -> Self {
        World { sandbox: Sandbox::new(), place: Place::Here }.furnished()
    }

    fn with_network(test: &str) -> Option<Self> {
        let place = Place::Net(Namespace::new(test)?);
        Some(World { sandbox: Sandbox::new(), place }.furnished())
    }

    /// With a state directory of so many MiB.
    fn with_room(test: &str, mib: u32) -> Option<Self> {
        let sandbox = Sandbox::new();
        let place = Place::Mounts(Mounts::new(test, &sandbox.path("state"), mib)?);
        Some(World { sandbox, place }.furnished())
    }

    fn furnished(self) -> Self {
        std::fs::create_dir(self.sandbox.path("fake")).unwrap();
        std::fs::copy(fake_firecracker(), self.sandbox.path("fake/firecracker")).unwrap();
        std::fs::write(self.sandbox.path("fake/mode"), "agent").unwrap();
        let document = Files::new(&self.sandbox, "debian").document().to_string();
        self.run("bg-register", &["--name", "debian"], &document).ok();
        self.run("bg-seed", &["build", "debian", "--size", WORK], "").ok();
        self
    }

    /// A tool, not started yet.
    fn command(&self, tool: &str, args: &[&str]) -> Command {
        let mut command = match &self.place {
            Place::Here => self.sandbox.command(tool, args),
            Place::Net(netns) => netns.tool(&self.sandbox, tool, args),
            Place::Mounts(mounts) => {
                let mut command = mounts.command(program(tool), args);
                command.env_clear().envs(self.sandbox.env()).current_dir(self.sandbox.path("home"));
                command
            }
        };
        command.env("BG_FIRECRACKER", self.sandbox.path("fake/firecracker"));
        command.env("BG_VMM", "firecracker").env("BG_WORK_SIZE", WORK);
        if matches!(self.place, Place::Net(_)) {
            command.env("BG_NET", "on");
        }
        command
    }

    fn run(&self, tool: &str, args: &[&str], stdin: &str) -> Done {
        finish(self.command(tool, args).spawn().unwrap(), stdin.as_bytes())
    }

    fn vm(&self, args: &[&str]) -> Done {
        self.run("bg-vm", args, "")
    }

    fn state_of(&self, vm: &str) -> String {
        self.vm(&["show", vm]).json()["status"]["state"].as_str().unwrap().to_owned()
    }

    /// The leaks that `bg-verify --now` finds.
    fn leaks(&self) -> Vec<Value> {
        let done = self.run("bg-verify", &["--now"], "");
        assert!(matches!(done.exit, 0 | 1), "{done:?}");
        done.documents().into_iter().filter(|f| f["is_leak"] == true).collect()
    }

    /// `bg-verify --now | bg-gc --now`, after which there is no leak.
    fn collect(&self) {
        let found = self.run("bg-verify", &["--now"], "");
        self.run("bg-gc", &["--now"], &found.text()).ok();
        assert_eq!(self.leaks(), NONE);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let names: Vec<String> =
            self.vm(&["ls"]).documents().iter().map(|d| d["name"].as_str().unwrap().into()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        if !names.is_empty() {
            self.vm(&[&["rm", "--force"], &names[..]].concat());
        }
        if !std::thread::panicking() {
            return;
        }
        // A test that failed must not leave processes to the others.
        let found = self.run("bg-verify", &["--now"], "");
        self.run("bg-gc", &["--now"], &found.text());
    }
}
