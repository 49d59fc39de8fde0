//! An ordinary user without root creates, uses and removes a VM.

use super::world::World;

/// Debian's `nobody`: no files, no groups.
const NOBODY: u32 = 65534;

#[test]
fn an_ordinary_user_needs_no_root() {
    if !nix::unistd::geteuid().is_root() {
        // Then every other test of this directory has shown it already.
        return;
    }
    let world = World::of_user(NOBODY);
    world.boot("dev");
    assert_eq!(world.guest("dev", "id -un"), "root");
    let doc = world.json("bg-vm", &["show", "dev"]);
    let pid = doc["vmm"]["pid"].as_i64().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.lines().any(|l| l.starts_with("Uid:") && l.contains("65534")), "the VMM runs as the caller: {status}");
    world.ok("bg-vm", &["stop", "dev"]);
    world.ok("bg-vm", &["rm", "dev"]);
}
