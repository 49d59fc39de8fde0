//! Versions in what programs say, and Firecracker's releases that are known to be bad.

use std::fmt;

/// `MAJOR.MINOR.PATCH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// The first word of a text that begins with a version, with or without a `v` before it. A third number that is
    /// missing is 0.
    pub fn find(text: &str) -> Option<Version> {
        text.split_whitespace().find_map(|word| {
            let word = word.strip_prefix('v').unwrap_or(word);
            let mut parts = word.splitn(3, '.');
            let number = |part: &str| {
                let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
                part[..end].parse::<u32>().ok()
            };
            let whole = |part: &str| part.parse::<u32>().ok();
            let (major, minor, patch) = (parts.next()?, parts.next()?, parts.next());
            let minor = if patch.is_some() { whole(minor) } else { number(minor) };
            Some(Version(whole(major)?, minor?, patch.map_or(Some(0), number)?))
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The oldest Firecracker that is driven.
pub(super) const FIRECRACKER_MIN: Version = Version(1, 10, 0);

/// The first in which nothing of the list below is wrong.
pub(super) const FIRECRACKER_GOOD: Version = Version(1, 16, 1);

/// From, before, and what is wrong. Sources: Firecracker's CHANGELOG.md, CVE-2026-5747.
const FIRECRACKER_BAD: [(Version, Version, &str); 3] = [
    (Version(0, 0, 0), Version(1, 16, 1), "after a snapshot is restored its vsock may stay silent"),
    (Version(1, 13, 0), Version(1, 14, 4), VIRTIO_PCI),
    (Version(1, 15, 0), Version(1, 15, 1), VIRTIO_PCI),
];

const VIRTIO_PCI: &str = "with virtio-pci a guest's root can write out of bounds (CVE-2026-5747)";

/// All that is wrong with a release of Firecracker.
pub(super) fn firecracker_faults(version: Version) -> Vec<&'static str> {
    let bad = FIRECRACKER_BAD.iter().filter(|(from, before, _)| (*from..*before).contains(&version));
    bad.map(|(.., what)| *what).collect()
}
