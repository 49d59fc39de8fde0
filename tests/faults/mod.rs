//! The tools with one system call gone wrong: killed before each one that changes anything, or told that the disk is full or
//! broken, that there are no descriptors left or no right. Wherever that is, nothing is left that `bg-verify | bg-gc` does not
//! take, the same command succeeds next, and a VM that was there before is as it was.
//!
//! A sample of the points, evenly over each run, from `BG_TEST_SEED` on; all of them where `BG_TEST_FULL` is set.

#![allow(clippy::disallowed_types)]

mod blind;
pub mod build;
mod order;
mod settle;
mod shim;
pub mod trace;

use crate::running::World;
use crate::support::Done;
use crate::support::fixture::{self, Files, WORK};
use lib_common::digest;
use serde_json::Value;
use std::path::PathBuf;
use trace::Point;

/// The sample of a verb that takes a second or less. A guest that does not answer is waited for.
const SAMPLE: usize = 12;
const SLOW_SAMPLE: usize = 4;

/// A verb, and the world around it.
struct Verb {
    tool: &'static str,
    args: &'static [&'static str],
    /// Makes what the verb begins with, whatever is there. Gives its stdin.
    before: fn(&World) -> String,
    /// What holds after it was cut short and collected, and does the same again.
    after: fn(&World, &str),
    /// Whether the programs that it starts end with it.
    children: bool,
    /// How many points are tried, unless all are.
    sample: usize,
}

fn show(world: &World, vm: &str) -> Option<String> {
    let there = world.sandbox.state(&format!("machines/{vm}")).exists();
    there.then(|| world.state_of(vm))
}

fn is_whole(world: &World, vm: &str, what: &str) {
    assert_eq!(show(world, vm).as_deref(), Some("stopped"), "{what}");
    assert_eq!(world.sandbox.run("bg-seed", &["check", "--vm", vm], "").json()["ok"], true, "{what}");
}

fn without_dev(world: &World) -> String {
    world.vm(&["rm", "--force", "dev"], "").ok();
    without_key(world)
}

fn with_dev(world: &World) -> String {
    if show(world, "dev").is_none() {
        fixture::create(&world.sandbox, "dev");
    }
    world.vm(&["kill", "dev"], "").ok();
    without_key(world)
}

/// A store whose own SSH key has yet to be made, as the first start does.
fn without_key(world: &World) -> String {
    let keys = world.sandbox.state("ssh");
    if keys.exists() {
        std::fs::remove_dir_all(keys).unwrap();
    }
    String::new()
}

fn with_dev_running(world: &World) -> String {
    with_dev(world);
    world.vm(&["start", "dev"], "").ok();
    String::new()
}

fn document(world: &World) -> String {
    let files = world.sandbox.path("files-other");
    if files.exists() {
        std::fs::remove_dir_all(files).unwrap();
    }
    Files::new(&world.sandbox, "other").document().to_string()
}

const CREATE: Verb = Verb {
    tool: "bg-vm",
    args: &["create", "dev", "--work-size", WORK, "--no-start"],
    before: without_dev,
    after: |world, what| {
        if show(world, "dev").is_none() {
            fixture::create(&world.sandbox, "dev");
        }
        is_whole(world, "dev", what);
    },
    children: true,
    sample: SAMPLE,
};

/// With its start in one.
const CREATE_AND_START: Verb = Verb {
    args: &["create", "dev", "--work-size", WORK],
    after: |world, what| {
        // One that is whole and was killed before it told the shim to keep the VM has a VM that has run, and ended.
        let state = show(world, "dev");
        assert!(matches!(state.as_deref(), None | Some("stopped" | "running" | "crashed")), "{state:?}: {what}");
        if show(world, "dev").is_none() {
            fixture::create(&world.sandbox, "dev");
        }
        world.vm(&["start", "dev"], "").ok();
        assert_eq!(show(world, "dev").as_deref(), Some("running"), "{what}");
    },
    children: false,
    ..CREATE
};

const START: Verb = Verb {
    tool: "bg-vm",
    args: &["start", "dev"],
    before: with_dev,
    after: |world, what| {
        assert!(matches!(show(world, "dev").as_deref(), Some("stopped" | "running")), "{what}");
        world.vm(&["start", "dev"], "").ok();
        assert_eq!(show(world, "dev").as_deref(), Some("running"), "{what}");
    },
    children: false,
    sample: SAMPLE,
};

const STOP: Verb = Verb {
    tool: "bg-vm",
    args: &["stop", "--timeout", "1", "dev"],
    before: with_dev_running,
    after: |world, what| {
        assert!(matches!(show(world, "dev").as_deref(), Some("stopped" | "running")), "{what}");
        world.vm(&["stop", "--timeout", "1", "dev"], "").ok();
        assert_eq!(show(world, "dev").as_deref(), Some("stopped"), "{what}");
    },
    children: false,
    sample: SLOW_SAMPLE,
};

