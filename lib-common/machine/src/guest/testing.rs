//! VMs for tests: processes that stand for them, and records that say so.

use crate::config::{Config, Env};
use crate::store::Store;
use lib_common::doc::{Document, Kind, Name, ProcessDoc, ShimState, Vmm, to_json};
use lib_common::sys::cmd::{Child, Cmd, Streams};
use lib_common::sys::process::ProcessId;
use std::path::Path;

/// A child that stands for a VM's processes, and the section that says so.
pub fn stand_in(vsock: &Path) -> (Child, Vmm) {
    let child = Cmd::new("sleep").arg("600").spawn(Streams::default()).unwrap();
    let id = ProcessId::of(child.pid()).unwrap();
    let section = serde_json::json!({"kind": "qemu", "accel": "tcg", "chosen_because": "a test", "pid": id.pid,
        "start_time": id.start_time, "exe": id.exe, "shim_pid": id.pid, "shim_start_time": id.start_time,
        "boot_id": id.boot_id, "cid": 3, "vsock": vsock, "console": "/console.log"});
    let vmm = serde_json::from_value(section).unwrap();
    (child, vmm)
}

/// A document of a VM `dev` that runs as that child.
pub fn document(vmm: &Vmm) -> Document {
    let mut doc = Document::new(Kind::Machine, &Name::parse("dev").unwrap());
    doc.set_string("id", &"0123456789abcdef".repeat(2));
    doc.set(vmm);
    doc
}

/// A store with VMs that run, or did.
pub struct Stored {
    _dir: tempfile::TempDir,
    store: Store,
    env: Env,
    children: Vec<Child>,
}

impl Stored {
    /// VMs by name and vsock.
    pub fn new(vms: &[(&str, &Path)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = [("HOME", "/nowhere"), ("BG_STATE_DIR", dir.path().to_str().unwrap())];
        let env: Env = env.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let store = Store::new(&Config::load(&env, false).unwrap(), crate::net::give_back_all);
        store.prepare().unwrap();
        let mut children = vec![];
        for (i, (name, vsock)) in vms.iter().enumerate() {
            let (child, vmm) = stand_in(vsock);
            children.push(child);
            let name = Name::parse(name).unwrap();
            let machine = store.machine_dir(&name);
            std::fs::create_dir(machine.path()).unwrap();
            let id = format!("{i}{}", &"0123456789abcdef".repeat(2)[1..]);
            let mut doc = document(&vmm);
            doc.set_name(&name);
            doc.set_string("id", &id);
            machine.save(&doc).unwrap();
            let process: ProcessDoc = ProcessId::of(vmm.pid).unwrap().try_into().unwrap();
            let (shim, vmm) = (process.clone(), Some(process));
            let state = ShimState { machine_id: id.clone(), shim, vmm, vsock_device: None, reboots: 0, paused: None };
            let runtime = machine.runtime_dir(&id).unwrap();
            std::fs::create_dir(&runtime).unwrap();
            std::fs::write(runtime.join("shim.json"), to_json(&state)).unwrap();
        }
        Stored { _dir: dir, store, env, children }
    }

    /// The settings that lead there.
    pub fn env(&self) -> Env {
        self.env.clone()
    }

    /// A VM's record.
    pub fn document(&self, name: &str) -> Document {
        self.store.machine(&Name::parse(name).unwrap()).unwrap().document().unwrap()
    }

    /// Ends them all.
    pub fn end(&mut self) {
        self.children.clear();
    }
}
