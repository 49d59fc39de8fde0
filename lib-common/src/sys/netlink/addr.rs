//! Addresses of interfaces, routes, and neighbours.

use super::{Ask, Netlink, attribute, number};
use neli::consts::rtnl::{Ifa, IfaF, Nda, Nud, RtAddrFamily, RtScope, RtTable, Rta, Rtm, Rtn, Rtprot};
use neli::rtnl::{Ifaddrmsg, IfaddrmsgBuilder, NdmsgBuilder, Rtmsg, RtmsgBuilder};
use neli::types::{Buffer, RtBuffer};
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use std::net::Ipv4Addr;

/// An IPv4 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface's index.
    pub index: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// The length of its network's prefix.
    pub prefix: u8,
}

/// An IPv4 route, of whatever table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The network.
    pub network: Ipv4Addr,
    /// The length of its prefix; 0 is the default route.
    pub prefix: u8,
    /// The interface that leads there, or 0.
    pub index: u32,
    /// Whether the network lies at the interface, and not behind a gateway.
    pub on_link: bool,
}

impl Netlink {
    /// The IPv4 addresses of every interface.
    pub fn addresses(&self) -> Result<Vec<Address>, Errno> {
        let mut found = vec![];
        let asked = address_message(RtAddrFamily::Inet, (0, 0), RtBuffer::new())?;
        self.request(Rtm::Getaddr.into(), Ask::All, asked, |m: Ifaddrmsg| found.extend(address_of(&m)))?;
        Ok(found)
    }

    /// How long ago an interface got its first IPv4 address, in milliseconds; `None` where it has none.
    pub fn address_age_ms(&self, index: u32) -> Result<Option<u64>, Errno> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
        let now = u64::try_from(now.tv_sec()).unwrap_or(0) * 1000;
        let mut oldest: Option<u64> = None;
        let asked = address_message(RtAddrFamily::Inet, (index, 0), RtBuffer::new())?;
        self.request(Rtm::Getaddr.into(), Ask::All, asked, |m: Ifaddrmsg| {
            // if_addr.h, struct ifa_cacheinfo: its third number is when, in hundredths of seconds since the boot.
            let info = m.rtattrs().iter().find(|a| *a.rta_type() == Ifa::Cacheinfo);
            let when = info.and_then(|a| a.rta_payload().as_ref().get(8..12)).map(number);
            if let Some(age) = when.map(|when| now.saturating_sub(u64::from(when) * 10)) {
                oldest = Some(oldest.map_or(age, |old| old.max(age)));
            }
        })?;
        Ok(oldest)
    }

    /// Gives an interface an address; one that it has is fine.
    pub fn add_address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> Result<(), Errno> {
        let octets = address.octets();
        let attributes = [(Ifa::Local, octets), (Ifa::Address, octets)];
        let attributes =
            attributes.into_iter().map(|(kind, value)| attribute(kind, value)).collect::<Result<_, _>>()?;
        match self.change(
            Rtm::Newaddr.into(),
            Ask::New,
            address_message(RtAddrFamily::Inet, (index, prefix), attributes)?,
        ) {
            Err(Errno::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Takes every address from an interface, of whatever family.
    pub fn flush_addresses(&self, index: u32) -> Result<(), Errno> {
        let mut found: Vec<Ifaddrmsg> = vec![];
        let asked = address_message(RtAddrFamily::Unspecified, (index, 0), RtBuffer::new())?;
        self.request(Rtm::Getaddr.into(), Ask::All, asked, |m| found.push(m))?;
        for message in found.iter().filter(|m| *m.ifa_index() == index) {
            let only = |a: &&neli::rtnl::Rtattr<Ifa, Buffer>| matches!(a.rta_type(), Ifa::Local | Ifa::Address);
            let attributes = message.rtattrs().iter().filter(only).cloned().collect();
            let remove = address_message(*message.ifa_family(), (index, *message.ifa_prefixlen()), attributes)?;
            match self.change(Rtm::Deladdr.into(), Ask::One, remove) {
                Ok(()) | Err(Errno::EADDRNOTAVAIL) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Every IPv4 route of the tables that packets are sent by, without those to the host's own addresses.
    pub fn routes(&self) -> Result<Vec<Route>, Errno> {
        let asked = RtmsgBuilder::default().rtm_family(RtAddrFamily::Inet).rtm_dst_len(0).rtm_src_len(0).rtm_tos(0);
        let asked = asked.rtm_table(RtTable::Unspec).rtm_protocol(Rtprot::Unspec).rtm_scope(RtScope::Universe);
        let asked = asked.rtm_type(Rtn::Unspec).build().map_err(|_| Errno::EMSGSIZE)?;
        let mut found = vec![];
        self.request(Rtm::Getroute.into(), Ask::All, asked, |m: Rtmsg| {
            if *m.rtm_table() != RtTable::Local {
                found.push(route_of(&m));
            }
        })?;
        Ok(found)
    }

    /// Forgets a neighbour; one that is not known is fine.
    pub fn remove_neighbour(&self, index: u32, address: Ipv4Addr) -> Result<(), Errno> {
        let message = NdmsgBuilder::default().ndm_family(RtAddrFamily::Inet).ndm_index(index.cast_signed());
        let message = message.ndm_state(Nud::empty()).ndm_type(Rtn::Unspec);
        let attributes = [attribute(Nda::Dst, address.octets())?].into_iter().collect();
        let message = message.rtattrs(attributes).build().map_err(|_| Errno::EMSGSIZE)?;
        match self.change(Rtm::Delneigh.into(), Ask::One, message) {
            Err(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }
}

fn address_message(
    family: RtAddrFamily,
    (index, prefix): (u32, u8),
    attributes: RtBuffer<Ifa, Buffer>,
) -> Result<Ifaddrmsg, Errno> {
    let message = IfaddrmsgBuilder::default().ifa_family(family).ifa_prefixlen(prefix).ifa_flags(IfaF::empty());
    let message = message.ifa_scope(RtScope::Universe).ifa_index(index).rtattrs(attributes);
    message.build().map_err(|_| Errno::EMSGSIZE)
}

fn address_of(message: &Ifaddrmsg) -> Option<Address> {
    let own = message.rtattrs().iter().find(|a| *a.rta_type() == Ifa::Local)?;
    let octets: [u8; 4] = own.rta_payload().as_ref().try_into().ok()?;
    Some(Address { index: *message.ifa_index(), address: octets.into(), prefix: *message.ifa_prefixlen() })
}

fn route_of(message: &Rtmsg) -> Route {
    let value = |kind: Rta| message.rtattrs().iter().find(|a| *a.rta_type() == kind).map(|a| a.rta_payload().as_ref());
    let octets: Option<[u8; 4]> = value(Rta::Dst).and_then(|v| v.try_into().ok());
    Route {
        network: octets.unwrap_or_default().into(),
        prefix: *message.rtm_dst_len(),
        index: value(Rta::Oif).map_or(0, number),
        on_link: *message.rtm_scope() == RtScope::Link,
    }
}
