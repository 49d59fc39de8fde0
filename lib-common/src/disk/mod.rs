//! Disks: ext4 file systems in files. Makes, checks, grows and clones them; the work with the format itself is
//! e2fsprogs' (1.47.1 or newer, with libarchive). Needs no root and mounts nothing. With the feature `guest` there is only
//! [`nested`].

#[cfg(feature = "host")]
pub mod clone;
#[cfg(feature = "host")]
pub mod ext4;
#[cfg(feature = "host")]
mod journal;
#[cfg(feature = "host")]
mod layout;
#[cfg(feature = "host")]
pub mod look;
pub mod nested;
#[cfg(feature = "host")]
pub mod seed;
#[cfg(feature = "host")]
pub mod superblock;
#[cfg(feature = "host")]
pub mod tree;
#[cfg(feature = "host")]
mod untrusted;

#[cfg(feature = "host")]
pub use clone::{check_disk, clone_disks};
