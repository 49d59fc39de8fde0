//! What the guests' network may be.

use super::Cidr;
use crate::error::{Code, Error, Result};
use std::net::Ipv4Addr;

/// The network where none is configured. Docker's own begin at 172.17, the default network of AWS is 172.31, libvirt's
/// and homes' are in 192.168 and companies' mostly in 10: the end of 172.16 is seldom taken.
pub const DEFAULT: &str = "172.16.224.0/20";

/// The largest and the smallest network: 16,381 guests, and 5.
const PREFIXES: std::ops::RangeInclusive<u8> = 18..=29;

/// A network for guests: the length of its prefix is 18 to 29, and the rest of its address is zero.
pub fn parse(text: &str) -> Result<Cidr> {
    let cidr = Cidr::parse(text)?;
    if !PREFIXES.contains(&cidr.prefix()) {
        return Err(Error::new(Code::BadValue, format!("`{cidr}` is too large or too small for guests"))
            .hint("the length of the prefix is 18 to 29"));
    }
    is_network(cidr)
}

/// A network, of whatever size.
pub fn parse_network(text: &str) -> Result<Cidr> {
    is_network(Cidr::parse(text)?)
}

fn is_network(cidr: Cidr) -> Result<Cidr> {
    let network = network_of(cidr);
    if network == cidr {
        return Ok(cidr);
    }
    Err(Error::new(Code::BadValue, format!("`{cidr}` is an address in a network, not the network"))
        .hint(format!("the network is {network}")))
}

/// The network in which an address is.
pub fn network_of(cidr: Cidr) -> Cidr {
    let address = Ipv4Addr::from_bits(cidr.address().to_bits() & mask(cidr.prefix()));
    Cidr::new(address, cidr.prefix()).unwrap_or(cidr)
}

/// The bits of the network's part of an address.
pub fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_zeros_after_its_prefix_and_room_for_guests() {
        assert_eq!(parse(DEFAULT).unwrap().to_string(), DEFAULT);
        for bad in ["172.16.224.1/20", "10.0.0.0/8", "10.0.0.0/17", "10.0.0.0/30", "10.0.0.0", "::/64"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let e = parse("172.16.225.9/20").unwrap_err();
        assert_eq!(e.get_hint(), Some("the network is 172.16.224.0/20"));
    }
}
