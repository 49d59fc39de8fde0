//! The verbs of the tools: each takes what the command line gave and a context, and works with the other modules.

pub mod rootfs;
