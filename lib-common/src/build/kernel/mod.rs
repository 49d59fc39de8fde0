//! Kernel bundles: an uncompressed kernel, the initrd that every VM starts from, and the modules.

pub mod bzimage;
pub mod elf;
pub mod unpack;
