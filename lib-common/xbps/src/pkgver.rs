//! A package's name with its version and revision: `name-1.2_1`.

use super::{bad, shown, version};
use lib_common::error::Result;
use std::cmp::Ordering;
use std::fmt;

/// The longest name, in bytes: xbps has 64 bytes for it with its NUL.
const MAX_NAME: usize = 63;
/// The longest version, in bytes; the file name has to fit.
const MAX_VERSION: usize = 128;

/// A name and a version with its revision. Ordered by name, then by version; versions that are equal but written
/// differently (`1.0_1`, `1_1`) by how they are written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PkgVer {
    text: String,
    /// Where the last `-` is.
    dash: usize,
}

impl PkgVer {
    /// Checks `NAME-VERSION_REVISION`. A name is made of letters, digits and `+-._~@`, and does not begin with a dot or
    /// a dash: it becomes a part of paths. xbps itself takes any name and more versions; docs/void.md has the list.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || bad(format!("`{}` is not a package's name and version (NAME-VERSION_REVISION)", shown(text)));
        let dash = text.rfind('-').ok_or_else(wrong)?;
        let (name, version) = (&text[..dash], &text[dash + 1..]);
        if !is_name(name) || !is_version(version) { Err(wrong()) } else { Ok(PkgVer { text: text.to_owned(), dash }) }
    }

    /// What is before the last `-`.
    pub fn name(&self) -> &str {
        &self.text[..self.dash]
    }

    /// What is behind it, with the revision.
    pub fn version(&self) -> &str {
        &self.text[self.dash + 1..]
    }

    /// Both, as they were written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// True if `name` can be a package's name.
pub fn is_name(name: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"+-._~@".contains(&b);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fine) && !name.starts_with(['.', '-'])
}

/// True for a version with a digit before its first `_`, and behind that a revision of digits and more `_`.
fn is_version(version: &str) -> bool {
    let fine = |b: u8| b.is_ascii_graphic() && !b":/-<>*?[]".contains(&b);
    let Some((number, revision)) = version.split_once('_') else { return false };
    version.len() <= MAX_VERSION
        && version.bytes().all(fine)
        && number.bytes().any(|b| b.is_ascii_digit())
        && !revision.is_empty()
        && revision.bytes().all(|b| b.is_ascii_digit() || b == b'_')
}

impl Ord for PkgVer {
    fn cmp(&self, other: &Self) -> Ordering {
        let versions = || version::compare(self.version(), other.version());
        self.name().cmp(other.name()).then_with(versions).then_with(|| self.text.cmp(&other.text))
    }
}

impl PartialOrd for PkgVer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for PkgVer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_dash_parts_name_and_version() {
        for (text, name, version) in [
            ("bash-5.2.21_1", "bash", "5.2.21_1"),
            ("font-7x13-1_2", "font-7x13", "1_2"),
            ("libstdc++-13.2.0_2", "libstdc++", "13.2.0_2"),
            ("linux6.6-6.6.1_1", "linux6.6", "6.6.1_1"),
            ("NetworkManager-1_1", "NetworkManager", "1_1"),
            ("x-1.0_1_2", "x", "1.0_1_2"),
            ("__two-2_1_", "__two", "2_1_"),
            ("at@sign~-1_1", "at@sign~", "1_1"),
        ] {
            let pkgver = PkgVer::parse(text).unwrap();
            assert_eq!((pkgver.name(), pkgver.version(), pkgver.to_string().as_str()), (name, version, text));
        }
        let (long, longer) = ("n".repeat(63) + "-1_1", "n".repeat(64) + "-1_1");
        assert!(PkgVer::parse(&long).is_ok());
        for bad in [
            "",
            "bash",
            "bash-",
            "bash-1",
            "bash-1_",
            "-1_1",
            "bash-a_1",
            "bash-1_a",
            "a/b-1_1",
            "../x-1_1",
            "b-1/_1",
            ".x-1_1",
            "a-1_1.x86_64",
            "a-_1_1",
            "a-1:2_1",
            "a b-1_1",
            "a-1 _1",
            "ä-1_1",
            "a-1\n_1",
            &longer,
        ] {
            assert!(PkgVer::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_go_before_versions() {
        let mut list = ["b-1_1", "a-10_1", "a-9_2", "a-9_10", "a-9.0_2"].map(|t| PkgVer::parse(t).unwrap());
        list.sort();
        assert_eq!(list.map(|p| p.to_string()), ["a-9.0_2", "a-9_2", "a-9_10", "a-10_1", "b-1_1"]);
    }
}
