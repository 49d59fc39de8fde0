//! How a guest is ended: asking its init, and, where there is none to ask, the kernel.
//!
//! A machine without ACPI's soft-off state (Firecracker's on x86) cannot power off: the kernel halts its processors, says so
//! on the console, and there the VMM's parent reads it. A reset would end the VMM too, but nobody could tell it from a reboot.

use lib_common::error::{Context, Result};
use lib_common::sys::guest_signal;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, sync};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// systemd(1), SIGNALS: SIGRTMIN+4 starts poweroff.target.
const SYSTEMD_POWEROFF: i32 = 4;

/// Asks the running init for a clean shutdown and returns at once.
///
/// # Errors
/// The init could not be asked.
pub fn shut_down() -> Result<()> {
    // sd_booted(3): this directory exists where systemd is process 1.
    if Path::new("/run/systemd/system").is_dir() {
        return guest_signal::send_realtime(1, SYSTEMD_POWEROFF).context("cannot signal systemd");
    }
    if fs_err::read_to_string("/proc/1/comm").is_ok_and(|name| name.trim() == "runit") {
        return ask_runit();
    }
    end_now();
    Ok(())
}

/// Writes everything out and ends the machine. Returns only where the kernel refuses.
pub fn end_now() {
    sync();
    let Err(errno) = reboot(RebootMode::RB_POWER_OFF);
    eprintln!("guest-agent: cannot end the machine: {}", errno.desc());
}

/// What `init 0` does, as runit-init(8) describes: the owner's execute bit of `stopit` asks for stage 3,
/// that of `reboot` chooses how it ends, and SIGCONT makes process 1 look.
fn ask_runit() -> Result<()> {
    mark("/etc/runit/reboot", 0)?;
    mark("/etc/runit/stopit", 0o100)?;
    kill(Pid::from_raw(1), Signal::SIGCONT).context("cannot signal runit")
}

/// An empty file of that mode; on Void both are symbolic links into /run, which are followed as runit-init does.
fn mark(path: &str, mode: u32) -> Result<()> {
    fs_err::OpenOptions::new().create(true).truncate(false).append(true).open(path)?;
    fs_err::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(())
}
