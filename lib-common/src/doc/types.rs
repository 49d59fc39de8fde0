//! Values that are checked when they are made: names, absolute paths, digests, a kernel's arguments.

use crate::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
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
            let error = Error::new(Code::BadValue, format!("`{}` is not a name", text.escape_debug()));
            if let Some(name) = text.strip_suffix(HOST_SUFFIX).and_then(|name| Name::parse(name).ok()) {
                return Err(error.hint(format!("name it `{name}`: ssh knows the VM as {name}{HOST_SUFFIX} then")));
            }
            return Err(error.hint("a name is 1 to 63 of a-z, 0-9 and `-`, and begins and ends with a letter or digit"));
        }
        Ok(Name(text.to_owned()))
    }

    /// The name of a VM that is there, or the host name by which ssh knows it.
    pub fn of_vm(text: &str) -> Result<Self> {
        Name::parse(text.strip_suffix(HOST_SUFFIX).unwrap_or(text))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the host name of a VM ends with in the configuration that `bg-ssh --config` prints.
const HOST_SUFFIX: &str = ".vm";

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

/// A relative UTF-8 path that stays below where it begins: without `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema), schemars(extend("pattern" = "^[^/]")))]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(String);

impl RelPath {
    /// Checks a path.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let fine = !path.as_os_str().is_empty()
            && path.components().all(|c| matches!(c, std::path::Component::Normal(_) | std::path::Component::CurDir));
        match path.to_str() {
            Some(text) if fine && !text.contains('\0') => Ok(RelPath(text.to_owned())),
            _ => Err(Error::new(Code::BadValue, format!("`{}` is not a relative path without `..`", path.display()))),
        }
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
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

/// What is appended to a guest kernel's command line: at most 1,024 printable ASCII characters, white space around them
/// left out. The kernel reads it word by word (its Documentation/admin-guide/kernel-parameters.rst).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema), schemars(extend("pattern" = "^[ -~]{0,1024}$")))]
#[serde(try_from = "String", into = "String")]
pub struct KernelArgs(String);

impl KernelArgs {
    /// Checks arguments.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let bad = |what: &str| Err(Error::new(Code::BadValue, format!("the kernel's arguments {what}")));
        if !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return bad("have a character that is no printable ASCII");
        }
        // A kernel takes the rest of its line for one word, whatever a VMM appends to it.
        if text.bytes().filter(|b| *b == b'"').count() % 2 != 0 {
            return bad("have a quotation mark without its other");
        }
        // For the kernel that ends its own arguments: what a VMM appends would be the init's.
        if text.split(' ').any(|word| word == "--") {
            return bad("have the word `--`");
        }
        if text.len() > 1024 { bad("are longer than 1024 characters") } else { Ok(KernelArgs(text.to_owned())) }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::str::FromStr for KernelArgs {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        KernelArgs::parse(text)
    }
}

/// A hardware address: six pairs of lower-case hexadecimal digits with colons between.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema), schemars(extend("pattern" = "^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")))]
#[serde(try_from = "String", into = "String")]
pub struct Mac(String);

impl Mac {
    /// From its six bytes.
    pub fn new(bytes: [u8; 6]) -> Self {
        Mac(bytes.map(|b| format!("{b:02x}")).join(":"))
    }

    /// Checks an address.
    pub fn parse(text: &str) -> Result<Self> {
        let pair = |p: &str| p.len() == 2 && p.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if text.split(':').count() == 6 && text.split(':').all(pair) {
            return Ok(Mac(text.to_owned()));
        }
        Err(Error::new(Code::BadValue, format!("`{}` is not a hardware address", text.escape_debug()))
            .hint("such as 02:12:34:56:78:9a"))
    }
}

/// An IPv4 address with the length of its network's prefix: `172.16.224.2/20`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema), schemars(with = "String", extend("pattern" = "^[0-9.]+/[0-9]+$")))]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: Ipv4Addr,
    prefix: u8,
}

impl Cidr {
    /// An address in a network; a prefix has 32 bits at most.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Result<Self> {
        match prefix {
            0..=32 => Ok(Cidr { address, prefix }),
            _ => Err(Error::new(Code::BadValue, format!("{prefix} is not the length of a prefix: 32 is the most"))),
        }
    }

    /// Checks `ADDRESS/PREFIX`.
    pub fn parse(text: &str) -> Result<Self> {
        let parts = text.split_once('/').and_then(|(a, p)| Some((a.parse().ok()?, p.parse().ok()?)));
        let (address, prefix) = parts.ok_or_else(|| {
            Error::new(Code::BadValue, format!("`{}` is not an IPv4 address with a prefix", text.escape_debug()))
                .hint("such as 172.16.224.0/20")
        })?;
        Cidr::new(address, prefix)
    }

    /// The address.
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// The length of the prefix.
    pub fn prefix(self) -> u8 {
        self.prefix
    }
}

impl TryFrom<String> for Cidr {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Cidr::parse(&text)
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl std::str::FromStr for Cidr {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Cidr::parse(text)
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
    Mac: Mac::parse;
    KernelArgs: KernelArgs::parse;
    AbsPath: |text: &str| AbsPath::new(text);
    RelPath: |text: &str| RelPath::new(text);
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
    fn addresses_read_as_they_are_written() {
        assert_eq!(Mac::parse(Mac::new([2, 0, 0xab, 0, 0, 1]).0.as_str()).unwrap().to_string(), "02:00:ab:00:00:01");
        for bad in ["", "02:00:ab:00:00", "02:00:AB:00:00:01", "2:0:ab:0:0:1", "02-00-ab-00-00-01"] {
            assert!(Mac::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Cidr::parse("10.1.2.3/8").unwrap().to_string(), "10.1.2.3/8");
        for bad in ["", "10.1.2.3", "10.1.2/8", "10.1.2.3/33", "10.1.2.3/-1", "::1/64", "10.01.2.3/8"] {
            assert!(Cidr::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn arguments_of_a_kernel_are_words_of_one_line() {
        for (good, text) in [("", ""), (" a=b  c ", "a=b  c"), ("dyndbg=\"a b\"", "dyndbg=\"a b\""), ("a--b", "a--b")] {
            assert_eq!(KernelArgs::parse(good).unwrap().to_string(), text);
        }
        for bad in ["a\nb", "a\0", "é", "a=\"b c", "a -- b", "--", &"x".repeat(1025)] {
            assert!(KernelArgs::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths_are_absolute_and_do_not_climb() {
        assert!(AbsPath::new("/a/b").is_ok());
        for bad in ["", "a", "/a/../b", "/a\0"] {
            assert!(AbsPath::new(bad).is_err(), "{bad:?}");
        }
        assert!(RelPath::new("a/b").is_ok());
        for bad in ["", "/a", "../a", "a/../../b", "a\0"] {
            assert!(RelPath::new(bad).is_err(), "{bad:?}");
        }
    }
}
