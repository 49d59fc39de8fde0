//! `name-1.2_1`: a package of one version.

use super::{bad, version};
use crate::error::Result;
use std::cmp::Ordering;
use std::fmt;

/// The longest name, in bytes (xbps-create's limit).
const MAX_NAME: usize = 64;
/// No version is longer, in bytes.
const MAX_VERSION: usize = 128;

/// A package's name and its version with the revision.
#[derive(Clone, Debug)]
pub struct PkgVer {
    text: String,
    /// Where the dash between them is.
    dash: usize,
}

impl PkgVer {
    /// Splits at the last dash.
    ///
    /// # Errors
    /// [`crate::error::Code::BadInput`] for what has no version with a revision, or characters that a file's name cannot have.
    pub fn parse(text: &str) -> Result<Self> {
        let found = text.rfind('-').filter(|dash| is_name(&text[..*dash]) && is_version(&text[dash + 1..]));
        match found {
            Some(dash) => Ok(PkgVer { text: text.to_owned(), dash }),
            None => Err(bad(format!("`{}` is not a package with its version", short(text)))),
        }
    }

    /// Without the version.
    pub fn name(&self) -> &str {
        &self.text[..self.dash]
    }

    /// With the revision: `1.2_1`.
    pub fn version(&self) -> &str {
        &self.text[self.dash + 1..]
    }
}

/// What can be a package's name: it becomes a part of paths.
pub fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+-._@".contains(&b);
    text.len() <= MAX_NAME && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(allowed)
}

fn is_version(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+._~".contains(&b);
    let Some((version, revision)) = text.rsplit_once('_') else { return false };
    let has_digit = version.bytes().any(|b| b.is_ascii_digit());
    let is_revision = !revision.is_empty() && revision.bytes().all(|b| b.is_ascii_digit());
    text.len() <= MAX_VERSION && has_digit && is_revision && text.bytes().all(allowed)
}

/// The start of a text from elsewhere, for a message.
pub(super) fn short(text: &str) -> String {
    text.chars().take(100).collect::<String>().escape_debug().to_string()
}

impl fmt::Display for PkgVer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Ord for PkgVer {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name()).then_with(|| version::compare(self.version(), other.version()))
    }
}

impl PartialOrd for PkgVer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for PkgVer {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for PkgVer {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_version_are_split_at_the_last_dash() {
        for (text, name, version) in [
            ("bash-5.2.15_1", "bash", "5.2.15_1"),
            ("xorg-server-21.1_3", "xorg-server", "21.1_3"),
            ("gtk+3-3.24.1_1", "gtk+3", "3.24.1_1"),
        ] {
            let pkgver = PkgVer::parse(text).unwrap();
            assert_eq!((pkgver.name(), pkgver.version(), pkgver.to_string()), (name, version, text.into()));
        }
        let long = format!("{}-1_1", "n".repeat(65));
        for bad in
            ["", "bash", "bash-5", "bash-_1", "bash-5_", "-5_1", "../x-1_1", "a/b-1_1", "a-1:2_1", "a-1_1x", &long]
        {
            assert!(PkgVer::parse(bad).is_err(), "{bad}");
        }
    }
}
