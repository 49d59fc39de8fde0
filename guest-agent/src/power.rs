//! How a guest is ended: asking its init, and, where there is none to ask, the kernel.
//!
//! A machine without ACPI's soft-off state cannot power off: the kernel halts its processor and the VMM never notices
//! (Firecracker on x86). There the end is a reset, on which the VMM exits.

use lib_common::error::{Context, Result};
use lib_common::sys::guest_signal;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, sync};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// systemd(1), SIGNALS: SIGRTMIN+4 starts poweroff.target, SIGRTMIN+5 reboot.target.
const SYSTEMD_POWEROFF: i32 = 4;
const SYSTEMD_REBOOT: i32 = 5;

/// How the machine can be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    PowerOff,
    Reset,
}

/// Asks the running init for a clean shutdown and returns at once.
///
/// # Errors
/// The init could not be asked.
pub fn shut_down() -> Result<()> {
    let end = end_of_machine();
    // sd_booted(3): this directory exists where systemd is process 1.
    if Path::new("/run/systemd/system").is_dir() {
        let offset = if end == End::PowerOff { SYSTEMD_POWEROFF } else { SYSTEMD_REBOOT };
        return guest_signal::send_realtime(1, offset).context("cannot signal systemd");
    }
    if fs_err::read_to_string("/proc/1/comm").is_ok_and(|name| name.trim() == "runit") {
        return ask_runit(end);
    }
    end_now();
    Ok(())
}

/// Writes everything out and ends the machine. Returns only where the kernel refuses.
pub fn end_now() {
    sync();
    let mode = match end_of_machine() {
        End::PowerOff => RebootMode::RB_POWER_OFF,
        End::Reset => RebootMode::RB_AUTOBOOT,
    };
    let Err(errno) = reboot(mode);
    eprintln!("guest-agent: cannot end the machine: {}", errno.desc());
}

/// What `init 0` and `init 6` do, as runit-init(8) describes: the owner's execute bit of `stopit` asks for stage 3,
/// that of `reboot` chooses how it ends, and SIGCONT makes process 1 look.
fn ask_runit(end: End) -> Result<()> {
    mark("/etc/runit/reboot", if end == End::Reset { 0o100 } else { 0 })?;
    mark("/etc/runit/stopit", 0o100)?;
    kill(Pid::from_raw(1), Signal::SIGCONT).context("cannot signal runit")
}

/// An empty file of that mode; on Void both are symbolic links into /run, which are followed as runit-init does.
fn mark(path: &str, mode: u32) -> Result<()> {
    fs_err::OpenOptions::new().create(true).truncate(false).append(true).open(path)?;
    fs_err::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(())
}

/// A reset wherever soft-off is not known to work: a VMM told not to restart ends on both, but a halt ends nothing.
fn end_of_machine() -> End {
    match fs_err::read("/sys/firmware/acpi/tables/DSDT") {
        Ok(dsdt) if has_soft_off(&dsdt) => End::PowerOff,
        _ => End::Reset,
    }
}

/// Whether ACPI's differentiated system description table defines the object `\_S5_`, soft-off.
fn has_soft_off(dsdt: &[u8]) -> bool {
    dsdt.windows(4).any(|name| name == b"_S5_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_powers_off_only_where_acpi_has_soft_off() {
        assert!(has_soft_off(b"DSDT....\x08_S5_\x12"));
        assert!(!has_soft_off(b"DSDT....\x08_S4_\x12"));
        assert!(!has_soft_off(b""));
    }
}
