//! Kernel bundles: an uncompressed kernel, the initrd that every VM starts from, and the modules.

pub mod bzimage;
pub mod deb;
pub mod elf;
pub mod initrd;
pub mod modules;
pub mod unpack;
