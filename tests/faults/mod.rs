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
mod verbs;

use crate::running::World;
use crate::support::Done;
use lib_common::digest;
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use trace::Point;
use verbs::*;

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
    choose: with_the_records_sync,
    ..KILL
};

const SIGNAL: Attack<'_> = Attack {
    faults: &["error=EINTR"],
    traced: trace::INTERRUPTIBLE,
    points: |calls| calls.iter().filter(|call| call.may_be_interrupted()).cloned().map(Point::from).collect(),
    choose: with_each_call,
};

/// The same, and the last sync that makes a VM's record durable.
fn with_the_records_sync(points: &[Point], sample: usize) -> Vec<&Point> {
    let mut chosen = sampled(points, sample);
    let last = points.iter().rfind(|point| point.call == "fsync" && point.is_of_a_vms_record());
    chosen.extend(last.filter(|last| !chosen.contains(last)));
    chosen
}

/// Those of a sample, and the first point of each system call that would not be among them.
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

/// How a verb ended to which that was done.
struct Ended<'a> {
    world: &'a World,
    fault: &'a str,
    point: &'a Point,
    has_met: bool,
    done: Done,
}

/// So many try a verb's points at once, each in a world of its own: most of a run's time it waits.
fn hands() -> usize {
    if std::env::var_os("BG_TEST_FULL").is_some() { 3 } else { 1 }
}

/// A world in which a verb is tried, beside a VM that it is not about.
struct Site<'a> {
    world: World,
    verb: &'a Verb,
    before: String,
}

impl<'a> Site<'a> {
    fn new(verb: &'a Verb) -> Self {
        let world = World::new(&["kept"]);
        let before = bystander(&world);
        Site { world, verb, before }
    }

    fn command(&self) -> Command {
        self.world.command(self.verb.tool, self.verb.args)
    }

    /// What the verb asks the kernel in a good run.
    fn calls(&self, traced: &str) -> Vec<trace::Call> {
        let stdin = (self.verb.before)(&self.world);
        let (done, calls) = trace::calls(&self.world.sandbox, &self.command(), &stdin, (traced, self.verb.children));
        assert_eq!(done.exit != 0, self.verb.fails, "{done:?}");
        calls
    }

    /// Whether the fault met the tool; panics where anything is not as it should be then.
    fn try_one(&self, point: &Point, fault: &str, what: &str, ended: &impl Fn(&Ended<'_>, &str)) -> bool {
        let Site { world, verb, before } = self;
        world.sandbox.collect();
        let stdin = (verb.before)(world);
        let (done, has_met) = trace::with_fault(&world.sandbox, &self.command(), &stdin, point, fault);
        ended(&Ended { world, fault, point, has_met, done }, what);
        world.sandbox.collect();
        assert_eq!(world.sandbox.staged(), Vec::<PathBuf>::new(), "{what}");
        (verb.after)(world, what);
        assert_eq!(&bystander(world), before, "{what}");
        has_met
    }

    fn end(self) {
        without_dev(&self.world);
        assert_eq!(self.world.sandbox.findings(&["--now"]), Vec::<Value>::new());
    }
}

/// Does that to a verb; `ended` looks at how it ended. The fault must have met the tool nine times in ten: a run need not make
/// each call that the recorded one made.
fn attack(test: &str, verb: &Verb, attack: &Attack<'_>, ended: impl Fn(&Ended<'_>, &str) + Sync) {
    if !crate::support::has_strace(test) {
        return;
    }
    let Attack { faults, traced, points, choose } = attack;
    let first = Site::new(verb);
    let points = points(&first.calls(traced));
    let tried = choose(&points, verb.sample);
    let (met, wrong) = (AtomicUsize::new(0), Mutex::new(vec![]));
    let pairs: Vec<_> = tried.iter().flat_map(|point| faults.iter().map(move |fault| (*point, *fault))).collect();
    let (runs, next) = (pairs.len(), AtomicUsize::new(0));
    let try_all = |site: Site<'_>| {
        while let Some((point, fault)) = pairs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let what = format!("{} {:?}: {fault} at {point:?}", verb.tool, verb.args);
            // One that ends badly keeps nobody from seeing the others.
            match catch_unwind(AssertUnwindSafe(|| site.try_one(point, fault, &what, &ended))) {
                Ok(true) => drop(met.fetch_add(1, Ordering::Relaxed)),
                Ok(false) => println!("{what}: not met"),
                Err(_) => wrong.lock().unwrap().push(what),
            }
        }
        site.end();
    };
    std::thread::scope(|scope| {
        for _ in 1..hands() {
            scope.spawn(|| try_all(Site::new(verb)));
        }
        try_all(first);
    });
    let (met, wrong, seed) = (met.into_inner(), wrong.into_inner().unwrap(), seed());
    println!(
        "{test}: {} {:?}: {} of {} points from {seed} on, {faults:?}: {met} of {runs} runs met",
        verb.tool,
        verb.args,
        tried.len(),
        points.len()
    );
    assert_eq!(wrong, Vec::<String>::new(), "{test}: {} of {runs} runs ended badly", wrong.len());
    assert!(runs > 0 && met * 10 >= runs * 9, "{test}: only {met} of {runs} runs met the fault");
}

