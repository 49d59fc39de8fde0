//! What Firecracker's API takes and gives, as far as it is used: the names, types and meanings are those of its
//! specification (firecracker.yaml). What is sent is strict; a reply of a later version may say more.

use lib_common::doc::{AbsPath, Mac};
use serde::{Deserialize, Serialize};

/// `FullVmConfiguration`: the file that `--config-file` names.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::vmm) struct Configuration {
    /// What is booted.
    pub boot_source: BootSource,
    /// The disks, in the guest's order.
    pub drives: Vec<Drive>,
    /// Processors and memory.
    pub machine_config: MachineConfiguration,
    /// The network cards.
    pub network_interfaces: Vec<NetworkInterface>,
    /// The vsock device.
    pub vsock: Vsock,
    /// The source of random numbers.
    pub entropy: EntropyDevice,
    /// Where the metrics go.
    pub metrics: Metrics,
}

/// `BootSource`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::vmm) struct BootSource {
    /// The kernel on the host: an ELF file on x86_64, an Image on aarch64.
    pub kernel_image_path: AbsPath,
    /// The initrd on the host.
    pub initrd_path: AbsPath,
    /// The kernel's command line. With it Firecracker's own defaults are dropped; what it appends to it are its devices and
    /// `pci=off`.
    pub boot_args: String,
}

/// `Drive`, of virtio-block.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::vmm) struct Drive {
    /// Its id in the API.
    pub drive_id: String,
    /// The file on the host.
    pub path_on_host: AbsPath,
    /// Whether Firecracker appends `root=/dev/vda` to the command line and puts the disk first.
    pub is_root_device: bool,
    /// Whether the guest may not write to it.
    pub is_read_only: bool,
    /// What a guest's flush means.
    pub cache_type: CacheType,
}

/// `Drive.cache_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(in crate::vmm) enum CacheType {
    /// A guest's flush is an fsync of the file. (The default, `Unsafe`, ignores it.)
    Writeback,
}

/// `MachineConfiguration`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::vmm) struct MachineConfiguration {
    /// Virtual processors, 1 to 32.
    pub vcpu_count: u32,
    /// Memory in MiB.
    pub mem_size_mib: u64,
    /// Whether two processors share a core. With it their number has to be even or 1.
    pub smt: bool,
    /// Whether changed pages are noted, for snapshots.
    pub track_dirty_pages: bool,
}

/// `NetworkInterface`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::vmm) struct NetworkInterface {
    /// Its id in the API.
    pub iface_id: String,
    /// The guest's hardware address.
    pub guest_mac: Mac,
    /// The TAP on the host.
    pub host_dev_name: String,
}

/// `Vsock`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::vmm) struct Vsock {
    /// The guest's context id, at least 3.
    pub guest_cid: u32,
    /// The Unix socket that takes `CONNECT PORT`; what the guest connects to arrives at `uds_path_PORT`.
    pub uds_path: AbsPath,
}

/// `EntropyDevice`: as fast as the host gives.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::vmm) struct EntropyDevice {}

/// `Metrics`: a line of JSON as soon as the microVM is built, and one each minute.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::vmm) struct Metrics {
    /// A named pipe or a file.
    pub metrics_path: AbsPath,
    /// Whether each line has the id of `--id`; left out for a version that does not know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emit_id: Option<bool>,
}

/// `InstanceActionInfo`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::vmm) struct InstanceActionInfo {
    /// What is to be done.
    pub action_type: ActionType,
}

/// `InstanceActionInfo.action_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(in crate::vmm) enum ActionType {
    /// Presses these keys, on x86_64 alone; by convention a guest's init reboots then.
    SendCtrlAltDel,
}

/// `InstanceInfo`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(in crate::vmm) struct InstanceInfo {
    /// `Firecracker`.
    pub app_name: String,
    /// That of `--id`.
    pub id: String,
    /// What it does.
    pub state: InstanceState,
    /// Its version, such as `1.10.1`.
    pub vmm_version: String,
}

/// `InstanceInfo.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(in crate::vmm) enum InstanceState {
    /// The machine is not made yet.
    #[serde(rename = "Not started")]
    NotStarted,
    /// The guest's processors run.
    Running,
    /// They stand still.
    Paused,
}

/// `Error`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(in crate::vmm) struct Fault {
    /// What is wrong, in words.
    pub fault_message: String,
}
