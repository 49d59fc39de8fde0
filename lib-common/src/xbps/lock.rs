//! The lock file: which packages a root file system is made of, in their order. With it the same root can be made again, from
//! the cache alone where that has them.

use super::location::Location;
use super::pkgver::PkgVer;
use super::resolve::{Chosen, Repository};
use crate::doc::Digest;
use crate::error::{Code, Error, Result};
use std::path::Path;

/// The first line.
const FIRST: &str = "# banger xbps lock 1";

/// A package that is going to be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Name and version.
    pub pkgver: PkgVer,
    /// `x86_64`, `noarch`.
    pub architecture: String,
    /// Of its archive.
    pub sha256: Digest,
    /// Of its archive, in bytes.
    pub size: u64,
    /// Whether nobody has asked for it by its name.
    pub automatic: bool,
    /// The repository.
    pub location: Location,
}

impl Locked {
    /// Of a package that was chosen.
    pub fn of(chosen: &Chosen, repositories: &[Repository]) -> Self {
        Locked {
            pkgver: chosen.entry.props.pkgver.clone(),
            architecture: chosen.entry.props.architecture.clone(),
            sha256: chosen.entry.sha256.clone(),
            size: chosen.entry.size,
            automatic: chosen.automatic,
            location: repositories[chosen.repository].location.clone(),
        }
    }

    /// Its archive's name.
    pub fn file_name(&self) -> String {
        format!("{}.{}.xbps", self.pkgver, self.architecture)
    }

    fn line(&self) -> String {
        let asked = if self.automatic { "automatic" } else { "asked" };
        let Locked { pkgver, architecture, sha256, size, location, .. } = self;
        format!("{pkgver} {architecture} {} {size} {asked} {location}", sha256.hex())
    }

    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.splitn(6, ' ').collect();
        let [pkgver, architecture, sha256, size, asked, location] = words[..] else { return None };
        Some(Locked {
            pkgver: PkgVer::parse(pkgver).ok()?,
            architecture: architecture.to_owned(),
            sha256: Digest::parse(&format!("sha256:{sha256}")).ok()?,
            size: size.parse().ok()?,
            automatic: asked == "automatic",
            location: Location::parse(location).ok()?,
        })
    }
}

/// The text of a lock file.
pub fn render(all: &[Locked]) -> String {
    let lines: Vec<String> = all.iter().map(Locked::line).collect();
    format!("{FIRST}\n{}\n", lines.join("\n"))
}

/// What a lock file says; nothing where there is none yet.
///
/// # Errors
/// [`Code::BadInput`] for a line that is none.
pub fn read(file: &Path) -> Result<Option<Vec<Locked>>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", file, &e)),
    };
    let wrong = |n: usize| Error::new(Code::BadInput, format!("line {n} of {} is none of a lock file", file.display()));
    if text.lines().next() != Some(FIRST) {
        return Err(wrong(1));
    }
    let lines = text.lines().enumerate().skip(1);
    lines.map(|(n, line)| Locked::parse(line).ok_or_else(|| wrong(n + 1))).collect::<Result<_>>().map(Some)
}
