//! A file that cannot be opened, since there are no descriptors left or the disk is broken, is none that is gone: of a VM that runs
//! nobody says that it does not, starts it again, takes it for a leak or removes it.

use super::World;
use super::trace::{self, Point};
use crate::support::has_strace;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::process::Command;

const FAULTS: [&str; 3] = ["error=EMFILE", "error=EIO", "error=ENOMEM"];

/// The calls that open something, to read it or to change it, and what; without `BG_TEST_FULL` the first of those that differ
/// in digits alone.
fn opens(world: &World, command: &Command, stdin: &str) -> (usize, Vec<Point>) {
    let (_, mut calls) = trace::calls(&world.sandbox, command, stdin, (trace::CALLS, false));
    calls.retain(|call| call.name.starts_with("open"));
    let (all, mut seen) = (calls.len(), HashSet::new());
    if std::env::var_os("BG_TEST_FULL").is_none() {
        calls.retain(|call| seen.insert(call.text.replace(|c: char| c.is_ascii_hexdigit(), "")));
    }
    (all, calls.into_iter().map(Point::from).collect())
}

/// Its processes: a VM that somebody has ended or started again has others.
fn processes(world: &World) -> Value {
    let doc = world.vm(&["show", "kept"], "").json();
    assert_eq!(doc["status"]["state"], "running", "{doc}");
    doc["vmm"].clone()
}

/// What says that a VM's processes and its runtime directory are leaks.
fn lies(vmm: &Value) -> String {
    let shim = format!("{}:{}", vmm["shim_pid"], vmm["shim_start_time"]);
    let socket = vmm["vsock"].as_str().unwrap();
    let dir = socket.rsplit_once('/').unwrap().0;
    let finding = |kind: &str, id: &str| {
        let finding = json!({
            "api_version": "banger/v1", "kind": kind, "id": id, "owner": "", "age_ms": 1_000_000, "evidence": "a lie",
            "is_leak": true, "fix": "",
        });
        format!("{finding}\n")
    };
    finding("process", &shim) + &finding("runtime_dir", dir)
}

#[test]
fn what_cannot_be_looked_at_is_not_taken_for_gone() {
    let test = "what_cannot_be_looked_at_is_not_taken_for_gone";
    if !has_strace(test) {
        return;
    }
    let world = World::new(&["kept"]);
    world.vm(&["start", "kept"], "").ok();
    let before = processes(&world);
    let lies = lies(&before);
    let verbs: [(&str, &[&str], &str); 6] = [
        ("bg-verify", &["--now"], ""),
        ("bg-gc", &["--now"], &lies),
        ("bg-vm", &["ls"], ""),
        ("bg-vm", &["start", "kept"], ""),
        ("bg-vm", &["rm", "kept"], ""),
        ("bg-vm", &["create", "other", "--no-start"], ""),
    ];
    for (tool, args, stdin) in verbs {
        let command = world.command(tool, args);
        let remove_other = || drop(world.vm(&["rm", "other"], ""));
        let (all, tried) = opens(&world, &command, stdin);
        let faults = if all == tried.len() { &FAULTS[..] } else { &FAULTS[..1] };
        let mut met = 0;
        for point in &tried {
            for fault in faults {
                remove_other();
                let what = format!("{tool} {args:?}: {fault} at {point:?}");
                let (done, has_met) = trace::with_fault(&world.sandbox, &command, stdin, point, fault);
                met += usize::from(has_met);
                assert!(!done.text().contains(r#""state":"stopped""#) || args[0] == "create", "{what}: {done:?}");
                if tool == "bg-verify" {
                    let leaks = done.documents().into_iter().filter(|finding| finding["is_leak"] == true);
                    let leaks: String = leaks.map(|finding| format!("{finding}\n")).collect();
                    assert_eq!(leaks, "", "{what}");
                }
                assert_eq!(processes(&world), before, "{what}: {done:?}");
                world.sandbox.collect();
                assert_eq!(processes(&world), before, "{what}: {done:?}");
            }
        }
        let runs = tried.len() * faults.len();
        println!("{test}: {tool} {args:?}: {} of {all} points, {faults:?}: {met} of {runs} met", tried.len());
        assert!(tried.len() > 10 && met * 10 >= runs * 9, "{} points, {met} of {runs} met", tried.len());
    }
}
