//! TAP devices: /dev/net/tun and its ioctls. Knows no domain.
//!
//! Source: linux/if_tun.h. A TAP lives as long as somebody has it open, until it is told to stay.

#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

mod ioctl {
    use nix::libc;
    nix::ioctl_write_ptr_bad!(
        /// Makes a device, or opens one that is there.
        tunsetiff,
        nix::request_code_write!(b'T', 202, std::mem::size_of::<libc::c_int>()),
        libc::ifreq
    );
    nix::ioctl_write_int_bad!(
        /// Whether the device stays when nobody has it open.
        tunsetpersist,
        nix::request_code_write!(b'T', 203, std::mem::size_of::<libc::c_int>())
    );
    nix::ioctl_write_int_bad!(
        /// The user that may open the device.
        tunsetowner,
        nix::request_code_write!(b'T', 204, std::mem::size_of::<libc::c_int>())
    );
}

/// The program that makes and opens TAPs.
pub const DEVICE: &str = "/dev/net/tun";

/// A TAP that this process has open.
#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// Makes a TAP that `owner` may open; it is gone when this is dropped, unless it was told to stay. `EBUSY` where a TAP
    /// has the name already, `EINVAL` where another link has it or the name is longer than 15 bytes.
    pub fn create(name: &str, owner: u32) -> Result<Self, Errno> {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK);
        let file = options.open(DEVICE).map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
        let request = request(name)?;
        let owner = i32::try_from(owner).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the descriptor is open and the request is a whole, initialised ifreq.
        unsafe { ioctl::tunsetiff(file.as_raw_fd(), &raw const request) }?;
        // SAFETY: the descriptor is open; the argument is a plain number.
        unsafe { ioctl::tunsetowner(file.as_raw_fd(), owner) }?;
        Ok(Tap(file))
    }

    /// Lets it stay when nobody has it open, and closes it.
    pub fn persist(self) -> Result<(), Errno> {
        // SAFETY: the descriptor is open; the argument is a plain number.
        unsafe { ioctl::tunsetpersist(self.0.as_raw_fd(), 1) }?;
        Ok(())
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
        *to = from.cast_signed();
    }
    // Nobody is at its other end until somebody opens it. With a carrier the kernel would give it IPv6 addresses and routes,
    // and start it as a port of its bridge, only to take it all back when it is closed: that costs more the more TAPs there
    // are. Kernels before 6.1 do not know the flag, and do so.
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_TUN_EXCL | libc::IFF_NO_CARRIER;
    request.ifr_ifru.ifru_flags = flags.cast_unsigned() as u16 as i16;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_15_bytes_at_most() {
        assert!(request("tap-pool-1").is_ok() && request(&"x".repeat(15)).is_ok());
        assert_eq!(request(&"x".repeat(16)).err(), Some(Errno::EINVAL));
        assert_eq!(request("").err(), Some(Errno::EINVAL));
    }
}
