//! Void Linux's packages, read on the host: versions and patterns, property lists, the index of a repository, keys and
//! signatures, and packages. Owns the formats and what is believed of them; runs nothing of a package.
//!
//! Sources: xbps 0.60 (`lib/external/dewey.c`, `lib/pkgpattern_match.c`, `lib/repo.c`, `lib/verifysig.c`,
//! `lib/package_unpack.c`, `bin/xbps-create`, `bin/xbps-rindex`), proplib's property lists.

pub mod download;
pub mod fetch;
mod glob;
pub mod key;
pub mod location;
pub mod lock;
pub mod package;
pub mod pattern;
pub mod pkgver;
mod plists;
pub mod props;
pub mod release;
pub mod repodata;
pub mod resolve;
pub mod root;
mod stream;
pub mod version;

#[cfg(any(test, feature = "testing"))]
pub mod fixture;

use lib_common::error::{Code, Error};

/// What comes from a package or an index and is not as it has to be.
fn bad(message: impl Into<String>) -> Error {
    Error::new(Code::BadInput, message)
}

/// Text of a package, short enough and safe for an error.
fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(120).flat_map(char::escape_debug).collect();
    if text.chars().nth(120).is_some() {
        short.push('…');
    }
    short
}
