//! Lines of an object's intent journal, and the shim's live state: small private records beside the documents.

use super::{AbsPath, Paused};
use crate::error::{Error, Result};
use crate::sys::process::ProcessId;
use serde::{Deserialize, Serialize};

/// One line of a journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case", deny_unknown_fields)]
pub enum JournalLine {
    /// An operation begins.
    Begin {
        /// `create`, `start`, `register`, ….
        operation: String,
        /// Who does it.
        pid: i32,
        /// When that process started, in clock ticks since boot.
        start_time: u64,
        /// During which boot of the host.
        boot_id: String,
    },
    /// A side effect comes next; this takes it back.
    Intent {
        /// How.
        undo: Undo,
    },
    /// The operation is whole: nothing is to be undone.
    Done,
    /// The operation was taken back.
    Undone,
}

/// How to take a side effect back; each is idempotent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Undo {
    /// Remove a file.
    RemoveFile {
        /// Which.
        path: AbsPath,
    },
    /// Remove the directory in which this journal lies, wherever it was renamed to; its record goes first.
    RemoveObject,
    /// End the VM whose shim keeps its state in this directory, and remove the directory.
    StopVm {
        /// The VM's runtime directory.
        runtime_dir: AbsPath,
    },
    /// Give back the TAPs that a VM has in a network.
    GiveBackTap {
        /// The directory of the network's namespace.
        network_dir: AbsPath,
        /// The VM's id.
        machine_id: String,
        /// Whether the VM's address is given up, too.
        with_address: bool,
    },
}

/// A process, known by more than its pid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessDoc {
    /// Its pid.
    pub pid: i32,
    /// Clock ticks since the host's boot.
    pub start_time: u64,
    /// The host's boot id.
    pub boot_id: String,
    /// Its executable.
    pub exe: AbsPath,
    /// Device and inode of that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe_file: Option<(u64, u64)>,
}

/// `shim.json` in a VM's runtime directory: which processes make up the running VM. Written by `bg-shim` whenever one
/// changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShimState {
    /// The VM's id.
    pub machine_id: String,
    /// `bg-shim` itself.
    pub shim: ProcessDoc,
    /// The VMM; absent while it is being started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm: Option<ProcessDoc>,
    /// vhost-device-vsock, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock_device: Option<ProcessDoc>,
    /// How often the guest has rebooted.
    pub reboots: u32,
    /// Why the guest stands still; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
}

impl From<ProcessDoc> for ProcessId {
    fn from(doc: ProcessDoc) -> Self {
        let ProcessDoc { pid, start_time, boot_id, exe, exe_file } = doc;
        ProcessId { pid, start_time, boot_id, exe: exe.to_path_buf(), exe_file }
    }
}

impl TryFrom<ProcessId> for ProcessDoc {
    type Error = Error;
    fn try_from(id: ProcessId) -> Result<Self> {
        let ProcessId { pid, start_time, boot_id, exe, exe_file } = id;
        Ok(ProcessDoc { pid, start_time, boot_id, exe: AbsPath::new(exe)?, exe_file })
    }
}
