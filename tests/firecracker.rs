//! `bg-shim` and its starter against a Firecracker that serves its API strictly and runs no guest: what a VM is configured
//! as, how it begins and ends, and what becomes of a Firecracker that dies, hangs, refuses, or answers late or half.

#![allow(clippy::disallowed_types, reason = "a test may start programs itself")]

use crate::support::fixture;
use crate::support::launched::{Machine, fake_firecracker, identity, kill, until};
use crate::support::{Sandbox, finish};
use lib_common::Code;
use lib_common::doc::{Launch, LaunchDisk, ShimState};
use lib_common::timing::Stages;
use lib_machine::guest::http;
use lib_machine::vmm;
use serde_json::Value;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// The runtime directory.
const RUN: &str = "0123456789ab";

fn configuration(machine: &Machine) -> Value {
    serde_json::from_str(&machine.read(&format!("{RUN}/firecracker.json"))).unwrap()
}

#[test]
fn a_vm_lives_from_its_start_to_its_end() {
    let machine = Machine::firecracker("runs");
    let state = machine.run();
    assert_eq!((machine.state().as_ref(), &state.vsock_device), (Some(&state), &None));
    let run = machine.file(RUN);
    until("the guest is up", || run.join("vm.vsock").exists());
    assert!(!run.join("vm.vsock.early").exists());
    for (file, mode) in [("firecracker.json", 0o600), ("api.sock", 0o600), ("vm.vsock", 0o600), ("", 0o700)] {
        let path = run.join(file);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{file}");
    }
    for pipe in ["vmm.log", "metrics.pipe"] {
        assert!(run.join(pipe).metadata().unwrap().file_type().is_fifo(), "{pipe}");
    }
    assert!(!run.join("initrd").exists(), "the secrets in it are the VMM's alone now");
    until("the console has the guest's words", || machine.read("console.log").contains("run 1 of the guest"));
    until("the log has the VMM's words", || machine.read("shim.log").contains("it began"));
    until("the metrics are kept", || machine.read(&format!("{RUN}/metrics.ndjson")).contains("utc_timestamp_ms"));
    assert!(machine.read("shim.log").contains("Firecracker 1.10.1 runs"), "{}", machine.read("shim.log"));
    let args = configuration(&machine)["boot-source"]["boot_args"].take();
    assert!(args.as_str().unwrap().ends_with(" panic=7"), "{args}");
    vmm::end(&run).unwrap();
    assert_eq!(machine.exit(&state).reason, "killed");
}

#[test]
fn before_a_guest_is_up_nobody_finds_its_vsock() {
    let machine = Machine::firecracker("silent");
    let state = machine.run();
    let run = machine.file(RUN);
    assert!(run.join("vm.vsock.early").exists() && !run.join("vm.vsock").exists());
    drop(std::os::unix::net::UnixStream::connect(run.join("vm.vsock_51")).unwrap());
    until("the guest is up", || run.join("vm.vsock").exists());
    vmm::end(&run).unwrap();
    machine.exit(&state);
}

#[test]
fn each_end_has_its_reason() {
    for (mode, reason, status) in [
        // x86_64: the kernel halts, and Firecracker stays until it is ended.
        ("poweroff", "poweroff", "the guest halted"),
        // aarch64: it exits, as it does on a reset, and the console tells the two apart.
        ("poweroff-exits", "poweroff", "exit 0, guest-shutdown"),
        ("crashes", "crashed", "exit 149"),
    ] {
        let machine = Machine::firecracker(mode);
        let state = machine.run();
        let exit = machine.exit(&state);
        assert_eq!((exit.reason.as_str(), exit.status.as_str(), exit.reboots), (reason, status, 0), "{mode}");
    }
}

