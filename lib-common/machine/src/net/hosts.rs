//! The names of VMs: a file with a record for each address of the network. A record says of which VM it is, and is void
//! where the lease of that address is another's: nobody has to take it away.
//!
//! VMs of one user know each other's names, and no other user's.

use super::lease::Leases;
use super::name::MachineId;
use super::subnet;
use lib_common::doc::{Cidr, Host, Name};
use lib_common::error::Result;
use lib_common::sys::records::Records;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

/// The VM's id, the user's id, and the name with zeros after it.
const RECORD: usize = 16 + 4 + 64;

/// The names of a network's VMs.
#[derive(Debug)]
pub struct Hosts {
    records: Records<RECORD>,
    subnet: Cidr,
}

impl Hosts {
    /// Makes the file of a network, where it is missing.
    pub fn create(path: &Path, subnet: Cidr) -> Result<()> {
        Records::<RECORD>::create(path, subnet::size(subnet))
    }

    /// Opens it.
    pub fn open(path: &Path, subnet: Cidr, write: bool) -> Result<Self> {
        Ok(Hosts { records: Records::open(path, subnet::size(subnet), write)?, subnet })
    }

    /// Notes how the VM that has an address is named, and whose it is.
    pub fn note(&self, id: &MachineId, uid: u32, host: &Host) -> Result<()> {
        let Some(place) = subnet::place(self.subnet, host.address) else { return Ok(()) };
        let mut record = [0; RECORD];
        record[..16].copy_from_slice(id);
        record[16..20].copy_from_slice(&uid.to_le_bytes());
        let name = host.name.as_str().as_bytes();
        record[20..20 + name.len()].copy_from_slice(name);
        self.records.put(place, &record)
    }

    /// The user whose VM has that address, as far as it is noted.
    pub fn user_of(&self, id: &MachineId, address: Ipv4Addr) -> Result<Option<u32>> {
        let Some(place) = subnet::place(self.subnet, address) else { return Ok(None) };
        let record = self.records.get(place)?;
        let user = u32::from_le_bytes([record[16], record[17], record[18], record[19]]);
        Ok((record[..16] == id[..]).then_some(user))
    }

    /// Every VM of a user, in the order of addresses.
    pub fn of_user(&self, leases: &Leases, uid: u32) -> Result<Vec<Host>> {
        let leased: BTreeMap<Ipv4Addr, MachineId> = leases.all()?.into_iter().collect();
        let mut hosts = vec![];
        self.records.find(subnet::guests(self.subnet), |place, record| {
            let address = subnet::address(self.subnet, place);
            if let Some(name) = name_in(record, uid, leased.get(&address)) {
                hosts.push(Host { address, name });
            }
            false
        })?;
        Ok(hosts)
    }
}

/// The name in a record of that user's, where it is still that VM's.
fn name_in(record: &[u8; RECORD], uid: u32, lease: Option<&MachineId>) -> Option<Name> {
    if lease? != &record[..16] || record[16..20] != uid.to_le_bytes() {
        return None;
    }
    let name = record[20..].split(|b| *b == 0).next()?;
    Name::parse(std::str::from_utf8(name).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_users_and_ends_with_the_lease() {
        let dir = tempfile::tempdir().unwrap();
        let (names, leased) = (dir.path().join("hosts"), dir.path().join("leases"));
        let subnet = Cidr::parse("10.0.0.0/24").unwrap();
        Hosts::create(&names, subnet).unwrap();
        Leases::create(&leased, subnet).unwrap();
        let (hosts, leases) =
            (Hosts::open(&names, subnet, true).unwrap(), Leases::open(&leased, subnet, true).unwrap());
        let mut all = vec![];
        for (id, name) in [([1; 16], "dev"), ([2; 16], &*"x".repeat(63))] {
            let host = Host { address: leases.lease(&id, None, 0).unwrap().address, name: Name::parse(name).unwrap() };
            hosts.note(&id, 1000, &host).unwrap();
            all.push(host);
        }
        assert_eq!(hosts.of_user(&leases, 1000).unwrap(), all);
        let user_of = |id: u8| hosts.user_of(&[id; 16], all[0].address).unwrap();
        assert_eq!((user_of(1), user_of(2)), (Some(1000), None));
        assert_eq!(hosts.of_user(&leases, 1001).unwrap(), []);
        leases.give_up(&[1; 16], all[0].address).unwrap();
        assert_eq!(hosts.of_user(&leases, 1000).unwrap(), all[1..]);
        // Whoever has that address next is another VM, whose name nobody noted.
        assert!(leases.lease(&[3; 16], Some(all[0].address), 0).unwrap().new);
        assert_eq!(hosts.of_user(&leases, 1000).unwrap(), all[1..]);
    }
}
