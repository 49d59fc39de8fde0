//! Tracked connections: those of one address are forgotten.
//!
//! Source of the formats: nfnetlink_conntrack.h.

use super::{Ask, Netlink, netfilter_message, netfilter_type};
use neli::FromBytesWithInput;
use neli::rtnl::Rtattr;
use neli::types::{Buffer, RtBuffer};
use nix::errno::Errno;
use nix::libc;
use std::io::Cursor;
use std::net::Ipv4Addr;

/// `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE`.
const GET: u16 = 1;
const DELETE: u16 = 2;
/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_ID`, `CTA_ZONE`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// `CTA_TUPLE_IP`, and in it `CTA_IP_V4_SRC` and `CTA_IP_V4_DST`.
const TUPLE_IP: u16 = 1;
const IP_V4: [u16; 2] = [1, 2];
/// Without the two bits that say how an attribute is to be read: `NLA_TYPE_MASK`.
const KIND: u16 = 0x3fff;

type Attribute = Rtattr<u16, Buffer>;

impl Netlink {
    /// Forgets every tracked IPv4 connection from or to an address. Takes time for each one that is tracked.
    pub fn forget_connections(&self, address: Ipv4Addr) -> Result<(), Errno> {
        let mut found: Vec<Vec<Attribute>> = vec![];
        self.request(message_type(GET), Ask::All, message(&[])?, |answer: Buffer| {
            let attributes = attributes_of(answer.as_ref());
            if attributes.iter().any(|a| matches!(kind(a), ORIGINAL | REPLY) && is_of(a, address)) {
                found.push(attributes);
            }
        })?;
        for attributes in found {
            let which: Vec<Attribute> =
                attributes.into_iter().filter(|a| matches!(kind(a), ORIGINAL | ID | ZONE)).collect();
            match self.change(message_type(DELETE), Ask::One, message(&which)?) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn message_type(message: u16) -> u16 {
    netfilter_type(libc::NFNL_SUBSYS_CTNETLINK, message)
}

fn message(attributes: &[Attribute]) -> Result<Buffer, Errno> {
    netfilter_message(libc::AF_INET, attributes)
}

fn attributes_of(answer: &[u8]) -> Vec<Attribute> {
    read(answer.get(4..).unwrap_or_default())
}

fn read(bytes: &[u8]) -> Vec<Attribute> {
    let read = RtBuffer::<u16, Buffer>::from_bytes_with_input(&mut Cursor::new(bytes), bytes.len());
    read.map_or_else(|_| vec![], |attributes| attributes.into_iter().collect())
}

fn kind(attribute: &Attribute) -> u16 {
    *attribute.rta_type() & KIND
}

/// Whether a tuple has the address at one of its ends.
fn is_of(tuple: &Attribute, address: Ipv4Addr) -> bool {
    let inner = |a: &Attribute| read(a.rta_payload().as_ref());
    let ips = inner(tuple).into_iter().filter(|a| kind(a) == TUPLE_IP);
    ips.flat_map(|ip| inner(&ip)).any(|a| IP_V4.contains(&kind(&a)) && a.rta_payload().as_ref() == address.octets())
}

#[cfg(test)]
mod tests {
    use super::super::{attribute, nested};
    use super::*;

    #[test]
    fn a_tuple_is_of_both_its_ends_and_of_nobody_else() {
        let [a, b, c] = [[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3]].map(Ipv4Addr::from);
        let ends = vec![attribute(IP_V4[0], a.octets()).unwrap(), attribute(IP_V4[1], b.octets()).unwrap()];
        // The kernel marks attributes that hold others.
        let tuple = nested(ORIGINAL | 0x8000, vec![nested(TUPLE_IP | 0x8000, ends).unwrap()]).unwrap();
        assert!(is_of(&tuple, a) && is_of(&tuple, b) && !is_of(&tuple, c));
    }

    #[test]
    fn a_message_is_a_header_and_attributes_as_they_came() {
        let bytes = message(&[attribute(ID, 7_u32).unwrap()]).unwrap();
        let again = attributes_of(bytes.as_ref());
        assert_eq!((bytes.as_ref()[0], again.len(), kind(&again[0])), (2, 1, ID));
    }
}
