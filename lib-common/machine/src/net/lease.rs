//! Leases of addresses: a file with a record for each address of the network, which is the id of the VM that has it.
//!
//! Addresses go round: the next lease is looked for behind the last one, so that an address that was given up stays
//! unused for as long as possible. A record is changed under its own lock, and whoever finds it locked takes the next
//! one: nobody waits, and no two get the same. Nothing is synced: leases do not outlive the host's boot.
//!
//! Behind them lies a note for each, which only the audit reads: since when, and for which store.

use super::name::MachineId;
use super::subnet;
use lib_common::doc::Cidr;
use lib_common::error::{Code, Error, Result};
use lib_common::sys::records::Records;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const FREE: MachineId = [0; 16];
/// Where the last lease was. The place is the network's own address, which nobody can have.
const CURSOR: u32 = 0;

/// The leases of a network.
#[derive(Debug)]
pub struct Leases {
    records: Records<16>,
    subnet: Cidr,
}

/// An address that a VM has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Whether the VM did not have it before.
    pub new: bool,
}

/// Since when a VM has its address, and whose VM it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// When it was lent last, in seconds since the epoch.
    pub since: u32,
    /// The store that the VM is in ([`store_tag`]), or 0 where nobody can say.
    pub store: u64,
}

impl Note {
    /// How long ago that was.
    pub fn age(&self) -> Duration {
        Duration::from_secs(u64::from(now().saturating_sub(self.since)))
    }

    /// With a part of the VM's id: the note of whoever had the address before says nothing.
    fn to_record(self, id: &MachineId) -> [u8; 16] {
        let mut record = [0; 16];
        record[..4].copy_from_slice(&self.since.to_le_bytes());
        record[4..8].copy_from_slice(&id[..4]);
        record[8..].copy_from_slice(&self.store.to_le_bytes());
        record
    }

    fn of(record: &[u8; 16], id: &MachineId) -> Option<Self> {
        let number = u128::from_le_bytes(*record);
        let (since, store) = (number as u32, (number >> 64) as u64);
        (record[4..8] == id[..4] && since != 0).then_some(Note { since, store })
    }
}

/// By what a note names a store: its user and the path of its state directory. It does not name any other one.
pub fn store_tag(uid: u32, state_dir: &Path) -> u64 {
    let path: std::path::PathBuf = state_dir.components().collect();
    let digest = lib_common::digest::of_bytes(format!("{uid}:{}", path.display()).as_bytes()).to_string();
    let hex = digest.rsplit(':').next().unwrap_or_default();
    u64::from_str_radix(hex.get(..16).unwrap_or_default(), 16).unwrap_or(0)
}

fn now() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX))
}

impl Leases {
    /// Makes the file of a network, where it is missing. What stands there as a lease and was never lent is free again.
    pub fn create(path: &Path, subnet: Cidr) -> Result<()> {
        Records::<16>::create(path, 2 * subnet::size(subnet))?;
        let leases = Leases::open(path, subnet, true)?;
        for place in leases.unsigned()? {
            let held = leases.records.lock(place)?;
            if leases.is_unsigned(place, &held.get()?)? {
                held.put(&FREE)?;
            }
        }
        Ok(())
    }

    /// Opens it.
    pub fn open(path: &Path, subnet: Cidr, write: bool) -> Result<Self> {
        Ok(Leases { records: Records::open(path, 2 * subnet::size(subnet), write)?, subnet })
    }

    /// Waits that long for whoever changes one.
    pub(super) fn waiting(self, wait: Duration) -> Self {
        Leases { records: self.records.waiting(wait), ..self }
    }

    /// An address for a VM: the one that it has; else the one that it `had`, where that is free; else the next one. It is noted as lent now, to that store.
    pub fn lease(&self, id: &MachineId, had: Option<Ipv4Addr>, store: u64) -> Result<Lease> {
        let places = subnet::guests(self.subnet);
        let address = |place| subnet::address(self.subnet, place);
        if let Some(place) = self.records.find(places.clone(), |_, holder| holder == id)? {
            return Ok(Lease { address: address(place), new: false });
        }
        if let Some(place) = had.and_then(|address| subnet::place(self.subnet, address))
            && self.claim(place, id, store)?
        {
            return Ok(Lease { address: address(place), new: true });
        }
        let cursor = u128::from_le_bytes(self.records.get(CURSOR)?) as u32;
        let mut next = cursor.clamp(places.start - 1, places.end - 1) + 1;
        for end in [places.end, next] {
            while let Some(place) = self.records.find(next..end, |_, holder| *holder == FREE)? {
                if self.claim(place, id, store)? {
                    self.records.put(CURSOR, &u128::from(place).to_le_bytes())?;
                    return Ok(Lease { address: address(place), new: true });
                }
                next = place + 1;
            }
            next = places.start;
        }
        Err(Error::new(Code::InUse, format!("every address of {} is taken: {} of them", self.subnet, places.len()))
            .hint(
                "`bg-tap ls` shows who has them; `bg-vm rm` gives a VM's back, and as root \
                 `bg-tap release --address ADDRESS` that of a VM which is gone",
            ))
    }