const RM: Verb = Verb {
    tool: "bg-vm",
    args: &["rm", "dev"],
    before: with_dev,
    after: |world, what| {
        if show(world, "dev").is_some() {
            is_whole(world, "dev", what);
        }
        world.vm(&["rm", "dev"], "").ok();
        assert_eq!(show(world, "dev"), None, "{what}");
    },
    children: true,
    sample: SAMPLE,
};

const RM_RUNNING: Verb = Verb {
    args: &["rm", "--force", "dev"],
    before: with_dev_running,
    after: |world, what| {
        assert!(matches!(show(world, "dev").as_deref(), None | Some("stopped" | "running")), "{what}");
        world.vm(&["rm", "--force", "dev"], "").ok();
        assert_eq!(show(world, "dev"), None, "{what}");
    },
    ..RM
};

const SEED_BUILD: Verb = Verb {
    tool: "bg-seed",
    args: &["build", "debian", "--size", WORK],
    before: |_| String::new(),
    after: |world, what| {
        world.sandbox.run("bg-seed", &["build", "debian", "--size", WORK], "").ok();
        assert_eq!(world.sandbox.run("bg-seed", &["check", "debian"], "").json()["ok"], true, "{what}");
    },
    children: true,
    sample: SAMPLE,
};

const SEED_CLONE: Verb = Verb {
    tool: "bg-seed",
    args: &["clone"],
    before: |world| {
        without_dev(world);
        fixture::plan(&world.sandbox, "dev")
    },
    after: |world, what| {
        assert_eq!(show(world, "dev"), None, "{what}");
        world.sandbox.run("bg-seed", &["clone"], fixture::plan(&world.sandbox, "dev")).ok();
    },
    children: true,
    sample: SAMPLE,
};

const REGISTER: Verb = Verb {
    tool: "bg-register",
    args: &["--name", "other", "--replace"],
    before: document,
    after: |world, _| {
        world.sandbox.run("bg-register", &["--name", "other", "--replace"], document(world)).ok();
        let mut again = world.sandbox.run("bg-image", &["show", "other"], "").json();
        again["name"] = "again".into();
        world.sandbox.run("bg-register", &["--replace"], again.to_string()).ok();
    },
    children: true,
    sample: SAMPLE,
};

/// All of them, or some that are spread evenly.
pub fn sampled(points: &[Point], sample: usize) -> Vec<&Point> {
    let n = points.len();
    if std::env::var_os("BG_TEST_FULL").is_some() || n <= sample {
        return points.iter().collect();
    }
    (0..sample).map(|i| &points[(i * n / sample + seed()) % n]).collect()
}

/// What is done to a verb, and where.
struct Attack<'a> {
    /// As strace(1) has them: "signal=KILL", "error=EIO".
    faults: &'a [&'a str],
    /// The calls that are recorded.
    traced: &'a str,
    /// Those of a trace at which it is done.
    points: fn(&[trace::Call]) -> Vec<Point>,
    /// Which of these are tried, of so many.
    choose: fn(&[Point], usize) -> Vec<&Point>,
}

const KILL: Attack<'_> =
    Attack { faults: &["signal=KILL"], traced: trace::CALLS, points: trace::points, choose: sampled };

const ERRORS: Attack<'_> = Attack {
    faults: &["error=ENOSPC", "error=EIO", "error=EMFILE", "error=EACCES"],
    points: |calls| trace::points(calls).into_iter().filter(Point::may_fail).collect(),
    ..KILL
};

const SIGNAL: Attack<'_> = Attack {
    faults: &["error=EINTR"],
    traced: trace::INTERRUPTIBLE,
    points: |calls| calls.iter().filter(|call| call.may_be_interrupted()).cloned().map(Point::from).collect(),
    choose: with_each_call,
};

/// The same, and the first point of each system call that would not be among them.
fn with_each_call(points: &[Point], sample: usize) -> Vec<&Point> {
    let mut chosen = sampled(points, sample);
    for point in points {
        if chosen.iter().all(|other| other.call != point.call) {
            chosen.push(point);
        }
    }
    chosen
}

pub fn seed() -> usize {
    std::env::var("BG_TEST_SEED").map_or(0, |seed| seed.parse().unwrap())
}

/// A VM that no verb is about: the digest of all its files.
fn bystander(world: &World) -> String {
    digest::of_tree(&world.sandbox.state("machines/kept")).unwrap().to_string()
}

pub fn has_strace(test: &str) -> bool {
    let there = std::process::Command::new("strace").arg("-V").output().is_ok_and(|o| o.status.success());
    if !there {
        println!("NOT RUN: {test} (strace is not installed)");
    }
    there
}

