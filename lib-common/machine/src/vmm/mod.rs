//! Which VMM runs a guest, how it is started and ended, and the small parent that each running VM has.
//!
//! [`choose`] asks the host, [`start`] runs `bg-shim` and waits until the guest's processors run, [`end`] ends a VM
//! now. The parent itself is [`shim`]. Makes no disks, knows no records of the store, prints nothing.

pub mod bootcheck;
mod capped;
mod choose;
mod cmdline;
mod firecracker;
pub mod lines;
mod qemu;
mod qemu_qmp;
pub mod shim;
mod start;

pub use capped::previous as previous_log;
pub use choose::{Choice, Choosing, choose, cpu_flags};
pub use firecracker::Version as FirecrackerVersion;
pub use shim::{GOES_ON_WITHIN, can_go_on};
pub use start::{Programs, Started, end, end_running, start, wait_end};

use lib_common::error::Result;
use lib_common::sys::cmd::Cmd;
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::Instant;

/// The guest's vsock context id. Each VM has a vsock device of its own, so one number serves them all.
pub const CID: u32 = 3;

/// Names in a VM's runtime directory.
pub mod files {
    /// [`lib_common::doc::Launch`].
    pub const LAUNCH: &str = "launch.json";
    /// [`lib_common::doc::Identity`]: a secret, needed again whenever the guest reboots.
    pub const IDENTITY: &str = "identity.json";
    /// [`lib_common::doc::ShimState`].
    pub const STATE: &str = "shim.json";
    /// The initrd of the boot that is under way; gone once the VMM has read it.
    pub const INITRD: &str = "initrd";
    /// Takes `CONNECT PORT` for the guest's vsock; what the guest connects to arrives at `vm.vsock_PORT`. It has this
    /// name from the moment at which the guest answers, and until then that of [`VSOCK_EARLY`].
    pub const VSOCK: &str = "vm.vsock";
    /// The same before the guest has said that it is up.
    pub const VSOCK_EARLY: &str = "vm.vsock.early";
    /// Between the VMM and vhost-device-vsock.
    pub const VHOST: &str = "vhost.sock";
    /// Firecracker's API.
    pub const API: &str = "api.sock";
    /// Firecracker's configuration.
    pub const CONFIG: &str = "firecracker.json";
    /// The named pipe that Firecracker logs to.
    pub const VMM_LOG: &str = "vmm.log";
    /// The named pipe that Firecracker writes its metrics to.
    pub const METRICS_PIPE: &str = "metrics.pipe";
    /// What came out of it: a line of JSON a minute.
    pub const METRICS: &str = "metrics.ndjson";
    /// Is there from the moment at which a guest was asked to end by a reset.
    pub const ENDING: &str = "ending";
}

/// Asks the guest of a Firecracker to shut down by pressing Ctrl+Alt+Del: its init reboots, and this reboot is the VM's end.
/// For a guest whose agent cannot be asked. `api`: the socket, in the VM's runtime directory.
///
/// # Errors
/// [`lib_common::Code::VmmFailed`] where there are no such keys; those of a Firecracker that does not do it before `deadline`.
pub fn press_ctrl_alt_del(api: &Path, deadline: Instant) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(lib_common::Error::new(lib_common::Code::VmmFailed, "Firecracker has a keyboard on x86_64 only"));
    }
    std::fs::write(api.with_file_name(files::ENDING), "")?;
    firecracker::client::send_ctrl_alt_del(api, deadline)
}

/// A program that cannot outlive its parent, the shim, and after which nothing must be undone.
fn beside_its_parent(program: &Path) -> Cmd {
    Cmd::new(program).death_signal(Signal::SIGKILL)
}
