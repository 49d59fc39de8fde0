//! A network interface's address and the default route, set by ioctl: without netlink's library, for `/init`.
//!
//! Sources: netdevice(7), route(8)'s `SIOCADDRT` in linux/route.h. Every failure is the kernel's errno.

#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

mod ioctl {
    use nix::libc;
    nix::ioctl_write_ptr_bad!(
        /// Sets the address.
        siocsifaddr,
        libc::SIOCSIFADDR,
        libc::ifreq
    );
    nix::ioctl_write_ptr_bad!(
        /// Sets the network's mask.
        siocsifnetmask,
        libc::SIOCSIFNETMASK,
        libc::ifreq
    );
    nix::ioctl_write_ptr_bad!(
        /// Sets the flags.
        siocsifflags,
        libc::SIOCSIFFLAGS,
        libc::ifreq
    );
    nix::ioctl_write_ptr_bad!(
        /// Adds a route.
        siocaddrt,
        libc::SIOCADDRT,
        libc::rtentry
    );
}

/// Gives an interface an address in a network and makes it ready; everything else is behind `gateway`. `ENODEV` where there
/// is no such interface.
pub fn set_up(name: &str, address: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> Result<(), Errno> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    let mut request = request(name)?;
    request.ifr_ifru.ifru_addr = generic(address);
    // SAFETY: the descriptor is open and the request is a whole, initialised ifreq; so are those below.
    unsafe { ioctl::siocsifaddr(socket.as_raw_fd(), &raw const request) }?;
    request.ifr_ifru.ifru_netmask = generic(Ipv4Addr::from_bits(mask));
    // SAFETY: as above.
    unsafe { ioctl::siocsifnetmask(socket.as_raw_fd(), &raw const request) }?;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: as above.
    unsafe { ioctl::siocsifflags(socket.as_raw_fd(), &raw const request) }?;
    add_default_route(&socket, gateway)
}

fn add_default_route(socket: &OwnedFd, gateway: Ipv4Addr) -> Result<(), Errno> {
    // SAFETY: rtentry is a C struct of numbers and pointers that may be null, for which zeros are a value.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    (route.rt_dst, route.rt_genmask) = (generic(Ipv4Addr::UNSPECIFIED), generic(Ipv4Addr::UNSPECIFIED));
    route.rt_gateway = generic(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: the descriptor is open and the route is a whole, initialised rtentry without a device's name.
    match unsafe { ioctl::siocaddrt(socket.as_raw_fd(), &raw const route) } {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(e) => Err(e),
    }
}

fn request(name: &str) -> Result<libc::ifreq, Errno> {
    // SAFETY: ifreq is a C struct of numbers and unions of numbers, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays the zero at the name's end.
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(Errno::EINVAL);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// An address as `struct sockaddr` has it: two bytes of port, four of address (ip(7)).
fn generic(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}
