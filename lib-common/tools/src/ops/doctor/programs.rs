//! The programs that the suite starts: whether they are there, run, and are new enough.

use super::Caller;
use super::version::{FIRECRACKER_GOOD, FIRECRACKER_MIN, Version, firecracker_faults};
use lib_common::doc::{Check, VmmKind};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::Cmd;
use lib_common::sys::{program, signal};
use lib_image::build::debian::bootstrap;
use lib_image::disk::ext4;
use lib_machine::config::Config;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a program may take to say its version: a busy host's QEMU takes a second.
const WITHIN: Duration = Duration::from_secs(20);

/// The one that runs VMs on the machines on which anything does.
const QEMU: &str = "qemu-system-x86_64";

/// The first release of e2fsprogs whose mke2fs makes a file system of a tar.
const E2FSPROGS_MIN: Version = Version(1, 47, 1);

/// A program that is there, and what it says, or why it does not.
#[derive(Debug)]
pub(super) struct Found {
    pub path: PathBuf,
    pub said: Result<String, String>,
}

/// A program, or the error that says how to install it.
pub(super) type Lookup = Result<Found, Error>;

#[derive(Debug)]
pub(super) struct Facts {
    pub qemu: Lookup,
    /// The machines that QEMU knows.
    pub machines: String,
    pub vsock: Lookup,
    /// Whether /dev/vhost-vsock is there.
    pub vhost_vsock: bool,
    pub firecracker: Option<Found>,
    pub mke2fs: Lookup,
    /// What keeps mke2fs from reading a tar.
    pub tar: Option<String>,
    /// The others of e2fsprogs, where one is missing.
    pub e2fsprogs: Option<Error>,
    pub mmdebstrap: Lookup,
    /// What keeps this user from running mmdebstrap.
    pub user: Option<Error>,
    pub ssh: Lookup,
    /// `bg-shim` and the guest agent, where one is missing.
    pub suite: Option<Error>,
}

impl Facts {
    /// # Errors
    /// The signal that came.
    pub fn look(config: &Config) -> Result<Self> {
        let qemu = match config.qemu_path() {
            Ok(path) => look_for(config, "qemu", &path)?,
            Err(e) => Err(e),
        };
        let machines = match &qemu {
            Ok(found) => said(&found.path, &["-M", "help"])?.unwrap_or_default(),
            Err(_) => String::new(),
        };
        let vsock = match config.vhost_device_vsock_path() {
            Ok(path) => look_for(config, "vhost_device_vsock", &path)?,
            Err(e) => Err(e),
        };
        let firecracker = match config.firecracker_path() {
            Ok(Some(path)) => Some(Found { said: said(&path, &["--version"])?, path }),
            Err(e) if e.code() == Code::Permission => {
                Some(Found { path: "firecracker".into(), said: Err(e.with_causes()) })
            }
            _ => None,
        };
        let others =
            ["e2fsck", "resize2fs", "debugfs"].into_iter().find_map(|name| program::find(Path::new(name)).err());
        Ok(Facts {
            qemu,
            machines,
            vsock,
            vhost_vsock: Path::new("/dev/vhost-vsock").exists(),
            firecracker,
            mke2fs: look(Path::new("mke2fs"), &["-V"])?,
            tar: answer(ext4::probe())?.err(),
            e2fsprogs: others,
            mmdebstrap: look(Path::new("mmdebstrap"), &["--version"])?,
            user: bootstrap::check_user().err(),
            ssh: look(Path::new("ssh"), &["-V"])?,
            suite: config.tool("bg-shim").and_then(|_| config.agent_path()).err(),
        })
    }
}

/// The program that a setting may name, and what it says.
fn look_for(config: &Config, key: &str, program: &Path) -> Result<Lookup> {
    match config.find_program(key, program) {
        Ok(path) => look(&path, &["--version"]),
        Err(e) => Ok(Err(e)),
    }
}

/// The program, and what it says.
pub(super) fn look(program: &Path, args: &[&str]) -> Result<Lookup> {
    match program::find(program) {
        Ok(path) => Ok(Ok(Found { said: said(&path, args)?, path })),
        Err(e) => Ok(Err(e)),
    }
}

fn said(program: &Path, args: &[&str]) -> Result<Result<String, String>> {
    answer(Cmd::new(program).args(args).env("LC_ALL", "C").said(WITHIN))
}

/// A failure is an answer, unless a signal to us is why.
fn answer<T>(result: Result<T>) -> Result<Result<T, String>> {
    signal::check()?;
    Ok(result.map_err(|e| e.with_causes()))
}

/// `vmm`: what VMs run on.
pub(super) fn checks(facts: &Facts, vmm: VmmKind, caller: &Caller) -> Vec<Check> {
    vec![
        for_qemu(qemu(facts, caller), vmm),
        for_qemu(vsock(facts, caller), vmm),
        firecracker(facts.firecracker.as_ref(), caller),
        e2fsprogs(facts, caller),
        mmdebstrap(facts, caller),
        plain("ssh", "ssh", &facts.ssh, caller),
        suite(facts),
    ]
}

/// What only QEMU needs, which nobody misses where it is not used.
fn for_qemu(check: Check, vmm: VmmKind) -> Check {
    match vmm {
        VmmKind::Firecracker if !check.ok => {
            let message = format!("{}; VMs run on Firecracker", check.message);
            Check::could_be_better(&check.name, message, check.fix.unwrap_or_default())
        }
        _ => check,
    }
}

