// A socket is made of a descriptor.
#![allow(unsafe_code)]

use super::*;
use neli::socket::NlSocket;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use std::cell::Cell;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

/// What one end of a socket does as a kernel that knows no IPv6: each request that speaks of it is refused, every other one
/// done. Gives the attributes of each request, by their kinds, until the other end is closed.
fn kernel_without_ipv6(end: &OwnedFd) -> Vec<Vec<u16>> {
    let mut asked = vec![];
    let mut buffer = [0; 1 << 12];
    loop {
        let length = recv(end.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        if length == 0 {
            return asked;
        }
        let request = &buffer[..length];
        let kinds = kinds(&request[32..]);
        let refused = kinds.contains(&libc::IFLA_AF_SPEC);
        let error = if refused { -(Errno::EAFNOSUPPORT as i32) } else { 0 };
        // netlink(7): a header (length, NLMSG_ERROR, flags, sequence, port), the error, and what was asked.
        let said = if refused { request } else { &request[..16] };
        let mut answer = (20 + said.len() as u32).to_ne_bytes().to_vec();
        answer.extend([2_u16, 0].iter().flat_map(|n| n.to_ne_bytes()));
        answer.extend(&request[8..16]);
        answer.extend(error.to_ne_bytes());
        answer.extend(said);
        send(end.as_raw_fd(), &answer, MsgFlags::empty()).unwrap();
        asked.push(kinds);
    }
}

/// The kinds of the attributes that follow each other there.
fn kinds(mut attributes: &[u8]) -> Vec<u16> {
    let mut kinds = vec![];
    while let [l0, l1, k0, k1, ..] = *attributes {
        kinds.push(u16::from_ne_bytes([k0, k1]));
        let length = usize::from(u16::from_ne_bytes([l0, l1])).next_multiple_of(4);
        attributes = attributes.get(length..).unwrap_or_default();
    }
    kinds
}

#[test]
fn a_kernel_without_ipv6_changes_links_all_the_same() {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let kernel = std::thread::spawn(move || kernel_without_ipv6(&theirs));
    // SAFETY: the descriptor is open, and nobody else's.
    let socket = unsafe { NlSocket::from_raw_fd(ours.into_raw_fd()) };
    let netlink = Netlink { socket, sequence: Cell::new(0) };
    let change = Change { alias: Some("a".into()), up: true, no_ipv6_address: true, ..Change::default() };
    netlink.change_link("tap-pool-1", &change).unwrap();
    netlink.change_link("tap-pool-1", &Change { up: true, ..Change::default() }).unwrap();
    drop(netlink);
    let (name, alias) = (libc::IFLA_IFNAME, libc::IFLA_IFALIAS);
    assert_eq!(kernel.join().unwrap(), [vec![name, alias, libc::IFLA_AF_SPEC], vec![name, alias], vec![name]]);
}
