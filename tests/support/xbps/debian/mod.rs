//! Debian's packages in the clothes of Void's: downloaded by apt into a cache, and packed anew.

pub mod apt;
pub mod control;
pub mod repack;
pub mod shlib;
pub mod tree;
