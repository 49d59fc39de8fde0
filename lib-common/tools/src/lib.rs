//! The verbs of the tools, and the command line that they share.

pub mod cli;
pub mod ops;