#[test]
fn a_guest_that_goes_on_after_the_last_words_lives() {
    let machine = Machine::firecracker("says-so");
    let state = machine.run();
    until("it has said so", || machine.read("console.log").contains("a joke"));
    assert!(!vmm::wait_end(&state, Duration::from_secs(1)).unwrap(), "{}", machine.read("shim.log"));
    vmm::end(&machine.file(RUN)).unwrap();
    assert_eq!(machine.exit(&state).reason, "killed");
}

#[test]
fn a_reboot_is_another_vmm_in_the_same_run() {
    let machine = Machine::firecracker("resets-once");
    let first = machine.run();
    until("it runs again", || machine.read("console.log").contains("run 2 of the guest"));
    until("the guest is up", || machine.file(RUN).join("vm.vsock").exists());
    let second = machine.state().unwrap();
    assert_eq!((second.reboots, &second.shim), (1, &first.shim));
    assert!(second.vmm.is_some() && second.vmm != first.vmm);
    vmm::end(&machine.file(RUN)).unwrap();
    let exit = machine.exit(&second);
    assert_eq!((exit.reason.as_str(), exit.reboots), ("killed", 1));
    let machine = Machine::firecracker("resets");
    let state = machine.run();
    let exit = machine.exit(&state);
    assert_eq!((exit.reason.as_str(), exit.reboots), ("crashed", 5), "one that only reboots is given up");
}

#[test]
fn a_start_that_is_not_kept_never_was_and_a_killed_shim_takes_its_vmm_along() {
    for mode in ["runs", "floods"] {
        let machine = Machine::firecracker(mode);
        let started = machine.start().unwrap();
        drop(started);
        machine.assert_nothing_is_left();
        assert_eq!(machine.read("exit.json"), "of the run before");
    }
    let machine = Machine::firecracker("runs");
    let state: ShimState = machine.run();
    kill(&state.shim);
    until("its children are gone", || machine.processes().is_empty());
    let again = machine.run();
    kill(again.vmm.as_ref().unwrap());
    let exit = machine.exit(&again);
    assert_eq!((exit.reason.as_str(), exit.status.as_str()), ("crashed", "signal 9"));
}

#[test]
fn a_firecracker_that_fails_is_quoted() {
    for (mode, cause, detail) in [
        ("dies-first", "the VMM ended at once (exit 1)", "out of luck"),
        ("dies", "the VMM ended at once (exit 1)", "no vCPU could be made"),
        // It would abort and say `VMM disconnected` if it were asked meanwhile.
        ("fails-slowly", "the VMM ended at once (exit 1)", "no memory could be had"),
        ("dies-later", "the VMM ended at once (exit 148)", "it began"),
        ("400", "Firecracker answers 400 to GET /", "the fault of a test"),
        ("500", "Firecracker answers 500 to GET /", ""),
    ] {
        let machine = Machine::firecracker(mode);
        let e = machine.fails();
        assert_eq!((e.code(), e.message()), (Code::VmmFailed, "cannot start the VM `dev`"), "{mode}");
        assert_eq!(e.causes()[0], cause, "{mode}: {e:?}");
        assert!(e.causes().get(1).map_or("", String::as_str).contains(detail), "{mode}: {e:?}");
        assert!(e.get_hint().unwrap().contains("shim.log"), "{mode}: {e:?}");
    }
}

#[test]
fn its_own_lines_are_in_the_log_and_the_console_has_the_guests_alone() {
    for mode in ["runs", "builds-slowly"] {
        let machine = Machine::firecracker(mode);
        let state = machine.run();
        until("the console has the guest's words", || machine.read("console.log").contains("run 1 of the guest"));
        vmm::end(&machine.file(RUN)).unwrap();
        machine.exit(&state);
        assert_eq!(machine.read("console.log"), "run 1 of the guest\r\n", "{mode}");
        assert!(machine.read("shim.log").contains(":main:WARN] it began"), "{}", machine.read("shim.log"));
    }
}

