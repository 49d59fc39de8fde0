//! A guest whose disk the host cannot write to pauses, says so everywhere, and loses nothing.

#![allow(clippy::disallowed_types)]

use super::world::{World, show};
use crate::support::has_strace;
use serde_json::Value;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A state directory with the image and a VM has room for this.
const MIB: u32 = 1100;

/// Writes what cannot be guessed, more than [`leave_little`] leaves, and says its digest.
const WRITE: &str = "dd if=/dev/urandom of=/root/data bs=1M count=48 status=none && sync && sha256sum < /root/data";

fn leave_little(world: &World) {
    world.mounts().leave(20 << 20);
}

fn make_room(world: &World) {
    world.mounts().leave(300 << 20);
}

/// A session that writes in the guest.
fn begin_to_write(world: &World) -> Child {
    let mut command = world.command("bg-ssh", &["dev", "--", WRITE]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn until_state(world: &World, state: &str) -> Value {
    world.until(state, || world.status("dev")["state"] == state);
    world.status("dev")
}

/// A VM that is paused since its host's disk is full, and the session that waits.
fn paused(world: &World) -> Child {
    leave_little(world);
    let writer = begin_to_write(world);
    until_state(world, "paused");
    writer
}

fn error(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_str(stderr.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {stderr}"))
}

fn end(mut writer: Child) {
    writer.kill().unwrap();
    writer.wait().unwrap();
}

#[test]
fn a_guest_on_a_full_disk_of_the_host_pauses_and_goes_on_with_nothing_lost() {
    let test = "a_guest_on_a_full_disk_of_the_host_pauses_and_goes_on_with_nothing_lost";
    let Some(world) = World::with_room(test, MIB) else { return };
    world.boot("dev");
    let writer = paused(&world);

    let status = world.status("dev");
    // The journal of the root disk may be what comes first.
    let file = status["paused"]["path"].as_str().unwrap().to_owned();
    assert!(["root.ext4", "work.ext4"].iter().any(|disk| world.vm_file("dev", disk).ends_with(&file)), "{status}");
    let reason = format!("the host's disk is full ({file})");
    assert_eq!(status["paused"]["reason"], "the host's disk is full", "{status}");
    assert_eq!(status["paused"]["resumes"], true);
    let table = world.ok("bg-vm", &["ls", "--output", "table"]);
    assert!(table.contains(&format!("paused: {reason}")), "{table}");
    let said = format!("the VM `dev` is paused: {reason}");
    for (args, exit) in [(&["dev"][..], 69), (&["dev", "--wait", "1"], 75)] {
        let output = world.run("bg-health", args);
        assert_eq!((output.status.code(), error(&output)["message"].as_str()), (Some(exit), Some(&*said)), "{args:?}");
    }
    let output = world.run("bg-ssh", &["--connect-timeout", "1", "dev", "--", "true"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(255), "{stderr}");
    assert!(stderr.starts_with(&format!("bg-ssh: dev is paused: {reason}\n")), "{stderr}");
    assert!(stderr.contains(&said), "{stderr}");
    let again = world.run("bg-vm", &["start", "dev"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("runs already, and is paused"), "{}", show(&again));

    make_room(&world);
    until_state(&world, "running");
    let output = writer.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", show(&output));
    let digest = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(stderr, format!("bg-ssh: dev is paused: {reason}\nbg-ssh: dev goes on\n"));
    world.healthy("dev");
    // From the disk, and not from memory.
    world.ok("bg-vm", &["restart", "dev"]);
    world.healthy("dev");
    assert_eq!(world.guest("dev", "sha256sum < /root/data"), digest);
    assert_eq!(world.guest("dev", "cat /sys/fs/ext4/*/errors_count"), "0\n0");
}

#[test]
fn a_paused_vm_is_stopped_killed_restarted_and_removed() {
    let Some(world) = World::with_room("a_paused_vm_is_stopped_killed_restarted_and_removed", MIB) else { return };
    world.boot("dev");
    let writer = paused(&world);
    let begun = Instant::now();
    let output = world.run("bg-vm", &["stop", "dev"]);
    assert!(output.status.success() && begun.elapsed() < Duration::from_secs(30), "{}", show(&output));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("did not shut down (it is paused: the host's disk is full"), "{stderr}");
    assert_eq!(world.status("dev")["state"], "stopped");
    end(writer);

    make_room(&world);
    world.ok("bg-vm", &["start", "dev"]);
    world.healthy("dev");
    let writer = paused(&world);
    make_room(&world);
    // It has room again, so it goes on first and shuts down by itself.
    let output = world.run("bg-vm", &["stop", "dev"]);
    assert!(output.stderr.is_empty(), "{}", show(&output));
    assert_eq!(world.status("dev")["exit"]["reason"], "poweroff");
    end(writer);

    world.ok("bg-vm", &["start", "dev"]);
    world.healthy("dev");
    world.guest("dev", "rm -f /root/data; sync; fstrim /root");
    let writer = paused(&world);
    world.ok("bg-vm", &["kill", "dev"]);
    assert_eq!(world.status("dev")["state"], "stopped");
    end(writer);

    make_room(&world);
    world.ok("bg-vm", &["start", "dev"]);
    world.healthy("dev");
    world.guest("dev", "rm -f /root/data; sync; fstrim /root");
    let writer = paused(&world);
    world.ok("bg-vm", &["restart", "dev"]);
    end(writer);
    make_room(&world);
    world.healthy("dev");
    world.guest("dev", "rm -f /root/data; sync; fstrim /root");
    let writer = paused(&world);
    let refused = world.run("bg-vm", &["rm", "dev"]);
    assert_eq!(error(&refused)["code"], "in_use");
    world.ok("bg-vm", &["rm", "--force", "dev"]);
    end(writer);
}

/// Lets each write of a VMM's thread fail with that error, until it is dropped.
struct Failing(Child);

impl Failing {
    fn with(error: &str, vmm: &Value) -> Self {
        let mut command = Command::new("strace");
        let writes = format!("inject=pwrite64,pwritev:error={error}");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64,pwritev", "-e", &writes]);
        Failing(command.args(["-p", &vmm.to_string()]).spawn().unwrap())
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        // It detaches.
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

#[test]
fn a_used_up_quota_is_waited_for_and_any_other_failure_waits_for_a_restart() {
    if !has_strace("a_used_up_quota_is_waited_for_and_any_other_failure_waits_for_a_restart") {
        return;
    }
    let world = World::new();
    let doc = world.boot("dev");
    let failing = Failing::with("EDQUOT", &doc["vmm"]["pid"]);
    let writer = begin_to_write(&world);
    let status = until_state(&world, "paused");
    assert_eq!(status["paused"]["reason"], "the disk quota on the host is used up", "{status}");
    drop(failing);
    until_state(&world, "running");
    let output = writer.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", show(&output));
    assert_eq!(world.guest("dev", "cat /sys/fs/ext4/*/errors_count"), "0\n0");

    let failing = Failing::with("EIO", &doc["vmm"]["pid"]);
    let writer = begin_to_write(&world);
    let status = until_state(&world, "paused");
    let reason = "cannot write a disk's file: Input/output error";
    assert_eq!((&status["paused"]["reason"], &status["paused"]["resumes"]), (&reason.into(), &false.into()));
    drop(failing);
    let health = error(&world.run("bg-health", &["dev", "--wait", "4"]));
    assert_eq!((&health["code"], &health["hint"]), (&"timed_out".into(), &"bg-vm restart dev".into()), "{health}");
    assert_eq!(world.status("dev")["state"], "paused", "it does not go on by itself");
    world.ok("bg-vm", &["restart", "dev"]);
    end(writer);
    world.healthy("dev");
    assert_eq!(world.status("dev"), serde_json::json!({"state": "running"}));
}
