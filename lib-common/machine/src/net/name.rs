//! Who owns what in the kernel: the names of bridge and TAPs, and the aliases of TAPs. Pure.

use lib_common::doc::Mac;
use lib_common::error::{Code, Error, Result};
use std::net::Ipv4Addr;

/// A VM's id as its 16 bytes; never all zeros.
pub type MachineId = [u8; 16];

/// The names of TAPs begin with this; a number follows.
const TAP: &str = "tap-pool-";
/// The alias of a TAP that nobody has.
const POOL: &str = "banger:pool";
/// The beginning of the alias of one that a VM has: its id, a colon and its address follow, and [`NAT`] where it has that.
const MACHINE: &str = "banger:vm:";
const NAT: &str = ":nat";

/// The bridge that a user's `bg-tap up` makes: at most 13 bytes, 15 are the most for an interface.
pub fn bridge(uid: u32) -> String {
    format!("bg-{uid}")
}

/// The user whose `bg-tap up` makes a bridge of that name; `None` where it is not one of ours.
pub fn bridge_owner(name: &str) -> Option<u32> {
    let uid = name.strip_prefix("bg-")?.parse().ok()?;
    (bridge(uid) == name).then_some(uid)
}

/// The TAP of that number, at most 1023.
pub fn tap(number: u32) -> String {
    format!("{TAP}{number}")
}

/// The number of a TAP of ours.
pub fn number(tap: &str) -> Option<u32> {
    let digits = tap.strip_prefix(TAP)?;
    let number = digits.parse().ok().filter(|n| (1..=super::pool::MOST).contains(n))?;
    // One number has one name.
    (self::tap(number) == tap).then_some(number)
}

/// Who has a TAP: what its alias says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    Pool,
    /// A VM.
    Machine {
        /// Its id.
        id: MachineId,
        /// Its address.
        address: Ipv4Addr,
        /// Whether it is to reach other networks.
        nat: bool,
    },
}

impl Holder {
    /// As an alias.
    pub fn alias(&self) -> String {
        match self {
            Holder::Pool => POOL.to_owned(),
            Holder::Machine { id, address, nat } => {
                format!("{MACHINE}{}:{address}{}", hex(id), if *nat { NAT } else { "" })
            }
        }
    }

    /// From an alias; `None` where it is not one of ours.
    pub fn parse(alias: &str) -> Option<Self> {
        if alias == POOL {
            return Some(Holder::Pool);
        }
        let (id, rest) = alias.strip_prefix(MACHINE)?.split_once(':')?;
        let (address, nat) = rest.strip_suffix(NAT).map_or((rest, false), |address| (address, true));
        Some(Holder::Machine { id: machine_id(id).ok()?, address: address.parse().ok()?, nat })
    }
}

/// The bytes of a VM's id.
pub fn machine_id(text: &str) -> Result<MachineId> {
    let digits = || text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match u128::from_str_radix(text, 16) {
        Ok(id) if id != 0 && digits() => Ok(id.to_be_bytes()),
        _ => Err(Error::new(Code::BadDocument, format!("`{}` is not the id of a VM", text.escape_debug()))),
    }
}

/// A VM's id as text.
pub fn hex(id: &MachineId) -> String {
    format!("{:032x}", u128::from_be_bytes(*id))
}

/// The hardware address of a VM's card: locally administered, and the same for the VM's whole life.
pub fn mac(id: &MachineId) -> Mac {
    Mac::new([0x02, id[0], id[1], id[2], id[3], id[4]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_15_bytes_at_most() {
        for name in [bridge(u32::MAX), bridge(0), tap(1), tap(1023)] {
            assert!(name.len() <= 15, "{name}");
        }
    }

    #[test]
    fn a_number_has_one_name() {
        assert_eq!(number("tap-pool-1"), Some(1));
        assert_eq!(number(&tap(1023)), Some(1023));
        for other in ["tap-pool-0", "tap-pool-01", "tap-pool-1024", "tap-pool-", "tap-pool-+1", "tap0", "eth0"] {
            assert_eq!(number(other), None, "{other}");
        }
    }

    #[test]
    fn a_bridge_names_its_user() {
        assert_eq!((bridge_owner("bg-0"), bridge_owner(&bridge(u32::MAX))), (Some(0), Some(u32::MAX)));
        for other in ["bg-", "bg-00", "bg-+1", "bg-4294967296", "bg-x", "br-0", "bg-0a"] {
            assert_eq!(bridge_owner(other), None, "{other}");
        }
    }

    #[test]
    fn an_alias_says_who_has_it_and_a_foreign_one_does_not() {
        let id = machine_id("0123456789abcdef0123456789abcdef").unwrap();
        let machine = |nat| Holder::Machine { id, address: Ipv4Addr::new(10, 0, 0, 2), nat };
        assert_eq!(machine(false).alias(), "banger:vm:0123456789abcdef0123456789abcdef:10.0.0.2");
        assert_eq!(machine(true).alias(), "banger:vm:0123456789abcdef0123456789abcdef:10.0.0.2:nat");
        for holder in [Holder::Pool, machine(false), machine(true)] {
            assert_eq!(Holder::parse(&holder.alias()), Some(holder));
            assert!(holder.alias().len() < 256, "IFALIASZ");
        }
        for other in ["", "banger", "banger:vm:", "banger:vm:0:10.0.0.2", "uplink to the world", "banger:pool "] {
            assert_eq!(Holder::parse(other), None, "{other}");
        }
        for bad in ["", "0", &"0".repeat(32), &"A".repeat(32), &"+".repeat(32), &"a".repeat(33)] {
            assert!(machine_id(bad).is_err(), "{bad}");
        }
        assert_eq!(mac(&id).to_string(), "02:01:23:45:67:89");
    }
}