#[test]
fn every_wait_has_an_end_in_proportion_to_the_time_of_a_boot() {
    for (mode, detail) in [
        ("mute", "no line of metrics came"),
        ("hangs", "no answer came in time"),
        ("partly", "bytes of its reply"),
        ("nonsense", "not HTTP"),
        ("not-started", ""),
    ] {
        let mut machine = Machine::firecracker(mode);
        machine.boot_timeout = Duration::from_secs(1);
        let begun = Instant::now();
        let e = machine.fails();
        assert!(begun.elapsed() < Duration::from_secs(10), "{mode}: {:?}", begun.elapsed());
        assert_eq!(e.code(), Code::TimedOut, "{mode}: {e:?}");
        assert!(e.causes()[0].contains("does not run after "), "{mode}: {e:?}");
        assert!(e.causes().concat().contains(detail), "{mode}: {e:?}");
    }
    let machine = Machine::firecracker("late");
    let state = machine.run();
    vmm::end(&machine.file(RUN)).unwrap();
    machine.exit(&state);
}

#[test]
fn each_configuration_is_one_that_the_documented_api_takes() {
    type Change = fn(&mut Launch);
    let changes: [(&str, Change); 4] = [
        ("1.10.0", |_| ()),
        ("1.16.3", |launch| launch.vcpu = 32),
        ("1.17.0-dev", |launch| launch.memory_mib = 4 << 20),
        ("1.99.0", |launch| launch.disks.push(LaunchDisk { path: launch.kernel.clone(), read_only: true })),
    ];
    for (version, change) in changes {
        let machine = Machine::firecracker("runs");
        std::fs::write(machine.file("version"), version).unwrap();
        let mut launch = Launch { vmm_version: Some(version.into()), ..machine.launch() };
        change(&mut launch);
        let shim = Path::new(crate::support::launched::SHIM);
        let started = vmm::start(&launch, &identity(), shim, &mut Stages::new("bg-test", None));
        let started = started.unwrap_or_else(|e| panic!("{version}: {e:?}"));
        let config = configuration(&machine);
        assert_eq!(config["metrics"].get("emit_id").is_some(), version >= "1.17");
        drop(started);
    }
}

#[test]
fn what_the_api_does_not_take_is_quoted_with_its_place() {
    type Change = fn(&mut Launch);
    let changes: [(&str, Change); 5] = [
        ("`/machine-config/vcpu_count` may not be 33", |launch| launch.vcpu = 33),
        ("Cannot create a guest memory of 1 MiB", |launch| launch.memory_mib = 1),
        ("is not an ELF file", |launch| launch.kernel = launch.initrd.clone()),
        ("is no file", |launch| launch.disks[0].path = launch.exit_file.clone()),
        ("Firecracker 1.9.0 is too old", |launch| launch.vmm_version = Some("1.9.0".into())),
    ];
    for (why, change) in changes {
        let machine = Machine::firecracker("runs");
        std::fs::remove_file(machine.file("exit.json")).unwrap();
        let mut launch = machine.launch();
        change(&mut launch);
        let shim = Path::new(crate::support::launched::SHIM);
        let e = vmm::start(&launch, &identity(), shim, &mut Stages::new("bg-test", None)).unwrap_err();
        assert!(e.causes().iter().any(|c| c.contains(why)), "{why}: {e:?}");
        machine.assert_nothing_is_left();
    }
}

#[test]
fn a_guest_whose_agent_is_silent_ends_by_its_keys() {
    let machine = Machine::firecracker("runs");
    let state = machine.run();
    let api = machine.file(RUN).join("api.sock");
    let soon = || Instant::now() + Duration::from_secs(10);
    vmm::press_ctrl_alt_del(&api, soon()).unwrap();
    let exit = machine.exit(&state);
    assert_eq!((exit.reason.as_str(), exit.reboots), ("poweroff", 0), "that reset was its end: {exit:?}");
    let machine = Machine::firecracker("keys-400");
    let state = machine.run();
    let e = vmm::press_ctrl_alt_del(&machine.file(RUN).join("api.sock"), soon()).unwrap_err();
    assert!(e.message().contains("answers 400 to PUT /actions") && e.causes()[0].contains("no keyboard"), "{e:?}");
    vmm::end(&machine.file(RUN)).unwrap();
    machine.exit(&state);
}

