//! The guests' network: its addresses, and what it overlaps with. Pure.

use lib_common::doc::Cidr;
use lib_common::doc::subnet::mask;
use lib_common::sys::netlink::addr::{Address, Route};
use std::net::Ipv4Addr;

pub use lib_common::doc::subnet::{network_of, parse, parse_network};

/// Whether two networks have an address in common: then one holds the other.
pub fn overlap(a: Cidr, b: Cidr) -> bool {
    let shorter = mask(a.prefix().min(b.prefix()));
    (a.address().to_bits() ^ b.address().to_bits()) & shorter == 0
}

/// The host's address: the first one.
pub fn gateway(subnet: Cidr) -> Ipv4Addr {
    address(subnet, 1)
}

/// How many addresses a network has, the first and last included.
pub fn size(subnet: Cidr) -> u32 {
    1 << (32 - subnet.prefix())
}

/// The places of guests' addresses in a network: without its own, the host's and the broadcast's.
pub fn guests(subnet: Cidr) -> std::ops::Range<u32> {
    2..size(subnet) - 1
}

/// The address at a place of a network.
pub fn address(subnet: Cidr, place: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(subnet.address().to_bits() + place)
}

/// The place of a guest's address, where it is one of this network.
pub fn place(subnet: Cidr, address: Ipv4Addr) -> Option<u32> {
    let place = address.to_bits().checked_sub(subnet.address().to_bits())?;
    guests(subnet).contains(&place).then_some(place)
}

/// What a new network would overlap with: the first of [`conflicts`].
pub fn conflict(subnet: Cidr, own: u32, addresses: &[Address], routes: &[Route]) -> Option<(Cidr, u32)> {
    conflicts(subnet, own, addresses, routes).next().map(|c| (c.cidr, c.index))
}

/// Something of somebody else's in a guests' network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The address with its prefix, or the network that a route is for.
    pub cidr: Cidr,
    /// The interface that has it or leads there, or 0.
    pub index: u32,
    /// Whether it is a route.
    pub is_route: bool,
}

/// The addresses of interfaces, then the routes, with which a network overlaps. Those of the interface `own` (0: there
/// is none yet) are its own. A route for the whole world or half of it (as VPNs set them) is less exact than ours, and
/// fine.
pub fn conflicts(subnet: Cidr, own: u32, addresses: &[Address], routes: &[Route]) -> impl Iterator<Item = Conflict> {
    let conflict = |address, prefix, index, is_route| {
        Cidr::new(address, prefix).ok().map(|cidr| Conflict { cidr, index, is_route })
    };
    let of_interfaces = addresses.iter().filter_map(move |a| conflict(a.address, a.prefix, a.index, false));
    let of_routes = routes.iter().filter(|r| r.prefix > 1);
    let of_routes = of_routes.filter_map(move |r| conflict(r.network, r.prefix, r.index, true));
    let foreign = move |c: &Conflict| own == 0 || c.index != own;
    of_interfaces.chain(of_routes).filter(move |c| foreign(c) && overlap(subnet, c.cidr))
}

/// The interface that leads to an address: that of the most exact route.
pub fn interface_to(address: Ipv4Addr, routes: &[Route]) -> Option<u32> {
    let leads = |r: &&Route| r.index != 0 && (r.network.to_bits() ^ address.to_bits()) & mask(r.prefix) == 0;
    routes.iter().filter(leads).max_by_key(|r| r.prefix).map(|r| r.index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cidr(text: &str) -> Cidr {
        Cidr::parse(text).unwrap()
    }

    #[test]
    fn addresses_have_places() {
        let net = cidr("10.0.16.0/29");
        assert_eq!(gateway(net), Ipv4Addr::new(10, 0, 16, 1));
        let all: Vec<String> = guests(net).map(|place| address(net, place).to_string()).collect();
        assert_eq!(all, ["10.0.16.2", "10.0.16.3", "10.0.16.4", "10.0.16.5", "10.0.16.6"]);
        for none in ["10.0.16.0", "10.0.16.1", "10.0.16.7", "10.0.16.8", "10.0.15.255"] {
            assert_eq!(place(net, none.parse().unwrap()), None, "{none}");
        }
    }

    fn route(network: &str, index: u32) -> Route {
        Route { network: cidr(network).address(), prefix: cidr(network).prefix(), index, on_link: false }
    }

    #[test]
    fn what_overlaps_is_named_and_the_world_does_not() {
        let net = cidr("10.0.16.0/20");
        let routes = [route("0.0.0.0/0", 2), route("0.0.0.0/1", 3), route("10.0.32.0/20", 4)];
        let address = Address { index: 5, address: Ipv4Addr::new(10, 0, 31, 255), prefix: 24 };
        assert_eq!(conflict(net, 0, &[], &routes), None);
        assert_eq!(conflict(net, 0, &[address], &routes), Some((cidr("10.0.31.255/24"), 5)));
        assert!(conflict(net, 0, &[], &[route("10.0.16.0/24", 0)]).is_some(), "a route to nowhere");
        assert_eq!(conflict(net, 5, &[address], &routes), None, "our own bridge");
        for (network, there) in [("10.0.0.0/8", true), ("10.0.16.128/25", true), ("10.1.0.0/16", false)] {
            assert_eq!(conflict(net, 0, &[], &[route(network, 6)]).is_some(), there, "{network}");
        }
    }

    #[test]
    fn the_most_exact_route_leads() {
        let routes = [route("0.0.0.0/0", 1), route("10.0.0.0/8", 2), route("10.1.0.0/16", 3)];
        for (address, index) in [("10.1.2.3", 3), ("10.2.2.3", 2), ("9.9.9.9", 1)] {
            assert_eq!(interface_to(address.parse().unwrap(), &routes), Some(index), "{address}");
        }
        assert_eq!(interface_to("9.9.9.9".parse().unwrap(), &routes[1..]), None);
    }

    proptest! {
        #[test]
        fn networks_overlap_where_they_have_an_address_in_common(a: u32, b: u32, p in 0_u8..=32, q in 0_u8..=32) {
            // Near each other, so that both answers come.
            let b = a ^ (b >> (u32::from(q.max(1)) - 1));
            let (x, y) = (Cidr::new(a.into(), p).unwrap(), Cidr::new(b.into(), q).unwrap());
            let ends = |c: Cidr| (c.address().to_bits() & mask(c.prefix()), c.address().to_bits() | !mask(c.prefix()));
            let ((a0, a1), (b0, b1)) = (ends(x), ends(y));
            prop_assert_eq!(overlap(x, y), a0 <= b1 && b0 <= a1);
            prop_assert_eq!(overlap(x, y), overlap(y, x));
        }
    }
}
