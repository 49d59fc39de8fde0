//! A VM that runs in another pid namespace, and the lock by which it is known from outside; what lives of a VM without its shim.

use super::{World, no_leaks, processes, runtime_dir};
use crate::support::launched::until;
use crate::support::source::root;
use crate::support::{like, not_run, program};
use lib_common::error::Code;
use lib_common::sys::lock::take_until_closed;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A shell in namespaces of its own that has started the VM `dev`, and waits. Dropped, everything in there has ended.
struct Inside(Child);

impl Inside {
    fn new(world: &World, test: &str) -> Option<Self> {
        let script = format!("{} start dev >/dev/null && echo up && read line", program("bg-vm"));
        let mut command = like(&world.command("bg-vm", &[]), root("pipelines/in-netns"));
        command.args(["sh", "-c", &script]).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        if line != "up\n" {
            child.wait().unwrap();
            not_run(test, "this host gives no pid namespace, or the VM did not start there");
            return None;
        }
        Some(Inside(child))
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn pid_of(value: &Value) -> Pid {
    Pid::from_raw(i32::try_from(value.as_i64().unwrap()).unwrap())
}

#[test]
fn a_vm_of_another_pid_namespace_is_neither_started_nor_ended_from_outside() {
    let world = World::new(&["dev"]);
    let test = "a_vm_of_another_pid_namespace_is_neither_started_nor_ended_from_outside";
    let Some(inside) = Inside::new(&world, test) else { return };
    let doc = world.vm(&["show", "dev"], "").json();
    assert_eq!((&doc["status"], doc.get("vmm")), (&json!({"state": "running_elsewhere"}), None), "{doc}");
    assert!(world.vm(&["ls", "--output", "table"], "").ok().contains("running_elsewhere"));
    let run = world.sandbox.path("run").join(&doc["id"].as_str().unwrap()[..12]);
    for verb in [&["start"][..], &["stop"], &["restart"], &["kill"], &["rm"], &["rm", "--force"], &["stats"]] {
        let refused = world.vm(&[verb, &["dev"]].concat(), "").failed_with(Code::Permission);
        assert!(refused.message.contains("`dev` runs in another pid namespace"), "{verb:?}: {refused:?}");
        assert!(refused.hint.unwrap().starts_with("nsenter --all --target "), "{verb:?}");
    }
    world.sandbox.run("bg-health", &["dev"], "").failed_with(Code::Permission);
    assert_eq!(world.sandbox.findings(&["--now"]), Vec::<Value>::new());
    // As an older banger would have found it.
    let finding = json!({"api_version": "banger/v1", "kind": "runtime_dir", "id": run, "owner": "dev", "age_ms": 0,
        "evidence": "no VM runs here any more", "is_leak": true, "fix": "bg-verify | bg-gc"});
    world.sandbox.run("bg-gc", &["--now"], format!("{finding}\n")).failed_with(Code::Permission);
    assert!(run.join("shim.json").exists() && world.sandbox.state("machines/dev/root.ext4").exists());
    assert_eq!(world.vm(&["show", "dev"], "").json()["status"]["state"], "running_elsewhere");

    inside.end();
    assert_eq!(world.state_of("dev"), "crashed");
    world.sandbox.collect();
    world.vm(&["start", "dev"], "").ok();
    assert_eq!(world.state_of("dev"), "running");
    world.vm(&["kill", "dev"], "").ok();
    world.vm(&["rm", "dev"], "").ok();
    world.assert_nothing_is_left();
}

#[test]
fn the_hint_for_a_vm_of_another_pid_namespace_stops_it() {
    let world = World::new(&["dev"]);
    let Some(inside) = Inside::new(&world, "the_hint_for_a_vm_of_another_pid_namespace_stops_it") else { return };
    let hint = world.vm(&["stop", "dev"], "").failed_with(Code::Permission).hint.unwrap();
    let tools = Path::new(program("bg-vm")).parent().unwrap().display().to_string();
    let path = format!("{tools}:{}", std::env::var("PATH").unwrap());
    let done = like(&world.command("bg-vm", &[]), "sh").env("PATH", path).args(["-c", &hint]).output().unwrap();
    assert!(done.status.success(), "{hint}: {done:?}");
    assert_eq!(world.state_of("dev"), "stopped");
    world.vm(&["rm", "dev"], "").ok();
    inside.end();
    world.assert_nothing_is_left();
}

#[test]
fn a_vm_of_which_the_namespace_has_no_proc_of_its_own_is_no_leak() {
    let world = World::new(&["dev"]);
    world.vm(&["start", "dev"], "").ok();
    let before = processes(&world, "dev");
    // Seen from here, its processes are in our own mount namespace and have other pids than its files say.
    let lock = world.sandbox.state("machines/dev/vm.lock");
    let text = std::fs::read_to_string(&lock).unwrap();
    std::fs::write(&lock, format!("1 {}", text.split_once(' ').unwrap().1)).unwrap();
    let state = runtime_dir_of(&world).join("shim.json");
    let said: Value = serde_json::from_str(&std::fs::read_to_string(&state).unwrap()).unwrap();
    let mut other = said.clone();
    other["shim"]["pid"] = 1.into();
    std::fs::write(&state, other.to_string()).unwrap();
    assert_eq!(world.sandbox.findings(&["--now"]), Vec::<Value>::new());
    world.vm(&["rm", "--force", "dev"], "").failed_with(Code::Permission);
    std::fs::write(&state, said.to_string()).unwrap();
    std::fs::write(&lock, text).unwrap();
    assert_eq!(processes(&world, "dev"), before);
}

/// The runtime directory of the one VM.
fn runtime_dir_of(world: &World) -> std::path::PathBuf {
    crate::support::children(&world.sandbox.path("run"))[0].clone()
}

#[test]
fn the_lock_of_a_vm_is_held_until_its_shim_and_its_vmm_have_ended() {
    let world = World::new(&["dev"]);
    let lock = world.sandbox.state("machines/dev/vm.lock");
    let is_free = || take_until_closed(&lock, Duration::ZERO).unwrap().is_some();
    for killed in [&["shim_pid"][..], &["pid"], &["pid", "shim_pid"]] {
        let vmm = world.vm(&["start", "dev"], "").json()["vmm"].take();
        assert!(!is_free(), "{killed:?}");
        for pid in killed {
            kill(pid_of(&vmm[pid]), Signal::SIGKILL).unwrap();
        }
        until("the lock is free", is_free);
        assert_eq!(world.state_of("dev"), "crashed", "{killed:?}");
        no_vmm(&world, "dev");
    }
    world.sandbox.collect();
    world.vm(&["start", "dev"], "").ok();
    world.vm(&["kill", "dev"], "").ok();
    assert!(is_free() && world.state_of("dev") == "stopped");
    world.vm(&["rm", "dev"], "").ok();
    world.assert_nothing_is_left();
}

fn no_vmm(world: &World, vm: &str) {
    assert_eq!(world.vm(&["show", vm], "").json().get("vmm"), None);
}

#[test]
fn a_process_that_still_holds_the_lock_of_a_vm_keeps_it_from_a_second_start() {
    let world = World::new(&["dev"]);
    let lock = world.sandbox.state("machines/dev/vm.lock");
    // As a VMM that outlives its shim has it.
    let mut command = Command::new("flock");
    let mut holder = command.args(["--exclusive", "--no-fork"]).arg(&lock).args(["sleep", "1000"]).spawn().unwrap();
    until("it holds the lock", || take_until_closed(&lock, Duration::ZERO).unwrap().is_none());
    assert_eq!(world.state_of("dev"), "running");
    let refused = world.vm(&["start", "dev"], "").failed_with(Code::InUse);
    assert_eq!(refused.hint.as_deref(), Some("bg-vm kill dev && bg-vm start dev"));
    world.vm(&["rm", "dev"], "").failed_with(Code::InUse);
    for verb in [&["kill", "dev"][..], &["rm", "--force", "dev"]] {
        let refused = world.vm(verb, "").failed_with(Code::InUse);
        assert!(refused.hint.unwrap().starts_with(&format!("kill -KILL {}", holder.id())), "{verb:?}");
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(world.state_of("dev"), "stopped");
    world.vm(&["start", "dev"], "").ok();
}

#[test]
fn a_vm_that_an_older_banger_started_is_judged_by_its_processes() {
    let world = World::new(&["dev"]);
    world.vm(&["start", "dev"], "").ok();
    let before = processes(&world, "dev");
    let dir = runtime_dir(&world, "dev");
    std::fs::remove_file(world.sandbox.state("machines/dev/vm.lock")).unwrap();
    assert_eq!(processes(&world, "dev"), before);
    assert!(world.vm(&["start", "dev"], "").stderr.contains("dev runs already"));
    world.vm(&["rm", "dev"], "").failed_with(Code::InUse);
    no_leaks(&world, "it has no lock");
    world.sandbox.collect();
    assert_eq!(processes(&world, "dev"), before);
    world.vm(&["kill", "dev"], "").ok();
    assert_eq!((world.state_of("dev").as_str(), dir.exists()), ("stopped", false));
    world.vm(&["start", "dev"], "").ok();
    world.vm(&["rm", "--force", "dev"], "").ok();
    world.assert_nothing_is_left();
}
