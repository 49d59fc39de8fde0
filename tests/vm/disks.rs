//! A guest's own file systems: what is wrong with one degrades the guest, and is told, until it is mended.

use super::world::{World, show};
use serde_json::Value;

/// Waits until health is as `status` says, with a problem that contains `problem`.
fn until(world: &World, status: &str, problem: &str) {
    world.until(&format!("{status} ({problem})"), || {
        let output = world.run("bg-health", &["dev"]);
        let doc: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let exit = if status == "ok" { 0 } else { 1 };
        let health = &doc["health"];
        health["status"] == status
            && output.status.code() == Some(exit)
            && health["problems"].as_array().map_or(problem.is_empty(), |all| {
                all.iter().any(|one| one.as_str().is_some_and(|text| text.contains(problem)))
            })
    });
}

#[test]
fn a_full_a_read_only_and_a_damaged_disk_of_a_guest_degrade_it_until_they_are_mended() {
    let world = World::new();
    world.boot("dev");
    let fill = |dir: &str| {
        let left = format!("$(($(df --output=avail -B1 {dir} | tail -n 1) - 600000))");
        world.guest("dev", &format!("fallocate -l {left} {dir}/fill"));
    };
    for (dir, problem) in [("/root", "the file system of /root is full"), ("/var", "the file system of / is full")] {
        fill(dir);
        until(&world, "degraded", problem);
        world.guest("dev", &format!("rm {dir}/fill"));
        until(&world, "ok", "");
    }
    world.guest("dev", "mount -o remount,ro /root");
    until(&world, "degraded", "the file system of /root is read-only");
    world.guest("dev", "mount -o remount,rw /root");
    until(&world, "ok", "");

    world.guest("dev", "echo for a test > /sys/fs/ext4/vdb/trigger_fs_error");
    until(&world, "degraded", "the file system of /root has 1 errors: e2fsck mends it");
    world.ok("bg-vm", &["stop", "dev"]);
    let disk = world.vm_file("dev", "work.ext4").display().to_string();
    let checked = world.program("e2fsck").args(["-f", "-y", &disk]).output().unwrap();
    assert!(matches!(checked.status.code(), Some(0 | 1)), "{}", show(&checked));
    world.ok("bg-vm", &["start", "dev"]);
    world.healthy("dev");
}
