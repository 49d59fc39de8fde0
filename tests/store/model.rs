//! Random histories of two VMs, with tools, shims and VMMs that are killed on the way: what is seen is what a model says. Of
//! a history that fails, the shortest one is reported.

use super::{NONE, World, is_full};
use crate::killed::killed_after;
use crate::support::children;
use crate::support::launched::until;
use lib_common::sys::process::ProcessId;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::path::PathBuf;

/// Of two VMs.
const NAMES: [&str; 2] = ["a", "b"];

/// A verb, run to its end or killed after so many of its events; or a process of the VM that is killed; or a collection.
#[derive(Clone, Debug)]
enum Op {
    Verb(usize, &'static str),
    KilledVerb(usize, &'static str, usize),
    KillShim(usize),
    KillVmm(usize),
    Gc,
}

fn ops() -> impl Strategy<Value = Op> {
    let verbs = prop::sample::select(vec!["create", "create", "start", "stop", "kill", "restart", "rm", "rm --force"]);
    let killable = prop::sample::select(vec!["create", "start", "stop", "rm", "rm --force"]);
    prop_oneof![
        8 => (0..2_usize, verbs).prop_map(|(vm, verb)| Op::Verb(vm, verb)),
        2 => (0..2_usize, killable, 1..12_usize).prop_map(|(vm, verb, n)| Op::KilledVerb(vm, verb, n)),
        1 => (0..2_usize).prop_map(Op::KillShim),
        1 => (0..2_usize).prop_map(Op::KillVmm),
        1 => Just(Op::Gc),
    ]
}

/// What a VM is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Absent,
    Stopped,
    Running,
    /// The shim has said so.
    Crashed,
    /// Nobody could say how it ended.
    Lost,
}

impl Is {
    /// As `bg-vm ls` says it.
    fn said(self) -> Option<&'static str> {
        match self {
            Is::Absent => None,
            Is::Stopped => Some("stopped"),
            Is::Running => Some("running"),
            Is::Crashed | Is::Lost => Some("crashed"),
        }
    }

    /// What a verb makes of it, and its exit status.
    fn after(self, verb: &str) -> (Is, i32) {
        match (verb, self) {
            ("create", Is::Absent) => (Is::Running, 0),
            ("create", _) => (self, 73),
            ("rm" | "rm --force", Is::Absent) => (Is::Absent, 0),
            (_, Is::Absent) => (Is::Absent, 64),
            ("rm", Is::Running) => (Is::Running, 75),
            ("rm" | "rm --force", _) => (Is::Absent, 0),
            ("start" | "restart", _) => (Is::Running, 0),
            ("stop" | "kill", Is::Running | Is::Lost) => (Is::Stopped, 0),
            ("stop" | "kill", _) => (self, 0),
            other => unreachable!("{other:?}"),
        }
    }

    /// What it may be once the verb was killed and what it left was collected. A VM whose start was undone has run and ended:
    /// also a new one, whose creation was killed after its record was saved and before the shim was told. So has one whose
    /// removal came no further.
    fn after_killed(self, verb: &str) -> Vec<Is> {
        let ends = ["create", "start", "rm --force"].contains(&verb);
        let ended = if ends { vec![Is::Stopped, Is::Lost] } else { vec![] };
        [vec![self, self.after(verb).0], ended].concat()
    }
}

/// Two VMs, as they are and as they have to be.
struct History {
    world: World,
    model: [Is; 2],
    /// Something was killed since the last collection, so there may be leaks.
    dirty: bool,
}

impl History {
    fn new() -> Self {
        History { world: World::new(), model: [Is::Absent; 2], dirty: false }
    }

    fn observed(&self, vm: usize) -> Option<String> {
        let listed = self.world.vm(&["ls"]).documents();
        let listed = listed.iter().find(|doc| doc["name"] == NAMES[vm])?;
        Some(listed["status"]["state"].as_str().unwrap().to_owned())
    }

    fn kill(&self, vm: usize, field: &str) {
        let pid = self.world.vm(&["show", NAMES[vm]]).json()["vmm"][field].as_i64().unwrap();
        ProcessId::of(pid.try_into().unwrap()).unwrap().end().unwrap();
        until("it does not run", || self.world.state_of(NAMES[vm]) != "running");
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Verb(vm, verb) => {
                let (next, exit) = self.model[vm].after(verb);
                let args: Vec<&str> = verb.split(' ').chain([NAMES[vm]]).collect();
                let done = self.world.vm(&args);
                assert_eq!(done.exit, exit, "{op:?}: {done:?}");
                self.model[vm] = next;
            }
            Op::KilledVerb(vm, verb, events) => {
                let args: Vec<&str> = verb.split(' ').chain([NAMES[vm]]).collect();
                killed_after(&self.world.sandbox, self.world.command("bg-vm", &args), "", events);
                self.world.collect();
                let may = self.model[vm].after_killed(verb);
                let seen = self.observed(vm);
                let is = may.iter().find(|is| is.said() == seen.as_deref());
                self.model[vm] = *is.unwrap_or_else(|| panic!("{op:?}: {seen:?} is none of {may:?}"));
                self.dirty = false;
            }
            Op::KillShim(vm) if self.model[vm] == Is::Running => {
                self.kill(vm, "shim_pid");
                (self.model[vm], self.dirty) = (Is::Lost, true);
            }
            Op::KillVmm(vm) if self.model[vm] == Is::Running => {
                self.kill(vm, "pid");
                self.model[vm] = Is::Crashed;
            }
            Op::KillShim(_) | Op::KillVmm(_) => {}
            Op::Gc => {
                self.world.collect();
                self.dirty = false;
            }
        }
        let seen = [self.observed(0), self.observed(1)];
        assert_eq!(seen.each_ref().map(Option::as_deref), self.model.map(Is::said), "after {op:?}");
        assert!(self.dirty || self.world.leaks() == NONE, "after {op:?}: {:?}", self.world.leaks());
    }

    /// However it went, it can be ended.
    fn end(self) {
        self.world.vm(&["rm", "--force", "a", "b"]).ok();
        self.world.collect();
        for dir in ["state/machines", "state/staging", "run"] {
            assert_eq!(children(&self.world.sandbox.path(dir)), Vec::<PathBuf>::new(), "{dir}");
        }
    }
}

#[test]
fn any_history_is_as_the_model_says() {
    let (cases, length) = if is_full() { (150, 40) } else { (4, 15) };
    let config = Config { cases, max_shrink_iters: 100, failure_persistence: None, ..Config::default() };
    // A sample is the same each time; all of it is another one each time.
    let mut runner = match is_full() {
        true => TestRunner::new(config),
        false => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let run = |history: Vec<Op>| {
        let mut world = History::new();
        history.iter().for_each(|op| world.step(op));
        world.end();
        Ok(())
    };
    if let Err(e) = runner.run(&vec(ops(), 1..length), run) {
        panic!("{e}");
    }
}
