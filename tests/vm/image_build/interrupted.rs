//! A build that is ended at any of its stages leaves nothing, and the next one succeeds.
//!
//! The stages are those of a build that was let alone. Every fifth is taken, or with `BG_TEST_FULL` every one with every
//! signal (`make test-image-build`): most of them come after a boot.

#![allow(clippy::disallowed_types)]

use super::{PACKAGE, Repository, World, build, cached, command, script, show};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGKILL, Signal::SIGTERM];

/// The stages that have ended by now, and not those of the shim, which come in one go.
fn ended(events: &Path) -> usize {
    std::fs::read_to_string(events).unwrap_or_default().matches(r#""event":"stage""#).count()
}

/// Runs a build and sends it `signal` as soon as `stages` of its stages have ended.
fn end_after(world: &World, args: &[&str], stages: usize, signal: Signal) -> Output {
    let events = world.path().join("events");
    let _ = std::fs::remove_file(&events);
    let mut command = command(world, args);
    command.env("BG_EVENTS", &events).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    while ended(&events) < stages && child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(300), "stage {stages} did not come");
        std::thread::park_timeout(Duration::from_millis(2));
    }
    // Its pid is its own for as long as nobody has waited for it.
    let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal);
    child.wait_with_output().unwrap()
}

#[test]
fn a_build_ended_at_any_stage_leaves_nothing() {
    let world = World::new();
    let repository = Repository::serve(world.path());
    let source = script(&world, "source", &repository.becomes_the_only_source());
    let copy = format!("{source}:/srv/");
    let host = format!("127.0.0.1:{}", repository.port);
    let args = ["--force", "--size", "3G", "--modules", "--allow-host", &host, "--run", &source];
    let args = [&args[..], &["--packages", PACKAGE, "--copy", &copy]].concat();
    let (doc, _) = build(&world, &args);
    let timings = doc["timings"].as_array().unwrap();
    let stages: Vec<&str> = timings
        .iter()
        .filter(|t| t["tool"] == "bg-image-build")
        .map(|t| t["stage"].as_str().unwrap())
        .filter(|stage| !stage.contains('.'))
        .collect();
    let full = std::env::var_os("BG_TEST_FULL").is_some();
    // In the sample each stage has one signal, and neighbours have different ones.
    let signals = |n: usize| if full { &SIGNALS[..] } else { &SIGNALS[n / 5 % SIGNALS.len()..][..1] };
    let mut ended = 0;
    for (n, stage) in stages.iter().enumerate().filter(|(n, _)| full || n % 5 == 2) {
        for signal in signals(n).iter().copied() {
            let output = end_after(&world, &args, n, signal);
            let what = format!("{signal} at {stage}: {}", show(&output));
            match (output.status.code(), signal) {
                // The last stages are short: it was faster.
                (Some(0), _) => {
                    let _: Value = serde_json::from_slice(&output.stdout).expect(&what);
                }
                (None, Signal::SIGKILL) => {
                    world.until("the VM's end", || world.processes().is_empty());
                    world.collect();
                }
                (code, _) => assert_eq!(code, Some(128 + signal as i32), "{what}"),
            }
            ended += usize::from(!output.status.success());
            world.assert_nothing_is_left();
        }
    }
    println!("{ended} builds were ended at stages of {stages:?}");
    assert!(ended >= 4, "{ended} builds were ended at stages of {stages:?}");
    let (again, _) = build(&world, &args);
    assert_eq!(again["rootfs"]["manifest_digest"], doc["rootfs"]["manifest_digest"]);
    assert_eq!(cached(&world).len(), 1, "nothing half made is left beside the result: {:?}", cached(&world));
}
