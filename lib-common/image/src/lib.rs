//! Disks, kernels and root file systems, as files on the host. Knows no VM.

pub mod build;
pub mod disk;
