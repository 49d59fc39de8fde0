//! Kernel bundles, root file systems, package manifests: what an image is made of.
//!
//! Nothing here starts a program but through `sys::cmd`, and nothing here prints.

pub mod debian;
pub mod distro;
pub mod image;
pub mod kernel;
pub mod manifest;
pub mod package_list;
pub mod rootfs;
pub mod sets;
pub mod slot;
pub mod void;
