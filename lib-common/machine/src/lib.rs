//! VMs: the settings, the store of images and VMs, networks, the way to a guest, and the VMMs. Knows no command line.

pub mod config;
pub mod guest;
pub mod net;
pub mod store;
pub mod vmm;
