//! What the starter of a VM and its parent process `bg-shim` tell each other. Private records, strict all the same:
//! the two may be of different versions while a suite is being replaced.

use super::{AbsPath, Accel, ErrorDoc, KernelArgs, Mac, Name, ShimState, Timing, VmmKind};
use serde::{Deserialize, Serialize};

/// `launch.json` in a VM's runtime directory: all that `bg-shim` has to know. The secrets are not in it but beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// The VM's id: 32 hexadecimal digits.
    pub machine_id: String,
    /// The VM's name.
    pub name: Name,
    /// Which VMM runs it.
    pub kind: VmmKind,
    /// On what its processors run.
    pub accel: Accel,
    /// Why this VMM and this accelerator, in words.
    pub chosen_because: String,
    /// Virtual processors.
    pub vcpu: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The kernel: an ELF file.
    pub kernel: AbsPath,
    /// The base initrd; each boot appends its identity.
    pub initrd: AbsPath,
    /// The disks in the guest's order: `/dev/vda`, `/dev/vdb`, ….
    pub disks: Vec<LaunchDisk>,
    /// The network card; a VM may have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<LaunchNet>,
    /// The guest's vsock context id.
    pub cid: u32,
    /// The directory of the sockets, of [`ShimState`] and of this file; its name is the beginning of the VM's id.
    pub runtime_dir: AbsPath,
    /// The serial console's log.
    pub console: AbsPath,
    /// At most so much of the console is kept.
    pub console_bytes: u64,
    /// Where [`super::ExitInfo`] goes when the VM has ended.
    pub exit_file: AbsPath,
    /// What the shim, the VMM and the vsock device have to say.
    pub log: AbsPath,
    /// The VMM's program.
    pub vmm_program: AbsPath,
    /// Its version, where its configuration depends on that: Firecracker's, `1.10.1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm_version: Option<String>,
    /// The program vhost-device-vsock; none for Firecracker, which has such a device itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock_program: Option<AbsPath>,
    /// Appended to the kernel's command line.
    #[serde(default, skip_serializing_if = "KernelArgs::is_empty")]
    pub kernel_args: KernelArgs,
    /// How long a guest's boot may take on this host, in milliseconds: what the VMM may take is in proportion.
    pub boot_timeout_ms: u64,
}

/// A disk of a VM that is to be started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchDisk {
    /// A raw file.
    pub path: AbsPath,
    /// Whether the guest may not write to it.
    pub read_only: bool,
}

/// The network card of a VM that is to be started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchNet {
    /// The TAP at the host's end.
    pub tap: String,
    /// The guest's hardware address.
    pub mac: Mac,
    /// Where the files of the network are: the shim gives the TAP back when the VM has ended.
    pub network_dir: AbsPath,
}

/// What `bg-shim` says to its starter, a line each: `ready` and, after the starter's `keep`, `kept`; or `failed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ShimReply {
    /// The guest's processors run. The VM is ended unless the starter answers `keep` and a line feed.
    Ready {
        /// As it is in `shim.json`.
        state: ShimState,
        /// How long the parts of the start took.
        timings: Vec<Timing>,
    },
    /// The VM lives on, and however it ends, `exit.json` will say so.
    Kept,
    /// The VM could not be started, and nothing of it is left.
    Failed(ErrorDoc),
}
