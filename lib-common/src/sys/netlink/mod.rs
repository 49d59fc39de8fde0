//! Netlink: one socket a request follows the other on. Links in [`link`], addresses, routes and neighbours in [`addr`],
//! tracked connections in [`conntrack`], tables of rules in [`nftables`]. Knows no domain.
//!
//! Sources: netlink(7), rtnetlink(7). Every failure is the kernel's errno.

pub mod addr;
pub mod conntrack;
pub mod link;
pub mod nftables;

use neli::consts::nl::{NlmF, Nlmsg};
use neli::consts::rtnl::RtaType;
use neli::consts::socket::{Msg, NlFamily};
use neli::nl::{NlPayload, Nlmsghdr, NlmsghdrBuilder};
use neli::rtnl::{Rtattr, RtattrBuilder};
use neli::socket::NlSocket;
use neli::types::{Buffer, RtBuffer};
use neli::utils::Groups;
use neli::{FromBytes, FromBytesWithInput, Size, ToBytes};
use nix::errno::Errno;
use nix::libc;
use std::cell::Cell;
use std::fmt::Debug;
use std::io::Cursor;

/// A socket to one part of the kernel.
pub struct Netlink {
    socket: NlSocket,
    sequence: Cell<u32>,
}

/// What is asked of the kernel.
enum Ask {
    /// A change, or one thing.
    One,
    /// A new thing, which may not be there yet.
    New,
    /// All of a kind.
    All,
}

impl Netlink {
    /// To links, addresses, routes and neighbours of the current network namespace.
    pub fn route() -> Result<Self, Errno> {
        let netlink = Self::connect(NlFamily::Route)?;
        // So that a dump can be limited to one interface by the kernel.
        netlink.socket.enable_strict_checking(true).map_err(|e| errno(&e))?;
        Ok(netlink)
    }

    /// To netfilter of the current network namespace.
    pub fn netfilter() -> Result<Self, Errno> {
        Self::connect(NlFamily::Netfilter)
    }

    fn connect(family: NlFamily) -> Result<Self, Errno> {
        let socket = NlSocket::connect(family, None, Groups::empty()).map_err(|e| errno(&e))?;
        Ok(Netlink { socket, sequence: Cell::new(0) })
    }

    /// A request that has no answer but whether it worked.
    fn change<P: Size + ToBytes + Debug>(&self, kind: u16, ask: Ask, payload: P) -> Result<(), Errno> {
        self.request(kind, ask, payload, |()| ())
    }

    /// Sends a request and gives `each` payload of the answer, until the kernel says that it is done.
    fn request<P, A>(&self, kind: u16, ask: Ask, payload: P, mut each: impl FnMut(A)) -> Result<(), Errno>
    where
        P: Size + ToBytes + Debug,
        A: FromBytesWithInput<Input = usize>,
    {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let flags = match ask {
            Ask::One => NlmF::REQUEST | NlmF::ACK,
            Ask::New => NlmF::REQUEST | NlmF::ACK | NlmF::CREATE | NlmF::EXCL,
            Ask::All => NlmF::REQUEST | NlmF::DUMP,
        };
        let message = NlmsghdrBuilder::default().nl_type(kind).nl_flags(flags).nl_seq(sequence);
        let message = message.nl_payload(NlPayload::Payload(payload)).build().map_err(|_| Errno::EMSGSIZE)?;
        let mut bytes = Cursor::new(Vec::with_capacity(512));
        message.to_bytes(&mut bytes).map_err(|_| Errno::EMSGSIZE)?;
        self.socket.send(bytes.into_inner(), Msg::empty()).map_err(|e| errno(&e))?;
        // The kernel fills what it gets: a small buffer for one answer costs few page faults, a large one makes few trips.
        let mut buffer = vec![0; if matches!(ask, Ask::All) { 1 << 15 } else { 1 << 13 }];
        loop {
            let (length, _) = self.socket.recv(&mut buffer, Msg::empty()).map_err(|e| errno(&e))?;
            let mut answers = Cursor::new(&buffer[..length]);
            while answers.position() < length as u64 {
                let answer = Nlmsghdr::<u16, Buffer>::from_bytes(&mut answers).map_err(|_| Errno::EBADMSG)?;
                // What is left of an earlier request that ended early.
                if *answer.nl_seq() == sequence && is_last(&answer, &mut each)? {
                    return Ok(());
                }
            }
        }
    }
}

/// Hands a payload on, and says whether that was the end of the answer.
fn is_last<A: FromBytesWithInput<Input = usize>>(
    answer: &Nlmsghdr<u16, Buffer>,
    each: &mut impl FnMut(A),
) -> Result<bool, Errno> {
    match answer.nl_payload() {
        NlPayload::Ack(_) | NlPayload::Empty => Ok(true),
        NlPayload::DumpExtAck(end) if *end.error() < 0 => Err(Errno::from_raw(-end.error())),
        NlPayload::DumpExtAck(_) => Ok(true),
        NlPayload::Err(e) => Err(Errno::from_raw(-e.error())),
        NlPayload::Payload(_) if *answer.nl_type() == u16::from(Nlmsg::Done) => Ok(true),
        NlPayload::Payload(bytes) => {
            let mut cursor = Cursor::new(bytes.as_ref());
            each(A::from_bytes_with_input(&mut cursor, bytes.as_ref().len()).map_err(|_| Errno::EBADMSG)?);
            Ok(false)
        }
    }
}

/// The type of a request to one part of netfilter: nfnetlink.h.
fn netfilter_type(subsystem: libc::c_int, message: u16) -> u16 {
    ((subsystem.cast_unsigned() as u16) << 8) | message
}

/// A `struct nfgenmsg` (family, version 0, resource 0) and attributes.
fn netfilter_message(family: libc::c_int, attributes: &[Rtattr<u16, Buffer>]) -> Result<Buffer, Errno> {
    let mut cursor = Cursor::new(vec![family.cast_unsigned() as u8, 0, 0, 0]);
    cursor.set_position(4);
    for one in attributes {
        one.to_bytes(&mut cursor).map_err(|_| Errno::EMSGSIZE)?;
    }
    Ok(cursor.into_inner().into())
}

fn errno(e: &std::io::Error) -> Errno {
    e.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// One attribute.
fn attribute<T: RtaType>(kind: T, payload: impl Size + ToBytes) -> Result<Rtattr<T, Buffer>, Errno> {
    RtattrBuilder::default().rta_type(kind).rta_payload(payload).build().map_err(|_| Errno::EMSGSIZE)
}

/// An attribute that holds others.
fn nested<T: RtaType>(kind: T, inner: Vec<Rtattr<u16, Buffer>>) -> Result<Rtattr<T, Buffer>, Errno> {
    attribute(kind, inner.into_iter().collect::<RtBuffer<u16, Buffer>>())
}

/// A string as the kernel wants it: with a zero byte at its end.
fn zero_ended(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// The value of an attribute, which stands in the byte order of the host.
fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}
