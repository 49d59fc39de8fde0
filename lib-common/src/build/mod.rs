//! What images are made of: the kernel bundle, root file systems, their digests and manifests.
//!
//! Nothing here starts a program but through `sys::cmd`, and nothing here prints.

pub mod digest;
pub mod kernel;
