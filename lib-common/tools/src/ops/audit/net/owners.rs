//! What the store knows of the VMs that aliases and leases name.

use super::super::age_ms;
use super::super::files::children;
use crate::ops::audit::leftover::is_leftover;
use crate::ops::machine::is_running;
use lib_common::doc::{Name, Net};
use lib_common::error::{Result, looked_at, sound};
use lib_common::sys::lock::{glance, is_held};
use lib_common::sys::thread::in_threads;
use lib_machine::net::name::{MachineId, machine_id};
use lib_machine::net::standing::Vm;
use lib_machine::store::{Store, id_of};
use std::collections::BTreeMap;
use std::time::Duration;

/// The VMs of a store, by their ids.
pub struct Owners {
    vms: BTreeMap<MachineId, Known>,
    /// Whether a VM is being made or removed, or has a record that cannot be read: an id that is not known may be its.
    unsure: bool,
}

struct Known {
    name: Name,
    vm: Vm,
    untouched: Duration,
}

impl Owners {
    /// Looks at every VM. To be asked after the kernel was: a VM is in the store before it has anything there.
    pub fn of(store: &Store, netns: u64) -> Result<Self> {
        let mut owners = Owners { vms: BTreeMap::new(), unsure: false };
        let part = |names: &[Name]| -> Result<Self> {
            let mut some = Owners { vms: BTreeMap::new(), unsure: false };
            names.iter().try_for_each(|name| some.add(store, name.clone(), netns)).map(|()| some)
        };
        for part in in_threads(&store.machine_names()?, part) {
            let part = part?;
            owners.vms.extend(part.vms);
            owners.unsure |= part.unsure;
        }
        for dir in children(&store.staging_dir())? {
            owners.unsure |= is_held(&dir.join("lock"))?;
        }
        Ok(owners)
    }

    fn add(&mut self, store: &Store, name: Name, netns: u64) -> Result<()> {
        let machine = store.machine_dir(&name);
        // Held while we look, so that nothing begins or ends meanwhile.
        let look = glance(&machine.file("lock"))?;
        let doc = looked_at(machine.current())?.ok();
        let Some((id, doc)) = doc.and_then(|doc| Some((machine_id(&id_of(&doc).ok()?).ok()?, doc))) else {
            // One without a record that nobody makes is undone by its journal; one that has lost its record keeps what it has.
            let open = sound(machine.journal().open_operation())?;
            let is_leftover = is_leftover(machine.path(), open.as_ref())?;
            self.unsure |= look.is_none() || machine.record_file().exists() || !is_leftover;
            return Ok(());
        };
        let open = looked_at(machine.journal().open_operation())?.map_or(true, |open| open.is_some());
        let vm = match (doc.section::<Net>(), is_running(&doc)) {
            (Ok(net), Ok(running)) if look.is_some() && !open => {
                let net = net.filter(|net| net.netns == netns);
                let address = net.as_ref().map(|net| net.address.address());
                Vm::Known { running, tap: net.and_then(|net| net.tap), address }
            }
            _ => Vm::Busy,
        };
        let untouched = age_ms(machine.path()).min(age_ms(&machine.record_file()));
        self.vms.insert(id, Known { name, vm, untouched: Duration::from_millis(untouched) });
        Ok(())
    }

    /// What is known of a VM.
    pub fn vm(&self, id: &MachineId) -> Vm {
        match self.vms.get(id) {
            Some(known) => known.vm.clone(),
            None if self.unsure => Vm::Busy,
            None => Vm::Unknown,
        }
    }

    /// Its name, and for how long its directory and record were left alone.
    pub fn named(&self, id: &MachineId) -> Option<(&Name, Duration)> {
        self.vms.get(id).map(|known| (&known.name, known.untouched))
    }
}
