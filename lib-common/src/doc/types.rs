//! Values that are checked when they are made: names, absolute paths, digests.

use crate::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// The name of an image or a VM: 1 to 63 of `a-z`, `0-9` and `-`, beginning and ending with a letter or digit, so
/// that it is a host name, a file name and never an option.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema), schemars(extend("pattern" = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")))]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Checks a name.
    pub fn parse(text: &str) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty()
            || text.len() > 63
            || !text.chars().all(allowed)
            || text.starts_with('-')
            || text.ends_with('-')
        {
            return Err(Error::new(Code::BadValue, format!("`{}` is not a name", text.escape_debug()))
                .hint("a name is 1 to 63 of a-z, 0-9 and `-`, and begins and ends with a letter or digit"));
        }
        Ok(Name(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Name {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Name::parse(text)
    }
}

/// An absolute UTF-8 path without `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema), schemars(extend("pattern" = "^/")))]
#[serde(try_from = "String", into = "String")]
pub struct AbsPath(String);

impl AbsPath {
    /// Checks a path.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let fine = path.is_absolute() && !path.components().any(|c| c == std::path::Component::ParentDir);
        match path.to_str() {
            Some(text) if fine && !text.contains('\0') => Ok(AbsPath(text.to_owned())),
            _ => Err(Error::new(
                Code::BadValue,
                format!("`{}` is not an absolute UTF-8 path without `..`", path.display()),
            )),
        }
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for AbsPath {
    type Target = Path;
    fn deref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl AsRef<Path> for AbsPath {
    fn as_ref(&self) -> &Path {
        self
    }
}

/// `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema), schemars(extend("pattern" = "^sha256:[0-9a-f]{64}$")))]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Checks a digest.
    pub fn parse(text: &str) -> Result<Self> {
        let fine = |hex: &str| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match text.strip_prefix("sha256:") {
            Some(hex) if fine(hex) => Ok(Digest(text.to_owned())),
            _ => Err(Error::new(
                Code::BadValue,
                format!("`{}` is not a digest (sha256: and 64 hex digits)", text.escape_debug()),
            )),
        }
    }

    /// From the 32 bytes of a SHA-256.
    pub fn from_sha256(bytes: &[u8]) -> Self {
        use fmt::Write as _;
        let mut text = String::from("sha256:");
        for b in bytes {
            let _ = write!(text, "{b:02x}");
        }
        debug_assert_eq!(text.len(), 71);
        Digest(text)
    }

    /// The 64 digits alone, for file names.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The digest as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text_value {
    ($($type:ident: $parse:expr;)*) => { $(
        impl TryFrom<String> for $type {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> { $parse(&text) }
        }
        impl From<$type> for String {
            fn from(value: $type) -> String { value.0 }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
    )* };
}

text_value! {
    Name: Name::parse;
    AbsPath: |text: &str| AbsPath::new(text);
    Digest: Digest::parse;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_host_names_and_never_options() {
        for good in ["a", "dev", "7", "a-b", &"x".repeat(63)] {
            assert!(Name::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", "a\n", "é", &"x".repeat(64)] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_absolute_and_do_not_climb() {
        assert!(AbsPath::new("/a/b").is_ok());
        for bad in ["", "a", "/a/../b", "/a\0"] {
            assert!(AbsPath::new(bad).is_err(), "{bad:?}");
        }
    }
}
