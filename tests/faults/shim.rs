//! The parent of a VM's processes with one system call gone wrong, between its start and its end: the tools say what is so, and
//! the VM starts again.

use super::trace::{self, Point};
use super::verbs::{is_whole, show, with_dev};
use super::{World, bystander, sampled, seed};
use crate::running::Suite;
use crate::support::has_strace;
use crate::support::{Done, program};
use serde_json::Value;
use std::path::PathBuf;

/// A suite whose `bg-shim` runs under strace.
struct Traced<'a> {
    world: &'a World,
    suite: Suite<'a>,
}

impl<'a> Traced<'a> {
    fn new(world: &'a World) -> Self {
        Traced { world, suite: Suite::new(world) }
    }

    fn log(&self) -> PathBuf {
        self.world.sandbox.path("shim-calls")
    }

    /// From now on strace does that to it. It watches from the side (`-D`), so that the shim has the process that its starter
    /// knows.
    fn under(&self, options: &str) {
        let (log, shim) = (self.log().display().to_string(), program("bg-shim"));
        // What strace itself would say, or hold open, is nobody's.
        self.suite.begin_shim_by(&format!("exec strace -D -o '{log}' {options} '{shim}' \"$@\""));
    }

    /// Its life: started and ended.
    fn life(&self) -> [Done; 2] {
        [self.suite.vm(&["start", "dev"]), self.suite.vm(&["kill", "dev"])]
    }
}

/// Runs the shim's life with each of those faults at its points; `ended` looks at how start and kill ended.
fn attack(test: &str, faults: &[&str], sample: usize, calls_of: fn(&Point) -> bool, ended: impl Fn(&[Done; 2], &str)) {
    if !has_strace(test) {
        return;
    }
    let world = World::new(&["kept"]);
    let before = bystander(&world);
    with_dev(&world);
    let traced = Traced::new(&world);
    traced.under(&format!("-e {}", trace::CALLS));
    traced.life().iter().for_each(|done| drop(done.ok()));
    let log = String::from_utf8_lossy(&std::fs::read(traced.log()).unwrap()).into_owned();
    let points: Vec<Point> = trace::points(&trace::parse(&log, false)).into_iter().filter(calls_of).collect();
    let tried = sampled(&points, sample);
    let mut met = 0;
    for point in &tried {
        for fault in faults {
            let what = format!("bg-shim: {fault} at {point:?}");
            traced.under(&format!("-e trace={0} -e inject={0}:{fault}:when={1}", point.call, point.nth));
            ended(&traced.life(), &what);
            let log = std::fs::read(traced.log()).unwrap();
            let log = String::from_utf8_lossy(&log);
            met += usize::from(log.contains("(INJECTED)") || log.contains("killed by SIGKILL"));
            world.sandbox.collect();
            assert!(matches!(show(&world, "dev").as_deref(), Some("stopped" | "crashed")), "{what}");
            // Without strace it lives as ever.
            world.vm(&["start", "dev"], "").ok();
            world.vm(&["kill", "dev"], "").ok();
            is_whole(&world, "dev", &what);
            assert_eq!(world.sandbox.findings(&["--now"]), Vec::<Value>::new(), "{what}");
            assert_eq!(bystander(&world), before, "{what}");
        }
    }
    let runs = tried.len() * faults.len();
    println!("{test}: {} of {} points from {} on, {faults:?}: {met} of {runs} met", tried.len(), points.len(), seed());
    assert!(points.len() > 10 && met * 10 >= runs * 9, "{} points, {met} of {runs} runs met the fault", points.len());
}

#[test]
fn a_shim_killed_at_any_call_is_a_vm_that_can_be_started() {
    let test = "a_shim_killed_at_any_call_is_a_vm_that_can_be_started";
    attack(
        test,
        &["signal=KILL"],
        12,
        |_| true,
        |[start, kill], what| {
            assert!(start.exit == 0 || start.stderr.contains("\"Error\""), "{what}: {start:?}");
            assert!(kill.exit == 0 || kill.stderr.contains("\"Error\""), "{what}: {kill:?}");
        },
    );
}

#[test]
fn a_call_of_a_shim_that_fails_is_told_or_does_no_harm() {
    let test = "a_call_of_a_shim_that_fails_is_told_or_does_no_harm";
    let faults = ["error=ENOSPC", "error=EIO", "error=EMFILE", "error=EACCES"];
    attack(test, &faults, 3, Point::may_fail, |[start, _], what| {
        if start.exit != 0 {
            let doc = start.failed();
            let said = format!("{} {:?}", doc.message, doc.causes);
            let is_told = said.contains('/')
                || ["cannot start", "bg-shim did not answer"].iter().any(|words| said.contains(words));
            assert!(doc.code != "internal" && is_told, "{what}: {} {said}", doc.code);
        }
    });
}
