//! Which VMM runs a guest, how it is started and ended, and the small parent that each running VM has.
//!
//! [`choose`] asks the host, [`start`] runs `bg-shim` and waits until the guest's processors run, [`end`] ends a VM
//! now. The parent itself is [`shim`]. Makes no disks, knows no records of the store, prints nothing.

pub mod bootcheck;
mod capped;
mod choose;
mod lines;
mod qemu;
mod qemu_qmp;
pub mod shim;
mod start;

pub use capped::previous as previous_log;
pub use choose::{Choice, choose, cpu_flags};
pub use start::{Programs, Started, end, lives, start, wait_end};

/// The guest's vsock context id. Each VM has a vsock device of its own, so one number serves them all.
pub const CID: u32 = 3;

/// Names in a VM's runtime directory.
pub mod files {
    /// [`crate::doc::Launch`].
    pub const LAUNCH: &str = "launch.json";
    /// [`crate::doc::Identity`]: a secret, needed again whenever the guest reboots.
    pub const IDENTITY: &str = "identity.json";
    /// [`crate::doc::ShimState`].
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
}
