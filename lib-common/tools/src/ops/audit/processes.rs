//! Processes: shims, VMMs and vsock devices of ours that no record knows.

use super::files::{is_of_another_store, look_at, lost, runs_elsewhere, shim_state};
use super::{Found, JUST_ENDING, Remedy, finding};
use lib_common::doc::Name;
use lib_common::error::Result;
use lib_common::sys::process::{ProcessId, ticks_to_ms};
use lib_machine::store::Store;
use lib_machine::store::processes::Seen;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Those of the processes that [`seen`] gave that belong to no VM which the store knows as running.
pub fn processes(store: &Store, seen: Vec<Seen>, known: &[(PathBuf, Name)]) -> Result<Vec<Found>> {
    let (uptime, deadline) = (uptime_ms(), Instant::now() + JUST_ENDING);
    let mut found = vec![];
    for Seen { process, parent, dir, user } in seen {
        let owner = known.iter().find(|(d, _)| *d == dir).map(|(_, name)| name.clone());
        let Some(_look) = look_at(store, owner.as_ref())? else { continue };
        if runs_elsewhere(store, &dir, owner.as_ref())?
            || owner.is_some() && belongs(&dir, &process, parent)?
            || owner.is_none() && is_of_another_store(store, &dir)?
            || ends_by(&process, deadline)
        {
            continue;
        }
        if let Some(name) = &owner
            && let Some(shim) = lost(store, name)?.map(|state| state.shim.pid)
        {
            found.extend((shim == process.pid).then(|| unreachable_vm(&dir, name, &process, uptime)));
            if shim == process.pid || shim == parent {
                continue;
            }
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

/// Whether it is the shim that its directory names, or a child of that: while a guest reboots they come and go, and none
/// outlives its shim.
fn belongs(dir: &Path, process: &ProcessId, parent: i32) -> Result<bool> {
    let Some(shim) = shim_state(dir)?.map(|s| ProcessId::from(s.shim)) else { return Ok(false) };
    let is_shim = (shim.pid, shim.start_time) == (process.pid, process.start_time);
    Ok(is_shim || parent == shim.pid && shim.is_alive()?)
}

/// It is the VM's, and nobody gets to it: damage, and no leak.
fn unreachable_vm(dir: &Path, name: &Name, shim: &ProcessId, uptime: u64) -> Found {
    let evidence =
        format!("the VM `{name}` runs, and cannot be reached: {} says nothing of it any more", dir.display());
    let mut f = finding("runtime_dir", dir.display().to_string(), evidence);
    f.owner = name.to_string();
    f.age_ms = uptime.saturating_sub(ticks_to_ms(shim.start_time));
    f.fix = format!("bg-vm restart {name}");
    Found { finding: f, remedy: Remedy::Report }
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