/// A store with the image `debian` and the VM `dev`, on a Firecracker that behaves as `mode` says.
struct World {
    sandbox: Sandbox,
}

impl World {
    fn new(mode: &str) -> Self {
        let sandbox = Sandbox::new();
        fixture::register(&sandbox, "debian");
        std::fs::create_dir(sandbox.path("fake")).unwrap();
        std::fs::copy(fake_firecracker(), sandbox.path("fake/firecracker")).unwrap();
        std::fs::write(sandbox.path("fake/mode"), mode).unwrap();
        let world = World { sandbox };
        world.vm(&["create", "dev", "--no-start", "--work-size", "16M", "--vmm", "firecracker"]).ok();
        world
    }

    fn vm(&self, args: &[&str]) -> crate::support::Done {
        let mut command = self.sandbox.command("bg-vm", args);
        command.env("BG_FIRECRACKER", self.sandbox.path("fake/firecracker"));
        finish(command.spawn().unwrap(), b"")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.vm(&["rm", "--force", "dev"]);
    }
}

#[test]
fn a_creation_that_fails_names_no_file_that_it_has_removed() {
    let world = World::new("fails-slowly");
    let failed =
        world.vm(&["create", "new", "--work-size", "16M", "--vmm", "firecracker"]).failed_with(Code::VmmFailed);
    let hint = failed.hint.clone().unwrap();
    assert!(failed.causes.concat().contains("no memory could be had"), "{failed:?}");
    assert!(hint.contains("`bg-vm create new --no-start && bg-vm start new`") && !hint.contains("shim.log"), "{hint}");
    assert!(failed.details.get("log").is_none(), "{failed:?}");
    // The VM that was there before keeps its log.
    let failed = world.vm(&["start", "dev"]).failed_with(Code::VmmFailed);
    let hint = failed.hint.unwrap();
    let log = hint.split_whitespace().find(|word| word.ends_with("shim.log")).unwrap_or_else(|| panic!("{hint}"));
    assert!(std::fs::read_to_string(log).unwrap().contains("no memory could be had"));
}

#[test]
fn the_verbs_are_the_same_and_what_was_named_is_used() {
    let world = World::new("agent");
    let started = world.vm(&["start", "dev"]);
    let vmm = started.json()["vmm"].take();
    assert_eq!((&vmm["kind"], &vmm["accel"]), (&"firecracker".into(), &"kvm".into()), "{vmm}");
    let why = vmm["chosen_because"].as_str().unwrap();
    assert!(why.contains("was asked for") && why.contains("Firecracker 1.10.1 is /"), "{why}");
    assert_eq!(why.contains("unusable"), started.stderr.contains("warning: Firecracker was asked for"), "{started:?}");
    let (api, vsock) = (vmm["api"].as_str().unwrap(), Path::new(vmm["vsock"].as_str().unwrap()));
    assert!(api.ends_with("/api.sock") && Path::new(api).exists());
    until("the guest is up", || vsock.exists());
    // Its answer is no health, but an answer.
    assert!(http::get_health(vsock, Duration::from_secs(5)).is_err());
    let stopped = world.vm(&["stop", "dev"]);
    assert_eq!(stopped.json()["status"]["exit"]["reason"], "poweroff", "{stopped:?}");
    assert!(!stopped.stderr.contains("Ctrl"), "the agent comes first: {stopped:?}");
    assert!(world.sandbox.findings(&["--now"]).is_empty());

    std::fs::write(world.sandbox.path("fake/mode"), "runs").unwrap();
    world.vm(&["start", "dev"]).ok();
    let stopped = world.vm(&["stop", "dev"]);
    assert_eq!(stopped.json()["status"]["exit"]["reason"], "poweroff", "{stopped:?}");
    assert!(stopped.stderr.contains("Ctrl+Alt+Del was pressed"), "{stopped:?}");

    std::fs::write(world.sandbox.path("fake/mode"), "stays").unwrap();
    world.vm(&["start", "dev"]).ok();
    let stopped = world.vm(&["stop", "dev", "--timeout", "0.2"]);
    assert_eq!(stopped.json()["status"]["exit"]["reason"], "killed", "{stopped:?}");

    std::fs::write(world.sandbox.path("fake/version"), "1.4.0").unwrap();
    let refused = world.vm(&["start", "dev"]).failed_with(Code::VmmFailed);
    assert!(refused.causes.concat().contains("1.4.0 is too old"), "{refused:?}");
    std::fs::remove_file(world.sandbox.path("fake/firecracker")).unwrap();
    world.vm(&["start", "dev"]).failed_with(Code::MissingProgram);
}

