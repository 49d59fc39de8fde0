//! Processes: shims, VMMs and vsock devices of ours that no record knows. They carry the runtime directory in their
//! arguments, so they are found even when the state directory is lost.

use super::{Found, Remedy, files::known_runtime_dirs, finding};
use crate::doc::{ShimState, strict};
use crate::error::Result;
use crate::store::Store;
use crate::sys::process::{ProcessId, all_pids, boot_id, cmdline, executable, is_program, stat, ticks_to_ms};
use std::path::{Path, PathBuf};

/// The programs that a running VM is made of.
const PROGRAMS: [&str; 3] = ["bg-shim", "vhost-device-vsock", "qemu-system-"];

/// Processes that belong to this store's runtime directory and to no VM that it knows as running.
pub fn processes(store: &Store) -> Result<Vec<Found>> {
    let known = known_runtime_dirs(store)?;
    let boot_id = boot_id()?;
    let uptime = uptime_ms();
    let mut found = vec![];
    for pid in all_pids()? {
        let Some(exe) = executable(pid).filter(|exe| is_ours(exe)) else { continue };
        let args = cmdline(pid);
        let Some(dir) = args.iter().find_map(|arg| runtime_dir_in(arg, store.runtime_dir())) else { continue };
        let Some(start_time) = stat(pid).map(|s| s.start_time) else { continue };
        let process = ProcessId { pid, start_time, boot_id: boot_id.clone(), exe };
        let owner = known.iter().find(|(d, _)| *d == dir).map(|(_, name)| name.clone());
        if owner.is_some() && (belongs(&dir, &process) || starting(store, owner.as_deref())) {
            continue;
        }
        let program = process.exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let evidence = match &owner {
            Some(name) => format!("{program} is not the process that the VM `{name}` runs in"),
            None => format!("{program} runs for {}, which belongs to no VM of this store", dir.display()),
        };
        let mut f = finding("process", format!("{pid}:{start_time}"), evidence);
        f.owner = owner.unwrap_or_default();
        f.age_ms = uptime.saturating_sub(ticks_to_ms(start_time));
        found.push(Found { finding: f, remedy: Remedy::EndProcess(process) });
    }
    Ok(found)
}

fn is_ours(exe: &Path) -> bool {
    let name = exe.file_name().unwrap_or_default().to_string_lossy();
    is_program(exe, PROGRAMS[0]) || is_program(exe, PROGRAMS[1]) || name.starts_with(PROGRAMS[2])
}

/// The runtime directory `RUNTIME/ID12` that an argument names.
fn runtime_dir_in(arg: &str, runtime: &Path) -> Option<PathBuf> {
    let base = format!("{}/", runtime.display());
    let rest = &arg[arg.find(&base)? + base.len()..];
    let id: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
    (id.len() == 12).then(|| runtime.join(id))
}

/// Whether the shim's own state names this process.
fn belongs(dir: &Path, process: &ProcessId) -> bool {
    let Ok(text) = std::fs::read_to_string(dir.join("shim.json")) else { return false };
    let Ok(state) = strict::<ShimState>(&text) else { return false };
    let all = [Some(state.shim), state.vmm, state.vsock_device];
    all.into_iter().flatten().any(|p| p.pid == process.pid && p.start_time == process.start_time)
}

/// While the VM's lock is held its processes come and go.
fn starting(store: &Store, name: Option<&str>) -> bool {
    name.is_some_and(|n| crate::sys::lock::is_held(&store.machines_dir().join(n).join("lock")))
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