/// How to install what is missing, as this caller has to type it.
fn install(e: &Error, caller: &Caller) -> String {
    let hint = e.get_hint().map_or_else(|| program::pipeline("setup"), str::to_owned);
    if hint.starts_with("apt-get ") || hint.starts_with("usermod ") { caller.sudo(&hint) } else { hint }
}

/// How to install anew what is there and does not work.
fn repair(program: &str, caller: &Caller) -> String {
    install(&program::missing(Path::new(program)), caller)
}

/// One that has to be there and to run. `usual`: its name, whatever its path is here.
pub(super) fn plain(name: &str, usual: &str, lookup: &Lookup, caller: &Caller) -> Check {
    match lookup {
        Err(e) => Check::new(name, false, e.message(), &install(e, caller)),
        Ok(Found { path, said: Err(why) }) => {
            Check::new(name, false, format!("{} does not run: {why}", path.display()), &repair(usual, caller))
        }
        Ok(Found { path, said: Ok(said) }) => Check::new(name, true, described(path, said), ""),
    }
}

/// A program with its version, if that can be read.
fn described(path: &Path, said: &str) -> String {
    // Behind a comma ssh says the version of OpenSSL.
    match Version::find(said.split(',').next().unwrap_or_default()) {
        Some(version) => format!("{version}, {}", path.display()),
        None => path.display().to_string(),
    }
}

fn qemu(facts: &Facts, caller: &Caller) -> Check {
    let check = plain("qemu", QEMU, &facts.qemu, caller);
    match &facts.qemu {
        Ok(found) if check.ok && !facts.machines.lines().any(|line| line.starts_with("microvm ")) => {
            let message = format!("{} has no machine `microvm`", found.path.display());
            Check::new("qemu", false, message, &repair(QEMU, caller))
        }
        _ => check,
    }
}

fn vsock(facts: &Facts, caller: &Caller) -> Check {
    let check = plain("vhost_device_vsock", "vhost-device-vsock", &facts.vsock, caller);
    match (check.ok, facts.vhost_vsock) {
        (false, true) => Check {
            message: format!("{} (/dev/vhost-vsock is there, but is not used instead)", check.message),
            ..check
        },
        (false, false) => Check { message: format!("{} (nor is there a /dev/vhost-vsock)", check.message), ..check },
        (true, _) => check,
    }
}

/// No VM needs it: without it they run on QEMU.
pub(super) fn firecracker(found: Option<&Found>, caller: &Caller) -> Check {
    let better = |message: String| Check::could_be_better("firecracker", message, newest(caller));
    let Some(Found { path, said }) = found else {
        return better("firecracker is not installed, and VMs run on QEMU".into());
    };
    let shown = path.display();
    let said = match said {
        Ok(said) => said,
        Err(why) => return better(format!("{shown} does not run, and VMs run on QEMU: {why}")),
    };
    let Some(version) = Version::find(said) else {
        return better(format!("{shown} does not say its version, so it cannot be judged"));
    };
    if version < FIRECRACKER_MIN {
        return better(format!("{shown} is {version}, and {FIRECRACKER_MIN} is the oldest that can be used"));
    }
    match firecracker_faults(version).as_slice() {
        [] => Check::new("firecracker", true, format!("{version}, {shown}"), ""),
        faults => better(format!("{shown} is {version}, a release that is known to be bad: {}", faults.join("; "))),
    }
}

/// It is in no package of Debian.
fn newest(caller: &Caller) -> String {
    let (version, arch) = (FIRECRACKER_GOOD, std::env::consts::ARCH);
    let releases = "https://github.com/firecracker-microvm/firecracker/releases/download";
    let install = caller.sudo("install -m 755 /dev/stdin /usr/local/bin/firecracker");
    format!(
        "curl -fsSL {releases}/v{version}/firecracker-v{version}-{arch}.tgz | \
         tar -xzO release-v{version}-{arch}/firecracker-v{version}-{arch} | {install}"
    )
}

fn e2fsprogs(facts: &Facts, caller: &Caller) -> Check {
    let name = "e2fsprogs";
    let check = plain(name, "mke2fs", &facts.mke2fs, caller);
    let Ok(Found { said: Ok(said), .. }) = &facts.mke2fs else { return check };
    if let Some(e) = &facts.e2fsprogs {
        return Check::new(name, false, e.message(), &install(e, caller));
    }
    let version = Version::find(said);
    let fix = repair("mke2fs", caller);
    match (version, &facts.tar) {
        (Some(version), _) if version < E2FSPROGS_MIN => {
            let message =
                format!("mke2fs is {version}, and only from {E2FSPROGS_MIN} on it makes a file system of a tar");
            Check::new(name, false, message, &fix)
        }
        (_, Some(why)) => Check::new(name, false, format!("mke2fs cannot read a tar (libarchive): {why}"), &fix),
        (_, None) => Check { message: format!("{}, with libarchive", check.message), ..check },
    }
}

fn mmdebstrap(facts: &Facts, caller: &Caller) -> Check {
    match &facts.user {
        Some(e) => Check::new("mmdebstrap", false, e.message(), &install(e, caller)),
        None => plain("mmdebstrap", "mmdebstrap", &facts.mmdebstrap, caller),
    }
}

fn suite(facts: &Facts) -> Check {
    match &facts.suite {
        Some(e) => Check::new("suite", false, e.message(), "make build && make install"),
        None => Check::new("suite", true, "bg-shim and the guest agent are where they belong", ""),
    }
}