/// A script beside the Firecracker that pretends, as `BG_FIRECRACKER`.
fn script(world: &World, line: &str) -> std::path::PathBuf {
    let (dir, path) = (world.sandbox.path("fake"), world.sandbox.path("fake/script"));
    std::fs::write(
        &path,
        format!("#!/bin/sh\n{}\n", line.replace("VMM", &dir.join("firecracker").display().to_string())),
    )
    .unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// The processes that run the Firecracker of that world.
fn firecrackers(world: &World) -> usize {
    let program = world.sandbox.path("fake/firecracker");
    let pids = lib_common::sys::process::all_pids().unwrap();
    pids.into_iter().filter(|pid| lib_common::sys::process::executable(*pid).as_ref() == Some(&program)).count()
}

#[test]
fn a_script_that_starts_firecracker_and_waits_is_refused_with_what_it_started() {
    for line in ["VMM \"$@\"\nexit $?", "setsid --wait VMM \"$@\"\nexit $?"] {
        let world = World::new("runs");
        let path = script(&world, line);
        let vm = |args: &[&str]| {
            let mut command = world.sandbox.command("bg-vm", args);
            finish(command.env("BG_FIRECRACKER", &path).spawn().unwrap(), b"")
        };
        let refused = vm(&["start", "dev"]).failed_with(Code::VmmFailed);
        assert!(refused.causes.concat().contains("fake/script started the VMM as another process"), "{refused:?}");
        assert!(refused.hint.unwrap().contains("begin its last line with exec"), "{line}");
        until("what it started has ended", || firecrackers(&world) == 0);
        assert_eq!(world.vm(&["show", "dev"]).json()["status"]["state"], "stopped", "{line}");
        world.vm(&["start", "dev"]).ok();
        assert_eq!(firecrackers(&world), 1);
    }
}

#[test]
fn a_script_that_becomes_firecracker_is_recorded_as_firecracker() {
    let world = World::new("runs");
    let path = script(&world, "[ \"$1\" = --version ] || sleep 1000 &\nexec VMM \"$@\"");
    let mut command = world.sandbox.command("bg-vm", &["start", "dev"]);
    let vmm = finish(command.env("BG_FIRECRACKER", &path).spawn().unwrap(), b"").json()["vmm"].take();
    assert_eq!(vmm["exe"], world.sandbox.path("fake/firecracker").display().to_string().as_str(), "{vmm}");
    let shown = world.vm(&["show", "dev"]).json()["vmm"].take();
    assert_eq!((&shown["exe"], &shown["pid"]), (&vmm["exe"], &vmm["pid"]));
    assert!(world.sandbox.findings(&["--now"]).is_empty());
    // What the script left beside it has the VM's lock, too, and ends with it.
    world.vm(&["kill", "dev"]).ok();
    assert_eq!(
        (firecrackers(&world), world.vm(&["show", "dev"]).json()["status"]["state"].as_str()),
        (0, Some("stopped"))
    );
    world.vm(&["rm", "dev"]).ok();
}
