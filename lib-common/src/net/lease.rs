//! Leases of addresses: a file with a record for each address of the network, which is the id of the VM that has it.
//!
//! Addresses go round: the next lease is looked for behind the last one, so that an address that was given up stays
//! unused for as long as possible. A record is changed under its own lock, and whoever finds it locked takes the next
//! one: nobody waits, and no two get the same. Nothing is synced: leases do not outlive the host's boot.

use super::name::MachineId;
use super::subnet;
use crate::doc::Cidr;
use crate::error::{Code, Error, Result};
use crate::sys::records::Records;
use std::net::Ipv4Addr;
use std::path::Path;

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

impl Leases {
    /// Makes the file of a network, where it is missing.
    pub fn create(path: &Path, subnet: Cidr) -> Result<()> {
        Records::<16>::create(path, subnet::size(subnet))
    }

    /// Opens it.
    pub fn open(path: &Path, subnet: Cidr, write: bool) -> Result<Self> {
        Ok(Leases { records: Records::open(path, write)?, subnet })
    }

    /// An address for a VM: the one that it has; else the one that it `had`, where that is free; else the next one.
    pub fn lease(&self, id: &MachineId, had: Option<Ipv4Addr>) -> Result<Lease> {
        let places = subnet::guests(self.subnet);
        let address = |place| subnet::address(self.subnet, place);
        if let Some(place) = self.records.find(places.clone(), |_, holder| holder == id)? {
            return Ok(Lease { address: address(place), new: false });
        }
        if let Some(place) = had.and_then(|address| subnet::place(self.subnet, address))
            && self.claim(place, id)?
        {
            return Ok(Lease { address: address(place), new: true });
        }
        let cursor = u128::from_le_bytes(self.records.get(CURSOR)?) as u32;
        let mut next = cursor.clamp(places.start - 1, places.end - 1) + 1;
        for end in [places.end, next] {
            while let Some(place) = self.records.find(next..end, |_, holder| *holder == FREE)? {
                if self.claim(place, id)? {
                    self.records.put(CURSOR, &u128::from(place).to_le_bytes())?;
                    return Ok(Lease { address: address(place), new: true });
                }
                next = place + 1;
            }
            next = places.start;
        }
        Err(Error::new(Code::InUse, format!("every address of {} is taken: {} of them", self.subnet, places.len()))
            .hint("`bg-tap ls` shows who has them; `bg-vm rm` gives a VM's back"))
    }

    /// Notes that a VM has an address, as its TAP says. An address that is not of this network is left alone.
    pub fn note(&self, id: &MachineId, address: Ipv4Addr) -> Result<()> {
        match subnet::place(self.subnet, address) {
            Some(place) => self.claim(place, id).map(drop),
            None => Ok(()),
        }
    }

    fn claim(&self, place: u32, id: &MachineId) -> Result<bool> {
        let Some(held) = self.records.try_lock(place)? else { return Ok(false) };
        if held.get()? != FREE {
            return Ok(false);
        }
        held.put(id)?;
        Ok(true)
    }

    /// Gives an address up, where it is this VM's.
    pub fn give_up(&self, id: &MachineId, address: Ipv4Addr) -> Result<()> {
        let Some(place) = subnet::place(self.subnet, address) else { return Ok(()) };
        let held = self.records.lock(place)?;
        if held.get()? == *id { held.put(&FREE) } else { Ok(()) }
    }

    /// Gives up whatever address a VM has.
    pub fn give_up_all(&self, id: &MachineId) -> Result<()> {
        let place = self.records.find(subnet::guests(self.subnet), |_, holder| holder == id)?;
        place.map_or(Ok(()), |place| self.give_up(id, subnet::address(self.subnet, place)))
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
