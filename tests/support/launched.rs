//! A VM for `bg-shim` and its starter, on a VMM that only pretends.

use lib_common::doc::{
    AbsPath, Accel, ExitInfo, Identity, KernelArgs, Launch, LaunchDisk, Name, ProcessDoc, SecondDisk, ShimState,
    VmmKind, strict,
};
use lib_common::sys::process::{ProcessId, all_pids, cmdline};
use lib_common::timing::Stages;
use lib_common::{Error, Result};
use lib_machine::vmm::{self, Started};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The shim.
pub const SHIM: &str = env!("CARGO_BIN_EXE_bg-shim");

/// The Firecracker that runs no guest.
pub fn fake_firecracker() -> PathBuf {
    let path = Path::new(SHIM).with_file_name("examples/fake-firecracker");
    assert!(path.is_file(), "{} is an example: `cargo test` without --test builds it", path.display());
    path
}

/// A directory with a machine's files in it, and a VMM that behaves as `mode` says.
pub struct Machine {
    _temp: Option<tempfile::TempDir>,
    pub dir: PathBuf,
    kind: VmmKind,
    /// How long a boot may take: what the VMM may take is half of that.
    pub boot_timeout: Duration,
}

impl Machine {
    /// On a QEMU.
    pub fn new(mode: &str) -> Self {
        let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/fake-vmm");
        Machine::with(VmmKind::Qemu, &fake, mode)
    }

    /// On a Firecracker.
    pub fn firecracker(mode: &str) -> Self {
        Machine::with(VmmKind::Firecracker, &fake_firecracker(), mode)
    }

    /// One that another process has made.
    pub fn at(dir: PathBuf) -> Self {
        let kind = if dir.join("root.ext4").exists() { VmmKind::Firecracker } else { VmmKind::Qemu };
        Machine { dir, _temp: None, kind, boot_timeout: Duration::from_secs(60) }
    }

    fn with(kind: VmmKind, fake: &Path, mode: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let boot_timeout = Duration::from_secs(60);
        let machine = Machine { dir: temp.path().to_owned(), _temp: Some(temp), kind, boot_timeout };
        std::fs::copy(fake, machine.file("fake-vmm")).unwrap();
        std::fs::write(machine.file("mode"), mode).unwrap();
        // The header of an archive's last entry is enough of an initrd.
        std::fs::write(machine.file("initrd"), b"070701").unwrap();
        std::fs::write(machine.file("exit.json"), "of the run before").unwrap();
        if kind == VmmKind::Firecracker {
            std::fs::write(machine.file("vmlinux"), b"\x7fELF").unwrap();
            std::fs::write(machine.file("root.ext4"), "").unwrap();
        }
        machine
    }

    /// A file in its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn path(&self, name: &str) -> AbsPath {
        AbsPath::new(self.file(name)).unwrap()
    }

    /// How it is started.
    pub fn launch(&self) -> Launch {
        Launch {
            machine_id: "0123456789abcdef0123456789abcdef".into(),
            name: Name::parse("dev").unwrap(),
            kind: self.kind,
            accel: Accel::Tcg,
            chosen_because: "it is a test".into(),
            vcpu: 1,
            memory_mib: 64,
            kernel: self.path("vmlinux"),
            initrd: self.path("initrd"),
            disks: vec![LaunchDisk { path: self.path("root.ext4"), read_only: false }],
            cid: vmm::CID,
            runtime_dir: self.path("0123456789ab"),
            console: self.path("console.log"),
            console_bytes: 64 << 10,
            exit_file: self.path("exit.json"),
            log: self.path("shim.log"),
            vmm_program: self.path("fake-vmm"),
            vmm_version: (self.kind == VmmKind::Firecracker).then(|| "1.10.1".into()),
            vsock_program: (self.kind == VmmKind::Qemu).then(|| self.path("fake-vmm")),
            kernel_args: KernelArgs::parse("panic=7").unwrap(),
            boot_timeout_ms: self.boot_timeout.as_millis().try_into().unwrap(),
            net: None,
        }
    }

    /// Starts it.
    pub fn start(&self) -> Result<Started> {
        vmm::start(&self.launch(), &identity(), Path::new(SHIM), &mut Stages::new("bg-test", None))
    }

    /// Starts and keeps it.
    pub fn run(&self) -> ShimState {
        let started = self.start().unwrap_or_else(|e| panic!("{e}: {:?}\n{}", e.causes(), self.read("shim.log")));
        let state = started.state().clone();
        started.keep().unwrap();
        std::fs::write(self.file("go"), "").unwrap();
        state
    }

    /// It must not start, and nothing may be left.
    pub fn fails(&self) -> Error {
        let e = self.start().unwrap_err();
        self.assert_nothing_is_left();
        assert_eq!(self.read("exit.json"), "of the run before", "a start that failed was no run");
        e
    }

    /// A file as text; empty where it is missing.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    /// What the shim says of its processes.
    pub fn state(&self) -> Option<ShimState> {
        strict(&self.read("0123456789ab/shim.json")).ok()
    }

    /// Waits for its end; nothing may be left.
    pub fn exit(&self, state: &ShimState) -> ExitInfo {
        assert!(vmm::wait_end(state, Duration::from_secs(20)).unwrap(), "it did not end: {}", self.read("shim.log"));
        self.assert_nothing_is_left();
        strict(&self.read("exit.json")).unwrap()
    }

    /// Every process of this VM has this directory in its arguments.
    pub fn processes(&self) -> Vec<String> {
        let dir = self.dir.to_str().unwrap();
        let of_vm = |args: &String| args.contains(dir) && !args.contains("--ignored");
        all_pids().unwrap().into_iter().map(|pid| cmdline(pid).unwrap().join(" ")).filter(of_vm).collect()
    }

    /// Neither processes nor the runtime directory.
    pub fn assert_nothing_is_left(&self) {
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

/// A guest's identity.
pub fn identity() -> Identity {
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
        configure: false,
    }
}

/// Waits for what another process brings about.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Ends a process as if it had crashed.
pub fn kill(process: &ProcessDoc) {
    ProcessId::from(process.clone()).open().unwrap().unwrap().signal(Signal::SIGKILL).unwrap();
}
