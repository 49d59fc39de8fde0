//! The configure boot: the scripts that the packages of a root file system bring, run in it once, before it is ever booted
//! for good. Each one's end is told to the host as it comes, and after the first that fails nothing more runs.

mod scripts;

use super::{NEW_ROOT, console, mounts};
use crate::host;
use lib_common::doc::{
    CONFIGURE_DIR, CONFIGURE_OUTPUT, CONFIGURE_PORT, ConfigureAction, ConfigureDone, ConfigureLine, to_json,
};
use lib_common::error::{Context, Result};
use lib_common::sys::guest_program::{self, Ended, Program};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::wait;
use nix::unistd::{Pid, sync};
use scripts::{Script, Scripts};
use std::fs::Permissions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;
use vsock::VsockStream;

/// The host begins to listen when the VM runs.
const HOST_WITHIN: Duration = Duration::from_secs(20);

/// It answers as soon as it has read a line.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// In `/dev`, as every init makes them.
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Runs the scripts of the root file system, which is mounted. When it returns, nothing of that will change any more.
///
/// # Errors
/// What keeps them from being run, or the host from being told. A script that fails is none.
pub fn run() -> Result<()> {
    let root = Path::new(NEW_ROOT);
    mounts::kernel_file_systems(NEW_ROOT)?;
    prepare(root).context("cannot prepare the root file system")?;
    let scripts = Scripts::read(root).context("cannot read the list of the packages' scripts")?;
    let mut host = host::connect(CONFIGURE_PORT, HOST_WITHIN, |_| true).context("cannot connect to the host")?;
    host.set_read_timeout(Some(ANSWERS_WITHIN))?;
    let all_well = scripts.run(
        &mut |script, action| {
            let (action_name, Script { package, version, .. }) = (action.as_str(), script);
            console::say(&format!("banger-init: configuring {package} {version} ({action_name})"));
            run_one(root, script, action, scripts.epoch.as_deref())
        },
        &mut |line| tell(&mut host, &line),
    )?;
    if all_well {
        let dir = below(root, CONFIGURE_DIR);
        fs_err::remove_dir_all(&dir)?;
        // Where packages have something beside it, that stays.
        let _ = dir.parent().map(fs_err::remove_dir);
    }
    end_processes();
    sync();
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, root, None::<&str>, read_only, None::<&str>)
        .context("cannot make the root file system read-only")?;
    if all_well { tell(&mut host, &ConfigureLine::Done(ConfigureDone { done: true })) } else { Ok(()) }
}

/// What any program may expect of a system.
fn prepare(root: &Path) -> Result<()> {
    for (name, target) in LINKS {
        match symlink(target, root.join("dev").join(name)) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e.into()),
            _ => {}
        }
    }
    let tmp = root.join("tmp");
    fs_err::create_dir_all(&tmp)?;
    Ok(fs_err::set_permissions(tmp, Permissions::from_mode(0o1777))?)
}

fn run_one(root: &Path, script: &Script, action: ConfigureAction, epoch: Option<&str>) -> std::io::Result<Ended> {
    let argv = script.argv(action);
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let env = scripts::environment(epoch);
    guest_program::run(&Program { root: Some(root), argv: &argv, env: &env, within: None }, CONFIGURE_OUTPUT)
}

/// When it returns, the host has it.
fn tell(host: &mut VsockStream, line: &ConfigureLine) -> Result<()> {
    let mut answer = [0];
    host.write_all(format!("{}\n", to_json(line)).as_bytes())
        .and_then(|()| host.read_exact(&mut answer))
        .context("cannot tell the host")
}

/// A path of the guest in its root.
fn below(root: &Path, path: &str) -> std::path::PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Ends whatever a script has left: it could still write. They are all our children by now, or their children.
fn end_processes() {
    // To process 1 this means every other process.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    while matches!(wait(), Ok(_) | Err(Errno::EINTR)) {}
}
