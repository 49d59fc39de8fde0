//! A create that is interrupted takes everything back; one that is killed leaves what `bg-verify | bg-gc` removes.

use super::world::World;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::Child;

/// Waits until the stage has ended, or the tool has.
fn wait_for_stage(world: &World, child: &mut Child, events: &Path, stage: &str) {
    let needle = format!("\"stage\":\"{stage}\"");
    world.until(stage, || {
        let text = std::fs::read_to_string(events).unwrap_or_default();
        text.contains(&needle) || child.try_wait().unwrap().is_some()
    });
}

#[test]
fn a_create_interrupted_at_three_points_leaves_nothing() {
    let world = World::new();
    for (signal, status) in [(Signal::SIGINT, Some(130)), (Signal::SIGTERM, Some(143)), (Signal::SIGKILL, None)] {
        // While the disks are cloned, before the VMM is chosen, and while the VMM starts.
        for (n, stage) in ["lock", "kernel_link", "vmm_choice"].into_iter().enumerate() {
            let name = format!("vm-{}-{n}", signal as i32);
            let events = world.path().join(format!("events-{name}"));
            let mut child = world.spawn("bg-vm", &["create", &name, "--work-size", "2G"], &events);
            wait_for_stage(&world, &mut child, &events, stage);
            kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), status, "{name} after {stage}: {said}");
            world.until("the end of all its processes", || world.processes().is_empty());
            if status.is_some() {
                assert!(!world.vm_file(&name, "").exists(), "{name} after {stage}: it is still there");
                assert_eq!(world.findings(), Vec::<serde_json::Value>::new(), "{name} after {stage}");
            } else {
                world.collect();
            }
            let again = world.run("bg-vm", &["create", &name, "--no-start", "--work-size", "2G"]);
            assert!(again.status.success(), "the name is free again: {}", String::from_utf8_lossy(&again.stderr));
        }
    }
}
