//! What banger's tools and its guest agent share. `ARCHITECTURE.md` has the map of all crates.

pub mod added;
pub mod digest;
pub mod doc;
pub mod error;
pub mod nested;
pub mod size;
pub mod sys;
pub mod timing;

pub use error::{Code, Error, Result};
