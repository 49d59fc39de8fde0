//! `Machine`: a VM, from its plan to its health.

use super::{AbsPath, Health, Kernel, KernelArgs, Name, Net, Rootfs, Section, Seed, Timing};
use crate::sys::fs::Copied;
use serde::{Deserialize, Serialize};

/// The whole document, for the schema and the manual; tools use [`super::Document`] and single sections.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Machine {
    /// `banger/v1`.
    pub api_version: String,
    /// `Machine`.
    pub kind: String,
    /// Its name in the store, and its host name.
    pub name: Name,
    /// 32 hexadecimal digits, new for each VM; the guest's machine-id too. By `bg-vm plan`.
    pub id: String,
    /// By `bg-vm plan`.
    pub spec: Spec,
    /// By `bg-vm plan`.
    pub image: ImageRef,
    /// By `bg-seed clone`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disks: Option<Disks>,
    /// By `bg-tap acquire`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net: Option<Net>,
    /// By `bg-vm start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    /// By `bg-vm start`; absent when the VM does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vmm: Option<Vmm>,
    /// By `bg-health`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// By every verb of `bg-vm` that prints a VM of the store: computed, never stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// By `bg-vm stats`: computed, never stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<Stats>,
    /// By every tool.
    #[serde(default)]
    pub timings: Vec<Timing>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The image's name.
    pub image: Name,
    /// Virtual processors.
    pub vcpu: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Whether it may have more memory than the host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overcommit: bool,
    /// The root disk's size; 0 is the image's own.
    pub root_bytes: u64,
    /// The work disk's size.
    pub work_bytes: u64,
    /// Whether it has a network card.
    pub net: bool,
    /// Whether the host translates its addresses.
    pub nat: bool,
    /// Which VMM.
    pub vmm: VmmChoice,
    /// Appended to the guest kernel's command line, after everything else.
    #[serde(default, skip_serializing_if = "KernelArgs::is_empty")]
    pub kernel_args: KernelArgs,
}

/// What `--vmm` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VmmChoice {
    /// What the host can do best.
    Auto,
    /// Firecracker.
    Firecracker,
    /// QEMU's microvm machine.
    Qemu,
}

/// The image as it was when the VM was planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageRef {
    /// Its name.
    pub name: Name,
    /// Its root file system.
    pub rootfs: Rootfs,
    /// Its kernel.
    pub kernel: Kernel,
    /// Its work seeds, where it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
}

/// The VM's disks, in the guest's order: `/dev/vda`, `/dev/vdb`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disks {
    /// The root file system.
    pub root: Disk,
    /// Mounted at `/root`.
    pub work: Disk,
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// A raw ext4 file.
    pub path: AbsPath,
    /// How it was made.
    pub method: CloneMethod,
    /// For a work disk: whether it is a clone of a seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_seed: Option<bool>,
}

/// How a disk was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CloneMethod {
    /// Its blocks are shared with the original until written.
    Reflink,
    /// Its data was copied, its holes were kept.
    SparseCopy,
    /// It was made anew.
    Built,
}

impl From<Copied> for CloneMethod {
    fn from(copied: Copied) -> Self {
        match copied {
            Copied::Reflink => CloneMethod::Reflink,
            Copied::Extents => CloneMethod::SparseCopy,
        }
    }
}

/// Which VMM runs the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VmmKind {
    /// Firecracker.
    Firecracker,
    /// QEMU's microvm machine.
    Qemu,
}

/// On what a guest's processors run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Accel {
    /// The host's own, by `/dev/kvm`.
    Kvm,
    /// QEMU's software emulation: 10 to 50 times slower.
    Tcg,
}

impl Accel {
    /// `kvm` or `tcg`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        }
    }
}

/// The running VMM. A process is known by pid, start time, boot id and executable together, never by a pid alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Vmm {
    /// Which one.
    pub kind: VmmKind,
    /// On what its processors run.
    pub accel: Accel,
    /// Why this one, in words.
    pub chosen_because: String,
    /// The VMM's process.
    pub pid: i32,
    /// When it started: clock ticks since the host's boot (`/proc/PID/stat`, field 22).
    pub start_time: u64,
    /// Its executable.
    pub exe: AbsPath,
    /// The process of `bg-shim`, its parent.
    pub shim_pid: i32,
    /// When that started, in the same unit.
    pub shim_start_time: u64,
    /// The host's `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The guest's vsock context id.
    pub cid: u32,
    /// The Unix socket that takes `CONNECT PORT` for the guest's vsock.
    pub vsock: AbsPath,
    /// The Unix socket of Firecracker's API; absent with QEMU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<AbsPath>,
    /// The serial console's log.
    pub console: AbsPath,
}

