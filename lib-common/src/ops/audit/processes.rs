//! Processes: shims, VMMs and vsock devices of ours that no record knows. They carry the runtime directory in their
//! arguments, so they are found even when the state directory is lost.

use super::files::{look_at, shim_state};
use super::{Found, JUST_ENDING, Remedy, finding};
use crate::doc::Name;
use crate::error::Result;
use crate::store::Store;
use crate::sys::process::{ProcessId, all_pids, boot_id, cmdline, executable, is_program, stat, ticks_to_ms, user_of};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The programs that a running VM is made of, by their names; and VMMs, by how their names begin: a release of Firecracker
/// comes as `firecracker-v1.16.1-x86_64`.
const PROGRAMS: [&str; 2] = ["bg-shim", "vhost-device-vsock"];
const VMMS: [&str; 2] = ["qemu-system-", "firecracker"];

/// A process of ours, as it was seen.
pub struct Seen {
    process: ProcessId,
    parent: i32,
    dir: PathBuf,
    user: u32,
}

/// Those of the processes that [`seen`] gave that belong to no VM which the store knows as running.
pub fn processes(store: &Store, seen: Vec<Seen>, known: &[(PathBuf, Name)]) -> Result<Vec<Found>> {
    let (uptime, deadline) = (uptime_ms(), Instant::now() + JUST_ENDING);
    let mut found = vec![];
    for Seen { process, parent, dir, user } in seen {
        let owner = known.iter().find(|(d, _)| *d == dir).map(|(_, name)| name.clone());
        let Some(_look) = look_at(store, owner.as_ref()) else { continue };
        if owner.is_some() && belongs(&dir, &process, parent)? || ends_by(&process, deadline) {
            continue;
        }
        let program = process.exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let why = match &owner {
            Some(name) => format!("{program} is not the process that the VM `{name}` runs in"),
            None => format!("{program} runs for {}, which belongs to no VM of this store", dir.display()),
        };
        let ProcessId { start_time, boot_id, exe, .. } = &process;
        let who = format!("{}, user {user}, started {start_time} ticks into the boot {boot_id}", exe.display());
        let evidence = format!("{why} ({who})");
        let mut f = finding("process", format!("{}:{}", process.pid, process.start_time), evidence);
        f.owner = owner.map(|name| name.to_string()).unwrap_or_default();
        f.age_ms = uptime.saturating_sub(ticks_to_ms(process.start_time));
        found.push(Found { finding: f, remedy: Remedy::Process(process) });
    }
    Ok(found)
}

/// Those that run for one runtime directory, whether it is there or not.
pub fn of_runtime_dir(store: &Store, dir: &Path) -> Result<Vec<ProcessId>> {
    Ok(seen(store)?.into_iter().filter(|seen| seen.dir == dir).map(|seen| seen.process).collect())
}

/// The processes that belong to this store's runtime directory.
pub fn seen(store: &Store) -> Result<Vec<Seen>> {
    let boot_id = boot_id()?;
    let mut seen = vec![];
    for pid in all_pids()? {
        let Some(exe) = executable(pid).filter(|exe| is_ours(exe)) else { continue };
        let args = cmdline(pid);
        let Some(dir) = args.iter().find_map(|arg| runtime_dir_in(arg, store.runtime_dir())) else { continue };
        let Some(stat) = stat(pid)? else { continue };
        let Some(user) = user_of(pid) else { continue };
        let process = ProcessId { pid, start_time: stat.start_time, boot_id: boot_id.clone(), exe };
        seen.push(Seen { process, parent: stat.ppid, dir, user });
    }
    Ok(seen)
}

fn is_ours(exe: &Path) -> bool {
    let name = exe.file_name().unwrap_or_default().to_string_lossy();
    PROGRAMS.iter().any(|program| is_program(exe, program)) || VMMS.iter().any(|vmm| name.starts_with(vmm))
}

/// The runtime directory `RUNTIME/ID12` that an argument names.
fn runtime_dir_in(arg: &str, runtime: &Path) -> Option<PathBuf> {
    let base = format!("{}/", runtime.display());
    let rest = &arg[arg.find(&base)? + base.len()..];
    let id: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
    (id.len() == 12).then(|| runtime.join(id))
}

/// Whether it is the shim that its directory names, or a child of that: while a guest reboots they come and go, and none
/// outlives its shim.
fn belongs(dir: &Path, process: &ProcessId, parent: i32) -> Result<bool> {
    let Some(shim) = shim_state(dir)?.map(|s| ProcessId::from(s.shim)) else { return Ok(false) };
    let is_shim = (shim.pid, shim.start_time) == (process.pid, process.start_time);
    Ok(is_shim || parent == shim.pid && shim.is_alive()?)
}

/// Whether it has ended by then.
fn ends_by(process: &ProcessId, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    matches!(process.open().and_then(|p| p.map_or(Ok(true), |p| p.wait(left))), Ok(true))
}

fn uptime_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 = text.split(' ').next().and_then(|s| s.parse().ok()).unwrap_or(0.0);
    (seconds * 1000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_names_a_runtime_directory_of_this_store_only() {
        let run = Path::new("/run/banger");
        let found = runtime_dir_in("socket,id=v,path=/run/banger/0123456789ab/vhost.sock", run);
        assert_eq!(found, Some("/run/banger/0123456789ab".into()));
        for other in
            ["/run/banger/", "/run/banger2/0123456789ab/x", "/run/banger/0123/x", "/run/banger/0123456789abc/x"]
        {
            assert_eq!(runtime_dir_in(other, run), None, "{other}");
        }
    }
}
