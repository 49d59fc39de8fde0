//! The only place for `std::process::Command`, `unsafe`, ioctl, netlink and /proc. Knows no domain.

#[cfg(feature = "guest")]
pub mod guest_signal;
