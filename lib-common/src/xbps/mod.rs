//! Void Linux's packages and repositories, read on the host to make a first root file system of them; whatever is installed
//! after that, the guest's own xbps installs. Nothing here runs a program, least of all one of a package's.
//!
//! Every size, path and version that is read comes from somebody else and is bounded and checked where it is read.
//!
//! Source of the formats: xbps 0.60 (xbps-create(1), xbps-rindex(1), xbps.d(5), and its library's sources).

pub mod download;
pub mod fetch;
pub mod key;
pub mod location;
pub mod lock;
pub mod package;
pub mod pattern;
pub mod pkgver;
pub mod props;
pub mod repodata;
pub mod resolve;
pub mod root;
pub mod version;

#[cfg(test)]
pub(crate) mod fixture;

use crate::error::{Code, Error};

/// What is wrong with something that was downloaded.
fn bad(message: impl Into<String>) -> Error {
    Error::new(Code::BadInput, message)
}
