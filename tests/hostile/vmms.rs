//! VMMs, shims and process numbers that are not what a record says: each verb comes to its end, the state afterwards is
//! true, and nobody else's process hears of it.

use super::started;
use crate::running::World;
use crate::support::launched::{kill, until};
use lib_common::doc::{ProcessDoc, ShimState, strict, to_json};
use lib_common::error::Code;
use lib_common::sys::process::{ProcessId, executable};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn shim_state(run: &Path) -> ShimState {
    strict(&std::fs::read_to_string(run.join("shim.json")).unwrap()).unwrap()
}

fn exit_of(world: &World) -> Value {
    world.vm(&["show", "dev"], "").json()["status"]["exit"].take()
}

/// A process that has nothing to do with any VM. Dropped, it ends.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        Stranger(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap())
    }

    fn process(&self) -> ProcessDoc {
        let pid = self.0.id().try_into().unwrap();
        until("it is what it was started as", || {
            executable(pid).is_some_and(|exe| exe != std::env::current_exe().unwrap())
        });
        ProcessId::of(pid).unwrap().try_into().unwrap()
    }

    #[track_caller]
    fn assert_alive(&mut self, what: &str) {
        assert!(self.0.try_wait().unwrap().is_none(), "{what}: a foreign process was ended");
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_start_that_fails_at_any_step_leaves_a_stopped_vm() {
    let world = World::new(&["dev"]);
    let failing = ["refuses", "evil", "nonsense", "endless", "device-fails"].map(|mode| (mode, Code::VmmFailed));
    // What never gets ready has a part of the time of a boot.
    let hanging = ["mute", "device-sleeps"].map(|mode| (mode, Code::TimedOut));
    for (mode, code) in failing.into_iter().chain(hanging) {
        world.set_mode(mode);
        let mut command = world.command("bg-vm", &["start", "dev"]);
        let done = crate::support::finish(command.env("BG_BOOT_TIMEOUT", "2").spawn().unwrap(), b"");
        done.failed_with(code);
        assert_eq!(world.state_of("dev"), "stopped", "{mode}");
        assert_eq!(world.sandbox.findings(&["--now"]), Vec::<Value>::new(), "{mode}");
    }
    world.set_mode("runs");
    started(&world);
    assert_eq!(world.state_of("dev"), "running");
}

#[test]
fn whoever_is_killed_the_vm_has_crashed_and_starts_again() {
    let world = World::new(&["dev"]);
    for mode in ["runs", "stubborn"] {
        world.set_mode(mode);
        for who in ["shim", "vmm", "device"] {
            let state = shim_state(&started(&world));
            match who {
                "shim" => kill(&state.shim),
                "vmm" => kill(state.vmm.as_ref().unwrap()),
                _ => kill(state.vsock_device.as_ref().unwrap()),
            }
            until("it has crashed", || world.state_of("dev") == "crashed");
            until("none of its processes lives", || {
                [Some(state.shim.clone()), state.vmm.clone(), state.vsock_device.clone()]
                    .into_iter()
                    .flatten()
                    .all(|process| !ProcessId::from(process).is_alive().unwrap())
            });
            for verb in ["stop", "kill"] {
                world.vm(&[verb, "dev"], "").ok();
            }
            world.sandbox.collect();
        }
    }
    world.set_mode("stubborn");
    started(&world);
    world.vm(&["stop", "--timeout", "0.1", "dev"], "").ok();
    assert_eq!(exit_of(&world)["reason"], "killed");
}

#[test]
fn a_process_that_has_the_number_of_another_is_left_alone() {
    let world = World::new(&["dev"]);
    let run = started(&world);
    let real = shim_state(&run);
    let record = std::fs::read(world.record("dev")).unwrap();
    world.vm(&["kill", "dev"], "").ok();
    let mut stranger = Stranger::new();
    let it = stranger.process();
    let forged = [
        ("another program", ProcessDoc { exe: real.shim.exe.clone(), exe_file: real.shim.exe_file, ..it.clone() }),
        ("another start", ProcessDoc { start_time: it.start_time + 1, ..it.clone() }),
        ("another boot", ProcessDoc { boot_id: real.shim.boot_id.chars().rev().collect(), ..it.clone() }),
    ];
    for (what, process) in forged {
        // As a host that lost its power leaves it: the record and the runtime directory of a VM that ran.
        let left = |world: &World| {
            std::fs::write(world.record("dev"), &record).unwrap();
            std::fs::create_dir_all(&run).unwrap();
            let some = Some(process.clone());
            let state = ShimState { shim: process.clone(), vmm: some.clone(), vsock_device: some, ..real.clone() };
            std::fs::write(run.join("shim.json"), to_json(&state)).unwrap();
        };
        for verb in [&["stop", "dev"][..], &["kill", "dev"], &["restart", "dev"], &["kill", "dev"], &["start", "dev"]] {
            left(&world);
            assert_ne!(world.state_of("dev"), "running", "{what}");
            world.vm(verb, "").ok();
            stranger.assert_alive(&format!("{what}: {verb:?}"));
            world.vm(&["kill", "dev"], "").ok();
        }
        left(&world);
        world.sandbox.collect();
        stranger.assert_alive(&format!("{what}: bg-gc"));
    }
    world.vm(&["rm", "--force", "dev"], "").ok();
    stranger.assert_alive("bg-vm rm");
}

#[test]
fn a_zombie_does_not_run() {
    let world = World::new(&["dev"]);
    let run = started(&world);
    let real = shim_state(&run);
    let record = std::fs::read(world.record("dev")).unwrap();
    world.vm(&["kill", "dev"], "").ok();
    let stranger = Stranger::new();
    let process = stranger.process();
    // Ended, and nobody has waited for it: it keeps its number and its start.
    kill(&process);
    std::fs::create_dir_all(&run).unwrap();
    let state = ShimState { shim: process.clone(), vmm: Some(process), vsock_device: None, ..real };
    std::fs::write(run.join("shim.json"), to_json(&state)).unwrap();
    std::fs::write(world.record("dev"), record).unwrap();
    until("it is seen to have ended", || world.state_of("dev") != "running");
    for verb in ["stop", "kill", "start", "kill"] {
        world.vm(&[verb, "dev"], "").ok();
    }
    assert_eq!(world.state_of("dev"), "stopped");
}