fn killed(test: &str, verb: &Verb) {
    attack(test, verb, &KILL, |Ended { done, .. }, what| {
        // Where a program is killed that it has started, it says so.
        assert!(done.exit == 137 || done.exit == 0 || done.stderr.contains("\"Error\""), "{what}: {done:?}");
    });
}

/// It fails with an error that names a path and leaves nothing, whoever looks, or was whole without that call.
fn refused(test: &str, verb: &Verb) {
    let verb = &Verb { sample: verb.sample.div_ceil(4), ..*verb };
    let begins_with_nothing = verb.tool == "bg-vm" && verb.args[0] == "create" || verb.args == SEED_CLONE.args;
    attack(test, verb, &ERRORS, |Ended { world, fault, point, has_met, done }, what| {
        if done.exit == 0 {
            // For a VM's record there is room on a full disk: it is written anew.
            let is_lent = *fault == "error=ENOSPC" && point.is_of_a_vms_record();
            assert!(!(*has_met && point.is_of_what_is_kept()) || is_lent, "{what}: it went on: {done:?}");
            return;
        }
        let doc = done.failed();
        let said = format!("{} {:?}", doc.message, doc.causes);
        // Of a program it is the name; of a socket to a process or a guest, of a thread and of who is to be started nothing has one.
        let is_told = said.contains('/') || doc.details.contains_key("command") || !point.has_path();
        assert!(doc.code != "internal" && is_told, "{what}: {} {said} {:?}", doc.code, doc.details);
        assert!(!said.contains("does not fit"), "{what}: the content is not what is too large: {said}");
        if begins_with_nothing && !point.removes() {
            assert_eq!(show(world, "dev"), None, "{what}: {done:?}");
            assert_eq!(world.sandbox.findings(&["--now"]), Vec::<Value>::new(), "{what}: {done:?}");
        }
    });
}

/// It does not notice.
fn interrupted(test: &str, verb: &Verb) {
    let verb = &Verb { sample: verb.sample.div_ceil(3), children: false, ..*verb };
    attack(test, verb, &SIGNAL, |Ended { done, .. }, what| {
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
fn what_undoes_and_what_collects_may_be_killed_too() {
    for verb in [&CREATE_AND_FAIL, &GC] {
        killed("what_undoes_and_what_collects_may_be_killed_too", verb);
    }
}

#[test]
fn other_verbs_killed_at_any_call_can_be_repeated() {
    for verb in [&KILL_VM, &RESTART, &IMAGE_RM] {
        killed("other_verbs_killed_at_any_call_can_be_repeated", verb);
    }
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