/// Does that to a verb; `ended` looks at how it ended. The fault must have met the tool once in two times: a run need not make
/// each call that the recorded one made.
fn attack(test: &str, verb: &Verb, attack: &Attack<'_>, ended: impl Fn(&Done, &str)) {
    if !has_strace(test) {
        return;
    }
    let Attack { faults, traced, points, choose } = attack;
    let world = World::new(&["kept"]);
    let command = world.command(verb.tool, verb.args);
    let before = bystander(&world);
    let stdin = (verb.before)(&world);
    let (done, calls) = trace::calls(&world.sandbox, &command, &stdin, (traced, verb.children));
    done.ok();
    let points = points(&calls);
    let tried = choose(&points, verb.sample);
    let mut met = 0;
    for point in &tried {
        for fault in *faults {
            world.sandbox.collect();
            let stdin = (verb.before)(&world);
            let what = format!("{} {:?}: {fault} at {point:?}", verb.tool, verb.args);
            let (done, has_met) = trace::with_fault(&world.sandbox, &command, &stdin, point, fault);
            ended(&done, &what);
            met += usize::from(has_met);
            if !has_met {
                println!("{what}: not met");
            }
            world.sandbox.collect();
            assert_eq!(world.sandbox.staged(), Vec::<PathBuf>::new(), "{what}");
            (verb.after)(&world, &what);
            assert_eq!(bystander(&world), before, "{what}");
        }
    }
    let (runs, seed) = (tried.len() * faults.len(), seed());
    println!(
        "{test}: {} {:?}: {} of {} points from {seed} on, {faults:?}: {met} of {runs} runs met",
        verb.tool,
        verb.args,
        tried.len(),
        points.len()
    );
    assert!(runs > 0 && met * 2 >= runs, "{test}: only {met} of {runs} runs met the fault");
    without_dev(&world);
    assert_eq!(world.sandbox.findings(&["--now"]), Vec::<Value>::new());
}

fn killed(test: &str, verb: &Verb) {
    attack(test, verb, &KILL, |done, what| {
        // Where a program is killed that it has started, it says so.
        assert!(done.exit == 137 || done.exit == 0 || done.stderr.contains("\"Error\""), "{what}: {done:?}");
    });
}

/// It fails with an error that names a path, or was whole without that call.
fn refused(test: &str, verb: &Verb) {
    let verb = &Verb { sample: verb.sample.div_ceil(4), ..*verb };
    attack(test, verb, &ERRORS, |done, what| {
        if done.exit == 0 {
            return;
        }
        let doc = done.failed();
        let said = format!("{} {:?} {:?}", doc.message, doc.causes, doc.details);
        assert!(doc.code != "internal" && said.contains('/'), "{what}: {} {said}", doc.code);
    });
}

/// It does not notice.
fn interrupted(test: &str, verb: &Verb) {
    let verb = &Verb { sample: verb.sample.div_ceil(3), children: false, ..*verb };
    attack(test, verb, &SIGNAL, |done, what| {
        assert_eq!(done.exit, 0, "{what}: {done:?}");
    });
}

#[test]
fn a_creation_killed_at_any_call_is_whole_or_gone() {
    for verb in [&CREATE, &CREATE_AND_START] {
        killed("a_creation_killed_at_any_call_is_whole_or_gone", verb);
    }
}

#[test]
fn a_start_killed_at_any_call_can_be_repeated() {
    killed("a_start_killed_at_any_call_can_be_repeated", &START);
}

#[test]
fn a_stop_killed_at_any_call_can_be_repeated() {
    killed("a_stop_killed_at_any_call_can_be_repeated", &STOP);
}

#[test]
fn a_removal_killed_at_any_call_can_be_repeated() {
    for verb in [&RM, &RM_RUNNING] {
        killed("a_removal_killed_at_any_call_can_be_repeated", verb);
    }
}

#[test]
fn seeds_killed_at_any_call_can_be_made_again() {
    for verb in [&SEED_BUILD, &SEED_CLONE] {
        killed("seeds_killed_at_any_call_can_be_made_again", verb);
    }
}

#[test]
fn a_registration_killed_at_any_call_can_be_repeated() {
    killed("a_registration_killed_at_any_call_can_be_repeated", &REGISTER);
}

#[test]
fn a_call_that_fails_is_told_with_its_path_and_leaves_nothing() {
    for verb in [&CREATE, &CREATE_AND_START, &START, &STOP, &RM, &RM_RUNNING, &SEED_BUILD, &SEED_CLONE, &REGISTER] {
        refused("a_call_that_fails_is_told_with_its_path_and_leaves_nothing", verb);
    }
}

#[test]
fn an_interrupted_call_is_made_again() {
    for verb in [&CREATE, &CREATE_AND_START, &START, &STOP, &RM, &RM_RUNNING, &SEED_BUILD, &SEED_CLONE, &REGISTER] {
        interrupted("an_interrupted_call_is_made_again", verb);
    }
}
