//! `bg-shim` and its starter against a VMM that only pretends: who ends whom, and that nothing is ever left.

#![allow(clippy::disallowed_types, reason = "a test may start programs itself")]

use crate::support::launched::{Machine, SHIM, identity, kill, until};
use lib_common::Code;
use lib_common::timing::Stages;
use lib_machine::guest::http;
use lib_machine::vmm;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn before_a_guest_is_up_nobody_finds_its_vsock() {
    let machine = Machine::new("silent");
    let state = machine.run();
    let run = machine.file("0123456789ab");
    until("the guest runs", || machine.read("console.log").contains("run 1 of the guest"));
    assert!(run.join("vm.vsock.early").exists() && !run.join("vm.vsock").exists());
    let e = http::get_health(&run.join("vm.vsock"), Duration::from_secs(1)).unwrap_err();
    assert!(e.causes().iter().chain([&e.message().to_owned()]).any(|c| c.contains("it is not up")), "{e}");
    drop(UnixStream::connect(run.join("vm.vsock_51")).unwrap());
    until("the guest is up", || run.join("vm.vsock").exists());
    vmm::end(&run).unwrap();
    machine.exit(&state);
}

#[test]
fn a_vm_lives_from_its_start_to_its_end() {
    let machine = Machine::new("runs");
    let state = machine.run();
    assert_eq!(machine.state().as_ref(), Some(&state));
    let run = machine.file("0123456789ab");
    until("the guest is up", || run.join("vm.vsock").exists());
    assert!(!run.join("vm.vsock.early").exists());
    for (file, mode) in [
        ("identity.json", 0o600),
        ("launch.json", 0o600),
        ("shim.json", 0o600),
        ("vm.vsock", 0o600),
        ("vm.vsock_51", 0o600),
        ("", 0o700),
    ] {
        let path = run.join(file);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{file}");
    }
    assert!(!run.join("initrd").exists(), "the secrets in it are the VMM's alone now");
    until("the console has the guest's words", || machine.read("console.log").contains("run 1 of the guest"));
    assert!(!machine.file("exit.json").exists(), "the end of the run before is no longer the last");
    vmm::end(&run).unwrap();
    assert_eq!(machine.exit(&state).reason, "killed");
    vmm::end(&run).unwrap();
}

#[test]
fn each_end_has_its_reason() {
    for (mode, reason, status) in [
        ("poweroff", "poweroff", "exit 0, guest-shutdown"),
        ("crashes", "crashed", "exit 3"),
        ("device-leaves", "crashed", "vhost-device-vsock ended (exit 5)"),
    ] {
        let machine = Machine::new(mode);
        let state = machine.run();
        let exit = machine.exit(&state);
        assert_eq!((exit.reason.as_str(), exit.status.as_str(), exit.reboots), (reason, status, 0), "{mode}");
    }
}

#[test]
fn a_start_that_is_not_kept_never_was() {
    for mode in ["runs", "floods"] {
        let machine = Machine::new(mode);
        let started = machine.start().unwrap();
        assert_eq!(machine.start().unwrap_err().code(), Code::InUse);
        drop(started);
        machine.assert_nothing_is_left();
        assert_eq!(machine.read("exit.json"), "of the run before");
    }
}

#[test]
fn a_vm_that_is_held_ends_with_its_starter_unless_it_is_kept_then() {
    let machine = Machine::new("runs");
    let mut started = machine.start().unwrap();
    started.hold().unwrap();
    let state = started.state().clone();
    drop(started);
    machine.assert_nothing_is_left();
    assert_eq!(machine.exit(&state).reason, "killed");
    let mut started = machine.start().unwrap();
    started.hold().unwrap();
    let state = started.state().clone();
    started.keep().unwrap();
    assert!(!vmm::wait_end(&state, Duration::from_millis(100)).unwrap(), "it lives on");
    vmm::end(&machine.file("0123456789ab")).unwrap();
    assert_eq!(machine.exit(&state).reason, "killed");
}

