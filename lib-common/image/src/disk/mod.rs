//! Disks: ext4 file systems in files. Makes, checks, grows and clones them; the work with the format itself is
//! e2fsprogs' (1.47.1 or newer, with libarchive). Needs no root and mounts nothing.

pub mod clone;
pub mod ext4;
mod journal;
mod layout;
pub mod look;
pub mod seed;
pub mod superblock;
pub mod tree;
mod untrusted;

pub use clone::{check_disk, clone_disks};
