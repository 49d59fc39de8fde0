//! The only place for `std::process::Command`, `unsafe`, ioctl, netlink and /proc. Knows no domain.

#[cfg(feature = "host")]
mod child;
#[cfg(feature = "host")]
pub mod cmd;
#[cfg(feature = "host")]
pub mod fs;
#[cfg(feature = "guest")]
pub mod guest_signal;
#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "guest")]
pub mod interface;
#[cfg(feature = "host")]
pub mod lock;
#[cfg(feature = "host")]
pub mod netlink;
#[cfg(feature = "host")]
pub mod netns;
#[cfg(feature = "host")]
pub mod poll;
#[cfg(feature = "host")]
pub mod process;
#[cfg(feature = "host")]
pub mod program;
#[cfg(feature = "host")]
pub mod records;
#[cfg(feature = "host")]
pub mod signal;
#[cfg(feature = "host")]
pub mod socket;
#[cfg(feature = "host")]
pub mod tsc;
#[cfg(feature = "host")]
pub mod tun;
#[cfg(feature = "guest")]
pub mod xattr;