/// What the host knows of the guest before the first connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// Its SSH host key, `ssh-ed25519 …`.
    pub host_key: String,
    /// The user that logs in.
    pub user: String,
}

/// Whether the VM runs, computed from its lock and the process table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// In one word.
    pub state: State,
    /// How the last run ended, where it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitInfo>,
    /// Why the VM is paused, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
}

/// Why a guest's processors stand still: the VMM could not write to the file of a disk. The write waits, so nothing is lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Paused {
    /// What failed, in words: `the host's disk is full`.
    pub reason: String,
    /// The disk's file.
    pub path: AbsPath,
    /// Since when, RFC 3339 UTC.
    pub since: String,
    /// Whether the guest goes on by itself as soon as the host has room; else it waits for `bg-vm restart` or `bg-vm kill`.
    pub resumes: bool,
}

impl std::fmt::Display for Paused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.reason, self.path)
    }
}

/// A VM's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its shim and VMM live.
    Running,
    /// The same in another pid namespace, such as that of `pipelines/in-netns`: from there alone it can be stopped.
    RunningElsewhere,
    /// Its shim and VMM live, and the guest stands still, since the host could not write to one of its disks.
    Paused,
    /// It was shut down, or never started.
    Stopped,
    /// Its VMM or shim died without being asked to.
    Crashed,
    /// It has no record: its creation was not finished (`bg-verify | bg-gc` removes it), or its record was lost.
    Incomplete,
}

impl State {
    /// True if processes of the VM live, in whichever pid namespace: it can be stopped, and not started.
    pub const fn lives(self) -> bool {
        matches!(self, State::Running | State::RunningElsewhere | State::Paused)
    }

    /// As in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Running => "running",
            State::RunningElsewhere => "running_elsewhere",
            State::Paused => "paused",
            State::Stopped => "stopped",
            State::Crashed => "crashed",
            State::Incomplete => "incomplete",
        }
    }
}

/// How a run ended: the file `exit.json`, written by `bg-shim`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExitInfo {
    /// When, RFC 3339 UTC.
    pub at: String,
    /// `poweroff` (the guest's own), `killed` (by a signal that we sent), `crashed`, `launch_failed`.
    pub reason: String,
    /// The VMM's end: `exit 0`, `signal 9`.
    pub status: String,
    /// How often the guest rebooted during the run.
    pub reboots: u32,
}

/// What a VM uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stats {
    /// Processor time of VMM, vsock device and shim since their start, in milliseconds.
    pub cpu_ms: u64,
    /// Their resident memory.
    pub rss_bytes: u64,
    /// Read by the VMM, for the most part from its disks, the host's page cache included.
    pub io_read_bytes: u64,
    /// Written by the VMM, for the most part to its disks, the host's page cache included.
    pub io_write_bytes: u64,
    /// Blocks of the root disk's file on the host.
    pub root_allocated_bytes: u64,
    /// Blocks of the work disk's file on the host.
    pub work_allocated_bytes: u64,
    /// The guest's uptime by its agent; absent when it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_uptime_ms: Option<u64>,
    /// Used on the guest's root file system, by its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_root_used_bytes: Option<u64>,
    /// The size of that file system, by its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_root_total_bytes: Option<u64>,
    /// Used on the guest's work file system, by its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_work_used_bytes: Option<u64>,
    /// The size of that file system, by its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_work_total_bytes: Option<u64>,
    /// The guest's available memory, by its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_memory_available_bytes: Option<u64>,
}

macro_rules! sections {
    ($($type:ty: $name:literal by $owner:literal;)*) => { $(
        impl Section for $type {
            const NAME: &'static str = $name;
            const OWNER: &'static str = $owner;
        }
    )* };
}

sections! {
    Spec: "spec" by "bg-vm plan";
    ImageRef: "image" by "bg-vm plan";
    Disks: "disks" by "bg-seed clone";
    Vmm: "vmm" by "bg-vm start";
    Guest: "guest" by "bg-vm start";
    Health: "health" by "bg-health";
    Status: "status" by "bg-vm show";
    Stats: "stats" by "bg-vm stats";
}

impl std::str::FromStr for VmmChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(VmmChoice::Auto),
            "firecracker" => Ok(VmmChoice::Firecracker),
            "qemu" => Ok(VmmChoice::Qemu),
            _ => Err(format!("`{text}` is not a VMM; known: auto, firecracker, qemu")),
        }
    }
}
