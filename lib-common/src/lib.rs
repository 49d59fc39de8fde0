//! The library under banger's tools, one module a domain. `ARCHITECTURE.md` has the map.
//!
//! With the feature `guest` only [`doc`], [`error`], [`sys`] and [`disk::nested`] exist: that is all the guest agent may
//! use.

pub mod disk;
pub mod doc;
pub mod error;
pub mod size;
pub mod sys;

#[cfg(feature = "host")]
pub mod build;
#[cfg(feature = "host")]
pub mod cli;
#[cfg(feature = "host")]
pub mod config;
#[cfg(feature = "host")]
pub mod digest;
#[cfg(feature = "host")]
pub mod guest;
#[cfg(feature = "host")]
pub mod net;
#[cfg(feature = "host")]
pub mod ops;
#[cfg(feature = "host")]
pub mod store;
#[cfg(feature = "host")]
pub mod timing;
#[cfg(feature = "host")]
pub mod vmm;
#[cfg(feature = "host")]
pub mod xbps;

pub use error::{Code, Error, Result};
