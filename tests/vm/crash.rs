//! What is killed from outside is seen, leaves nothing that stays, and can be started again.

use super::world::World;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn kill_hard(pid: &serde_json::Value) {
    kill(Pid::from_raw(i32::try_from(pid.as_i64().unwrap()).unwrap()), Signal::SIGKILL).unwrap();
}

#[test]
fn a_killed_vmm_and_a_killed_shim_are_crashes_that_a_start_mends() {
    let world = World::new();
    world.boot("dev");
    world.guest("dev", "echo synced > /root/mark; sync");
    kill_hard(&world.json("bg-vm", &["show", "dev"])["vmm"]["pid"]);
    world.until("the crash", || world.status("dev")["state"] == "crashed");
    world.until("the end of all its processes", || world.processes().is_empty());
    assert_eq!(world.findings(), Vec::<serde_json::Value>::new(), "the shim has tidied up");

    world.ok("bg-vm", &["start", "dev"]);
    kill_hard(&world.json("bg-vm", &["show", "dev"])["vmm"]["shim_pid"]);
    world.until("the end of all its processes", || world.processes().is_empty());
    assert_eq!(world.status("dev")["state"], "crashed");
    let found = world.findings();
    assert_eq!(found.iter().map(|f| f["kind"].as_str().unwrap()).collect::<Vec<_>>(), ["runtime_dir"], "{found:?}");
    world.collect();

    world.ok("bg-vm", &["start", "dev"]);
    world.healthy("dev");
    assert_eq!(world.guest("dev", "cat /root/mark"), "synced");
    kill_hard(&world.json("bg-vm", &["show", "dev"])["vmm"]["shim_pid"]);
    world.until("the end of all its processes", || world.processes().is_empty());
    world.ok("bg-vm", &["start", "dev"]);
    world.ok("bg-vm", &["kill", "dev"]);
    assert_eq!(world.status("dev")["exit"]["reason"], "killed");
}