    /// Notes that a VM has an address, as its TAP says. An address that is not of this network is left alone.
    pub fn note(&self, id: &MachineId, address: Ipv4Addr) -> Result<()> {
        match subnet::place(self.subnet, address) {
            Some(place) => self.claim(place, id, 0).map(drop),
            None => Ok(()),
        }
    }

    /// Notes that an address is lent to a VM now, which is in that store.
    pub fn sign(&self, id: &MachineId, address: Ipv4Addr, store: u64) -> Result<()> {
        let Some(place) = subnet::place(self.subnet, address) else { return Ok(()) };
        self.records.put(self.note_of(place), &Note { since: now(), store }.to_record(id))
    }

    /// What is noted of a VM that has an address; `None` where there is nothing, or it was another VM's.
    pub fn signed(&self, id: &MachineId, address: Ipv4Addr) -> Result<Option<Note>> {
        let Some(place) = subnet::place(self.subnet, address) else { return Ok(None) };
        Ok(Note::of(&self.records.get(self.note_of(place))?, id))
    }

    /// Whether a VM has that address.
    pub fn has(&self, id: &MachineId, address: Ipv4Addr) -> Result<bool> {
        match subnet::place(self.subnet, address) {
            Some(place) => Ok(self.records.get(place)? == *id),
            None => Ok(false),
        }
    }

    /// Says that the VM whose TAP has that address has it, whatever is noted: the TAP is right. `is_so` asks the TAP once more,
    /// while nobody takes the address or gives it up.
    pub fn overrule(&self, id: &MachineId, address: Ipv4Addr, is_so: impl FnOnce() -> Result<bool>) -> Result<()> {
        let Some(place) = subnet::place(self.subnet, address) else { return Ok(()) };
        let held = self.records.lock(place)?;
        if held.get()? == *id || !is_so()? {
            return Ok(());
        }
        self.records.put(self.note_of(place), &Note { since: now(), store: 0 }.to_record(id))?;
        held.put(id)
    }

    /// How many addresses are taken by what nobody has lent: each loan has its note, and had that first.
    pub fn damaged(&self) -> Result<usize> {
        Ok(self.unsigned()?.len())
    }

    /// Every lease that was lent, in the order of addresses.
    pub fn lent(&self) -> Result<Vec<(Ipv4Addr, MachineId)>> {
        let mut all = self.all()?;
        let unsigned = self.unsigned()?;
        all.retain(|(address, _)| subnet::place(self.subnet, *address).is_some_and(|place| !unsigned.contains(&place)));
        Ok(all)
    }

    /// The places of leases without a note.
    fn unsigned(&self) -> Result<Vec<u32>> {
        let mut taken = vec![];
        self.records.find(subnet::guests(self.subnet), |place, id| {
            if *id != FREE {
                taken.push((place, *id));
            }
            false
        })?;
        let mut unsigned = vec![];
        for (place, id) in taken {
            // Somebody else may have the address by now, with his note.
            if self.is_unsigned(place, &id)? && self.records.get(place)? == id {
                unsigned.push(place);
            }
        }
        Ok(unsigned)
    }

    fn is_unsigned(&self, place: u32, id: &MachineId) -> Result<bool> {
        Ok(*id != FREE && Note::of(&self.records.get(self.note_of(place))?, id).is_none())
    }

    fn note_of(&self, place: u32) -> u32 {
        subnet::size(self.subnet) + place
    }

    /// With its note: whoever is killed in between has left an address that is free.
    fn claim(&self, place: u32, id: &MachineId, store: u64) -> Result<bool> {
        let Some(held) = self.records.try_lock(place)? else { return Ok(false) };
        if held.get()? != FREE {
            return Ok(false);
        }
        self.records.put(self.note_of(place), &Note { since: now(), store }.to_record(id))?;
        held.put(id)?;
        Ok(true)
    }

    /// The VM that has an address.
    ///
    /// # Errors
    /// [`Code::BadValue`] for what is not a guest's address in this network.
    pub fn holder(&self, address: Ipv4Addr) -> Result<Option<MachineId>> {
        let place = subnet::place(self.subnet, address).ok_or_else(|| {
            Error::new(Code::BadValue, format!("{address} is not a guest's address in {}", self.subnet))
                .hint("`bg-tap ls` lists them")
        })?;
        Ok(Some(self.records.get(place)?).filter(|id| *id != FREE))
    }

    /// Gives an address up, where it is this VM's.
    pub fn give_up(&self, id: &MachineId, address: Ipv4Addr) -> Result<()> {
        let Some(place) = subnet::place(self.subnet, address) else { return Ok(()) };
        let held = self.records.lock(place)?;
        if held.get()? == *id { held.put(&FREE) } else { Ok(()) }
    }

    /// The address that a VM has.
    pub fn of(&self, id: &MachineId) -> Result<Option<Ipv4Addr>> {
        let place = self.records.find(subnet::guests(self.subnet), |_, holder| holder == id)?;
        Ok(place.map(|place| subnet::address(self.subnet, place)))
    }

    /// Every lease, in the order of addresses.
    pub fn all(&self) -> Result<Vec<(Ipv4Addr, MachineId)>> {
        let mut all = vec![];
        self.records.find(subnet::guests(self.subnet), |place, id| {
            if *id != FREE {
                all.push((subnet::address(self.subnet, place), *id));
            }
            false
        })?;
        Ok(all)
    }
}

#[cfg(test)]
mod tests;
