//! Processes of running VMs: shims, VMMs and vsock devices. They carry their runtime directory in their arguments, so they are
//! found even where state and runtime directory are lost. Starts none.
//!
//! In another mount namespace, such as a container's, the same path is another directory: what runs there is never ours.

use lib_common::error::{Error, Result};
use lib_common::sys::process::{ProcessId, all_pids, boot_id, cmdline, executable, is_program, stat, user_of};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The programs that a running VM is made of, by their names; and VMMs, by how their names begin: a release of Firecracker
/// comes as `firecracker-v1.16.1-x86_64`.
const SHIM: &str = "bg-shim";
const PROGRAMS: [&str; 2] = [SHIM, "vhost-device-vsock"];
const VMMS: [&str; 2] = ["qemu-system-", "firecracker"];

/// A process of ours, as it was seen.
pub struct Seen {
    /// Which.
    pub process: ProcessId,
    /// Its parent's pid.
    pub parent: i32,
    /// The runtime directory that its arguments name.
    pub dir: PathBuf,
    /// Whose it is.
    pub user: u32,
}

/// All that run for VMs whose runtime directories are, or were, in `runtime`.
///
/// # Errors
/// What keeps /proc from being read.
pub fn seen(runtime: &Path) -> Result<Vec<Seen>> {
    let (boot_id, here) =
        (boot_id()?, mounts_of("self").map_err(|e| Error::io("read", Path::new("/proc/self/ns/mnt"), &e))?);
    let mut seen = vec![];
    for pid in all_pids()? {
        let Some(exe) = executable(pid).filter(|exe| is_ours(exe)) else { continue };
        let args = cmdline(pid)?;
        let Some(dir) = args.iter().find_map(|arg| runtime_dir_in(arg, runtime)) else { continue };
        // Whose namespace cannot be read is another user's, or has ended.
        if mounts_of(&pid.to_string()).ok() != Some(here) {
            continue;
        }
        let Some(stat) = stat(pid)? else { continue };
        let Some(user) = user_of(pid) else { continue };
        let process = ProcessId { pid, start_time: stat.start_time, boot_id: boot_id.clone(), exe, exe_file: None };
        seen.push(Seen { process, parent: stat.ppid, dir, user });
    }
    Ok(seen)
}

/// Those that run for one runtime directory, whether it is there or not.
///
/// # Errors
/// As those of [`seen`].
pub fn of_runtime_dir(dir: &Path) -> Result<Vec<ProcessId>> {
    let Some(runtime) = dir.parent() else { return Ok(vec![]) };
    Ok(seen(runtime)?.into_iter().filter(|seen| seen.dir == dir).map(|seen| seen.process).collect())
}

/// Whether a shim runs for a runtime directory.
///
/// # Errors
/// As those of [`seen`].
pub fn has_shim(dir: &Path) -> Result<bool> {
    Ok(of_runtime_dir(dir)?.iter().any(|process| is_program(&process.exe, SHIM)))
}

fn is_ours(exe: &Path) -> bool {
    let name = exe.file_name().unwrap_or_default().to_string_lossy();
    PROGRAMS.iter().any(|program| is_program(exe, program)) || VMMS.iter().any(|vmm| name.starts_with(vmm))
}

/// The mount namespace that a process is in, by its inode.
fn mounts_of(pid: &str) -> std::io::Result<u64> {
    std::fs::metadata(format!("/proc/{pid}/ns/mnt")).map(|meta| meta.ino())
}

/// The runtime directory `RUNTIME/ID12` that an argument names: as the whole of it, or as the value of an option in it.
fn runtime_dir_in(arg: &str, runtime: &Path) -> Option<PathBuf> {
    let base = format!("{}/", runtime.display());
    arg.match_indices(&base).find_map(|(at, _)| {
        // Behind anything else it is the end of a longer path.
        if !arg[..at].chars().next_back().is_none_or(|before| "=,:".contains(before)) {
            return None;
        }
        let id: String = arg[at + base.len()..].chars().take_while(char::is_ascii_hexdigit).collect();
        (id.len() == 12).then(|| runtime.join(id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_names_a_runtime_directory_of_this_store_only() {
        let run = Path::new("/run/banger");
        for ours in [
            "/run/banger/0123456789ab",
            "socket,id=v,path=/run/banger/0123456789ab/vhost.sock",
            "unix:/run/banger/0123456789ab/x,server",
            "/x/run/banger/0123456789ac/y,/run/banger/0123456789ab/x",
        ] {
            assert_eq!(runtime_dir_in(ours, run), Some("/run/banger/0123456789ab".into()), "{ours}");
        }
        for other in [
            "/run/banger/",
            "/run/banger2/0123456789ab/x",
            "/run/banger/0123/x",
            "/run/banger/0123456789abc/x",
            "/somewhere/else/run/banger/0123456789ab/x",
            "socket,path=/somewhere/else/run/banger/0123456789ab/x",
        ] {
            assert_eq!(runtime_dir_in(other, run), None, "{other}");
        }
    }
}
