//! `bg-shim` and its starter against a VMM that only pretends: who ends whom, and that nothing is ever left.

#![allow(clippy::disallowed_types, reason = "a test may start programs itself")]

use lib_common::doc::{
    AbsPath, Accel, ExitInfo, Identity, Launch, LaunchDisk, Name, ProcessDoc, SecondDisk, ShimState, VmmKind, strict,
};
use lib_common::guest::http;
use lib_common::sys::process::{ProcessId, all_pids, cmdline};
use lib_common::timing::Stages;
use lib_common::vmm::{self, Started};
use lib_common::{Code, Error, Result};
use nix::sys::signal::Signal;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SHIM: &str = env!("CARGO_BIN_EXE_bg-shim");

/// A directory with a machine's files in it, and a VMM that behaves as `mode` says.
struct Machine {
    _temp: Option<tempfile::TempDir>,
    dir: PathBuf,
}

impl Machine {
    fn new(mode: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let machine = Machine { dir: temp.path().to_owned(), _temp: Some(temp) };
        let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/fake-vmm");
        std::fs::copy(fake, machine.file("fake-vmm")).unwrap();
        std::fs::write(machine.file("mode"), mode).unwrap();
        // The header of an archive's last entry is enough of an initrd.
        std::fs::write(machine.file("initrd"), b"070701").unwrap();
        std::fs::write(machine.file("exit.json"), "of the run before").unwrap();
        machine
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn path(&self, name: &str) -> AbsPath {
        AbsPath::new(self.file(name)).unwrap()
    }

    fn launch(&self) -> Launch {
        Launch {
            machine_id: "0123456789abcdef0123456789abcdef".into(),
            name: Name::parse("dev").unwrap(),
            kind: VmmKind::Qemu,
            accel: Accel::Tcg,
            chosen_because: "it is a test".into(),
            vcpu: 1,
            memory_mib: 64,
            kernel: self.path("vmlinux"),
            initrd: self.path("initrd"),
            disks: vec![LaunchDisk { path: self.path("root.ext4"), read_only: false }],
            net: None,
            cid: vmm::CID,
            runtime_dir: self.path("0123456789ab"),
            console: self.path("console.log"),
            console_bytes: 64 << 10,
            exit_file: self.path("exit.json"),
            log: self.path("shim.log"),
            vmm_program: self.path("fake-vmm"),
            vsock_program: self.path("fake-vmm"),
        }
    }

    fn start(&self) -> Result<Started> {
        vmm::start(&self.launch(), &identity(), Path::new(SHIM), &mut Stages::new("bg-test", false))
    }

    /// Starts and keeps it.
    fn run(&self) -> ShimState {
        let started = self.start().unwrap_or_else(|e| panic!("{e}: {:?}\n{}", e.causes(), self.read("shim.log")));
        let state = started.state().clone();
        started.keep().unwrap();
        std::fs::write(self.file("go"), "").unwrap();
        state
    }

    fn fails(&self) -> Error {
        let e = self.start().unwrap_err();
        self.assert_nothing_is_left();
        assert_eq!(self.read("exit.json"), "of the run before", "a start that failed was no run");
        e
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    fn state(&self) -> Option<ShimState> {
        strict(&self.read("0123456789ab/shim.json")).ok()
    }

    fn exit(&self, state: &ShimState) -> ExitInfo {
        assert!(vmm::wait_end(state, Duration::from_secs(20)).unwrap(), "it did not end: {}", self.read("shim.log"));
        self.assert_nothing_is_left();
        strict(&self.read("exit.json")).unwrap()
    }

    /// Every process of this VM has this directory in its arguments.
    fn processes(&self) -> Vec<String> {
        let dir = self.dir.to_str().unwrap();
        let of_vm = |args: &String| args.contains(dir) && !args.contains("--ignored");
        all_pids().unwrap().into_iter().map(|pid| cmdline(pid).join(" ")).filter(of_vm).collect()
    }

    fn assert_nothing_is_left(&self) {
        assert_eq!(self.processes(), Vec::<String>::new(), "{}", self.read("shim.log"));
        assert!(!self.file("0123456789ab").exists(), "the runtime directory is still there");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A test that failed must not leave a VM to the next.
        let _ = vmm::end(&self.file("0123456789ab"));
    }
}

fn identity() -> Identity {
    Identity {
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        hostname: "dev".into(),
        authorized_keys: vec![],
        host_key: "a secret".into(),
        host_key_public: "ssh-ed25519 AAAA".into(),
        second_disk: SecondDisk::Work,
        proxy_port: None,
        net: None,
        hosts: vec![],
    }
}

/// Waits for what another process brings about.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn kill(process: &ProcessDoc) {
    ProcessId::from(process.clone()).open().unwrap().unwrap().signal(Signal::SIGKILL).unwrap();
}

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
    let stages = &mut Stages::new("bg-test", false);
    let e = vmm::start(&machine.launch(), &identity(), Path::new("/nowhere/bg-shim"), stages).unwrap_err();
    assert_eq!(e.code(), Code::MissingProgram);
    machine.assert_nothing_is_left();
}

/// Not a test: the starter that the next test kills.
#[test]
#[ignore = "it is run by another test"]
fn starter_to_be_killed() {
    let machine = Machine { dir: std::env::var("MACHINE").unwrap().into(), _temp: None };
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