#[test]
fn programs_that_fail_are_quoted() {
    for (mode, message, cause) in [
        ("refuses", "the VMM ended at once (exit 1)", Some("could not load kernel")),
        ("nonsense", "the VMM is not what it should be", Some("QEMU's monitor said `hello`")),
        ("endless", "the VMM is not what it should be", Some("a line is longer than 65536 bytes")),
        ("device-fails", "vhost-device-vsock ended as the VM was being started (exit 4)", None),
    ] {
        let machine = Machine::new(mode);
        let e = machine.fails();
        assert_eq!((e.code(), e.message()), (Code::VmmFailed, "cannot start the VM `dev`"), "{mode}");
        assert_eq!(e.causes()[0], message, "{mode}");
        assert_eq!(e.causes().get(1).map(String::as_str), cause, "{mode}");
        if mode == "refuses" {
            assert_eq!(e.get_child().unwrap().stderr, "a warning\ncould not load kernel\n");
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    let machine = Machine::new("runs");
    std::fs::remove_file(machine.file("initrd")).unwrap();
    let e = machine.fails();
    assert!(e.causes().iter().any(|c| c.contains("initrd")), "{:?}", e.causes());
    let machine = Machine::new("runs");
    std::fs::remove_file(machine.file("fake-vmm")).unwrap();
    assert_eq!(machine.fails().code(), Code::MissingProgram);
    let machine = Machine::new("runs");
    let stages = &mut Stages::new("bg-test", None);
    let e = vmm::start(&machine.launch(), &identity(), Path::new("/nowhere/bg-shim"), stages).unwrap_err();
    assert_eq!(e.code(), Code::MissingProgram);
    machine.assert_nothing_is_left();
}

/// Not a test: the starter that the next test kills.
#[test]
#[ignore = "it is run by another test"]
fn starter_to_be_killed() {
    let machine = Machine::at(std::env::var("MACHINE").unwrap().into());
    let _started = machine.start();
    std::thread::park();
}

#[test]
fn a_killed_starter_leaves_nothing() {
    for (mode, started) in [("runs", true), ("floods", true), ("mute", false), ("device-sleeps", false)] {
        let machine = Machine::new(mode);
        let mut starter = Command::new(std::env::current_exe().unwrap());
        starter.args(["--exact", "shim::starter_to_be_killed", "--ignored"]).env("MACHINE", &machine.dir);
        let mut starter = starter.stdout(Stdio::null()).spawn().unwrap();
        until("the VM is as far as it gets", || match machine.state() {
            Some(_) if started => machine.file("runs").exists(),
            Some(state) => state.vmm.is_some() || mode == "device-sleeps" && state.vsock_device.is_some(),
            None => false,
        });
        starter.kill().unwrap();
        starter.wait().unwrap();
        until("the runtime directory is removed", || !machine.file("0123456789ab").exists());
        until("its processes are gone", || machine.processes().is_empty());
        assert_eq!(machine.read("exit.json"), "of the run before");
    }
}

#[test]
fn a_killed_shim_takes_its_children_along() {
    let machine = Machine::new("stubborn");
    let state = machine.run();
    kill(&state.shim);
    let begun = Instant::now();
    until("its children are gone", || machine.processes().is_empty());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    // What it could not remove is no obstacle: not to ending it, nor to the next start.
    let again = machine.run();
    vmm::end(&machine.file("0123456789ab")).unwrap();
    assert_eq!(machine.exit(&again).reason, "killed");
}

#[test]
fn a_killed_vmm_is_a_crash() {
    let machine = Machine::new("runs");
    let state = machine.run();
    kill(state.vmm.as_ref().unwrap());
    let exit = machine.exit(&state);
    assert_eq!((exit.reason.as_str(), exit.status.as_str()), ("crashed", "signal 9"));
}

#[test]
fn a_vmm_that_does_not_want_to_end_has_two_seconds() {
    let machine = Machine::new("stubborn");
    let state = machine.run();
    until("it ignores SIGTERM", || machine.read("console.log").contains("run 1"));
    let begun = Instant::now();
    vmm::end(&machine.file("0123456789ab")).unwrap();
    let took = begun.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(5)).contains(&took), "{took:?}");
    let exit = machine.exit(&state);
    assert_eq!((exit.reason.as_str(), exit.status.as_str()), ("killed", "signal 9"));
}

#[test]
fn a_reboot_is_another_vmm_in_the_same_run() {
    let machine = Machine::new("resets-once");
    let first = machine.run();
    until("it runs again", || machine.read("console.log").contains("run 2 of the guest"));
    let second = machine.state().unwrap();
    assert_eq!((second.reboots, &second.shim), (1, &first.shim));
    assert_ne!(second.vmm, first.vmm);
    assert!(second.vmm.is_some() && second.vsock_device != first.vsock_device);
    assert!(!machine.file("0123456789ab/initrd").exists());
    vmm::end(&machine.file("0123456789ab")).unwrap();
    let exit = machine.exit(&second);
    assert_eq!((exit.reason.as_str(), exit.reboots), ("killed", 1));
}

#[test]
fn a_guest_that_only_reboots_is_given_up() {
    let machine = Machine::new("resets");
    let state = machine.run();
    let exit = machine.exit(&state);
    assert_eq!((exit.reason.as_str(), exit.reboots), ("crashed", 5));
    assert!(exit.status.contains("rebooted 6 times"), "{exit:?}");
}

#[test]
fn a_guest_that_prints_without_end_fills_no_disk_and_can_be_ended() {
    let machine = Machine::new("floods");
    let state = machine.run();
    let older = vmm::previous_log(&machine.file("console.log"));
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
    let (mut turns, mut last) = (0, 0);
    until("the log has turned over several times", || {
        let now = size(&machine.file("console.log"));
        assert!(now + size(&older) <= 64 << 10);
        turns += i32::from(now < last);
        last = now;
        turns > 5
    });
    vmm::end(&machine.file("0123456789ab")).unwrap();
    assert_eq!(machine.exit(&state).reason, "killed");
}

#[test]
fn by_hand_it_only_explains_itself() {
    let out = Command::new(SHIM).args(["--launch", "/nowhere"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(out.status.code(), Some(64));
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert!(stderr.contains("bg-vm start") && stderr.contains("\"code\":\"usage\""), "{stderr}");
    let out = Command::new(SHIM).stdin(Stdio::null()).output().unwrap();
    assert_eq!(out.status.code(), Some(64));
}
