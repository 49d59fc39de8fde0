//! The only place for `std::process::Command`, `unsafe`, ioctl, netlink and /proc. Knows no domain.

mod child;
mod child_pipe;
pub mod cmd;
pub mod dirs;
pub mod ended;
pub mod fs;
pub mod guest_program;
pub mod guest_signal;
pub mod host;
pub mod interface;
pub mod limits;
pub mod lock;
pub mod netlink;
pub mod netns;
pub mod owned;
pub mod plain;
pub mod poll;
pub mod process;
pub mod program;
pub mod random;
pub mod records;
pub mod signal;
pub mod socket;
pub mod thread;
pub mod tsc;
pub mod tun;
pub mod xattr;
