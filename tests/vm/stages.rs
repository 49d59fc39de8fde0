//! Every millisecond from `bg-vm create` to the end of the first command has its stage.

use super::world::{World, boot, show};
use serde_json::Value;
use std::time::Instant;

/// What a boot consists of where somebody waited for it from the first.
const GUEST: [&str; 6] = ["kernel", "init", "agent", "ssh_banner", "ssh_login", "ssh_command"];

/// Tool, stage, milliseconds.
fn timings(doc: &Value) -> Vec<(&str, &str, f64)> {
    let all = doc["timings"].as_array().unwrap().iter();
    all.map(|t| (t["tool"].as_str().unwrap(), t["stage"].as_str().unwrap(), t["ms"].as_f64().unwrap())).collect()
}

/// The guest's stages.
fn of_guest(doc: &Value) -> Vec<(&str, f64)> {
    timings(doc).into_iter().filter(|(tool, ..)| *tool == "guest").map(|(_, stage, ms)| (stage, ms)).collect()
}

fn names<'a>(stages: &[(&'a str, f64)]) -> Vec<&'a str> {
    stages.iter().map(|(stage, _)| *stage).collect()
}

/// By the rule of banger(7).
fn sum(doc: &Value) -> f64 {
    let counts = |stage: &str| stage != "input" && !stage.contains('.');
    timings(doc).into_iter().filter(|(_, stage, _)| counts(stage)).map(|(.., ms)| ms).sum()
}

#[test]
fn the_stages_are_the_wall_time_from_create_to_ssh_and_those_of_the_last_boot_alone() {
    let world = World::new();
    let seen = world.path().join("healthy.json");
    let script =
        "bg-vm create dev --memory 512M --work-size 2G | bg-health --wait \"$1\" | tee \"$2\" | bg-ssh -- true";
    let begun = Instant::now();
    let made = world.program("sh").args(["-c", script, "sh", &boot(), seen.to_str().unwrap()]).output().unwrap();
    let wall = begun.elapsed().as_secs_f64() * 1e3;
    assert!(made.status.success(), "{}", show(&made));
    let doc = world.json("bg-vm", &["show", "dev"]);
    println!("{wall:.0} ms: {}", doc["timings"]);
    assert_eq!(names(&of_guest(&doc)), GUEST, "{}", doc["timings"]);
    assert!(of_guest(&doc)[..4].iter().all(|(_, ms)| *ms > 0.0), "{}", doc["timings"]);
    let total = sum(&doc);
    assert!((total - wall).abs() <= 0.05 * wall, "{total:.0} of {wall:.0} ms: {}", doc["timings"]);

    // What came out of bg-health has its own stages too, and counts nothing twice.
    let healthy: Value = serde_json::from_slice(&std::fs::read(&seen).unwrap()).unwrap();
    assert_eq!(names(&of_guest(&healthy)), GUEST[..4], "{}", healthy["timings"]);
    assert!(timings(&healthy).iter().any(|(tool, stage, _)| (*tool, *stage) == ("bg-health", "guest.wait")));
    assert!(sum(&healthy) <= 1.05 * wall, "{}", healthy["timings"]);

    // Later logins and documents that are read again change nothing and add nothing.
    world.guest("dev", "true");
    let again = world.pipe("bg-health", &["--wait", "60"], doc.to_string().as_bytes());
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(of_guest(&again), of_guest(&doc));

    // A guest's reboot is another boot.
    world.run("bg-ssh", &["dev", "--", "systemctl reboot"]);
    let first = of_guest(&doc);
    world.until("the stages of the next boot", || {
        let now = world.json("bg-vm", &["show", "dev"]);
        let now = of_guest(&now);
        names(&now).starts_with(&GUEST[..3]) && now[..3] != first[..3]
    });
    world.healthy("dev");
    world.ok("bg-vm", &["stop", "dev"]);
    assert!(of_guest(&world.json("bg-vm", &["show", "dev"])).is_empty(), "it does not run");
    let started = world.pipe("bg-vm", &["start"], doc.to_string().as_bytes());
    assert!(started.status.success(), "{}", show(&started));
    let started: Value = serde_json::from_slice(&started.stdout).unwrap();
    assert!(of_guest(&started).is_empty(), "those of another boot: {}", started["timings"]);
    world.healthy("dev");
    assert_eq!(names(&of_guest(&world.json("bg-vm", &["show", "dev"]))), GUEST[..4]);
}

#[test]
fn creations_are_measured_with_real_guests_on_all_sides_and_leave_nothing() {
    let world = World::new();
    let bench = world.json("bg-bench", &["create", "--runs", "1", "--no-seed", "--against", "qemu"]);
    let p50 = |name: &str| {
        let measure = bench["measures"].as_array().unwrap().iter().find(|m| m["name"] == name);
        measure.unwrap_or_else(|| panic!("{name}: {bench}"))["p50"].as_f64().unwrap()
    };
    for side in ["", "no_seed.", "qemu."] {
        let [create, ready, ssh] = ["create", "ready", "ssh_true"].map(|name| p50(&format!("{side}{name}")));
        assert!(0.0 < ssh && 0.0 < create && create + ssh < ready, "{side} {create} {ready} {ssh}");
    }
    assert!(["kernel", "init", "agent"].iter().all(|stage| p50(&format!("guest.{stage}")) > 0.0), "{bench}");
    world.assert_nothing_is_left();
}
