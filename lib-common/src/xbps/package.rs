//! One package's archive, `.xbps`: what it says of itself comes first, then its files. Nothing is written here, and no name
//! or size of it is believed before it was checked.

use super::bad;
use super::pkgver::{PkgVer, short};
use super::props::Props;
use super::repodata::{decompressed, dictionary};
use crate::error::{Error, Result};
use plist::Dictionary;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest script or property list of a package, in bytes: the list of linux-firmware's files has 2 MB.
const MAX_META: u64 = 64 << 20;
/// The most that a package may unpack to, in bytes.
const MAX_UNPACKED: u64 = 16 << 30;
/// The most files of a package.
const MAX_ENTRIES: usize = 1 << 20;
/// The longest path, in bytes: `PATH_MAX` without the NUL.
const MAX_PATH: usize = 4095;
/// `NAME_MAX`.
const MAX_NAME: usize = 255;

/// The architecture of what runs anywhere.
pub const ANY_ARCH: &str = "noarch";

/// An archive of which the part in front was read.
#[derive(Debug)]
pub struct Package {
    /// What it says of itself, as far as it counts here.
    pub props: Props,
    /// All that it says.
    pub dictionary: Dictionary,
    /// The script that configures it.
    pub install: Option<Vec<u8>>,
    /// The script that is run when it is removed.
    pub remove: Option<Vec<u8>>,
    /// The bytes of `files.plist`; none where the package is empty.
    pub files: Vec<u8>,
    file: PathBuf,
}

/// A file of a package.
pub struct Entry<'a> {
    /// `usr/bin/x`: relative, without `.` and `..`.
    pub path: &'a str,
    /// What it is.
    pub kind: EntryKind,
    /// Permissions, with setuid and the like.
    pub mode: u32,
    /// Its owner.
    pub uid: u64,
    /// Its group.
    pub gid: u64,
    /// In bytes; 0 for links.
    pub size: u64,
    /// So many bytes.
    pub content: &'a mut dyn Read,
}

/// What a file of a package is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A symbolic link to this.
    Symlink(String),
    /// Another name of this path, which came before.
    Hardlink(String),
}

impl Package {
    /// Reads the part in front of the files. The file is what the index says, by its digest.
    ///
    /// # Errors
    /// [`crate::error::Code::BadInput`], with the package's name, for what is no package, is damaged, or is not the one of
    /// that version and architecture.
    pub fn open(file: &Path, expected: &PkgVer, arch: &str) -> Result<Self> {
        Package::read(file, expected, arch).map_err(|e| damaged(e, expected))
    }

    fn read(file: &Path, expected: &PkgVer, arch: &str) -> Result<Self> {
        let mut meta: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut archive = tar::Archive::new(decompressed(file)?);
        for entry in archive.entries()? {
            let entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let Some(name) = meta_name(&name) else { break };
            let size = entry.size();
            if size > MAX_META {
                return Err(bad(format!("its {name} has {size} bytes")));
            }
            let mut bytes = vec![];
            entry.take(size).read_to_end(&mut bytes)?;
            if meta.insert(name.to_owned(), bytes).is_some() {
                return Err(bad(format!("it has {name} twice")));
            }
        }
        let Some(props) = meta.get("props.plist") else { return Err(bad("it has no props.plist in front")) };
        let dictionary = dictionary(props)?;
        let props = Props::of(&dictionary, expected.name())?;
        if props.pkgver.to_string() != expected.to_string() {
            return Err(bad(format!("it is {}", props.pkgver)));
        }
        if ![arch, ANY_ARCH].contains(&props.architecture.as_str()) {
            return Err(bad(format!("it is for {}, not for {arch}", short(&props.architecture))));
        }
        let (install, remove) = (meta.remove("INSTALL"), meta.remove("REMOVE"));
        let files = meta.remove("files.plist").unwrap_or_default();
        Ok(Package { props, dictionary, install, remove, files, file: file.to_owned() })
    }

    /// Its files, in the archive's order. The archive is read to its end.
    ///
    /// # Errors
    /// [`crate::error::Code::BadInput`], with the package's name, for a path that leads out or is there twice, a link that
    /// leads out, or anything that is neither file nor link; those of `each` as they are.
    pub fn entries(self, each: &mut dyn FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
        let mut archive = tar::Archive::new(decompressed(&self.file)?.take(MAX_UNPACKED));
        let mut seen: BTreeMap<String, bool> = BTreeMap::new();
        let ours = |e: Error| damaged(e, &self.props.pkgver);
        for entry in archive.entries()? {
            let mut entry = entry.map_err(|e| ours(e.into()))?;
            let name =
                String::from_utf8(entry.path_bytes().into_owned()).map_err(|_| ours(bad("a path is not UTF-8")))?;
            if meta_name(&name).is_some() || entry.header().entry_type().is_dir() {
                continue;
            }
            let path = checked(&name).map_err(ours)?.to_owned();
            let kind = kind(&entry, &seen).map_err(|e| ours(e.within(format!("`{}`", short(&path)))))?;
            if seen.insert(path.clone(), kind == EntryKind::File).is_some() || seen.len() > MAX_ENTRIES {
                return Err(ours(bad(format!("it has `{}` twice", short(&path)))));
            }
            let header = entry.header();
            let number = |n: std::io::Result<u64>| n.map_err(|e| ours(e.into()));
            let (uid, gid) = (number(header.uid())?, number(header.gid())?);
            let mode = header.mode().map_err(|e| ours(e.into()))? & 0o7777;
            let size = if kind == EntryKind::File { entry.size() } else { 0 };
            each(Entry { path: &path, kind, mode, uid, gid, size, content: &mut entry })?;
        }
        // What is cut off behind the last file is damaged, too.
        let mut rest = archive.into_inner();
        std::io::copy(&mut rest, &mut std::io::sink()).map_err(|e| ours(e.into()))?;
        if rest.limit() == 0 { Err(ours(bad(format!("it unpacks to more than {MAX_UNPACKED} bytes")))) } else { Ok(()) }
    }
}

/// An error of the package's own: what cannot be read of a local file is damaged.
fn damaged(e: Error, pkgver: &PkgVer) -> Error {
    e.with_code(crate::error::Code::BadInput).within(format!("the package {pkgver} cannot be taken"))
}

/// The name of a file in front.
fn meta_name(name: &str) -> Option<&str> {
    name.strip_prefix("./").filter(|name| ["INSTALL", "REMOVE", "props.plist", "files.plist"].contains(name))
}

/// The path without `./`.
fn checked(name: &str) -> Result<&str> {
    let fine = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= MAX_NAME;
    match name.strip_prefix("./") {
        Some(path) if path.len() <= MAX_PATH && !path.contains('\0') && path.split('/').all(fine) => Ok(path),
        _ => Err(bad(format!("its path `{}` leads out, or is none", short(name)))),
    }
}

fn kind(entry: &tar::Entry<'_, impl Read>, seen: &BTreeMap<String, bool>) -> Result<EntryKind> {
    let target = || -> Result<String> {
        let bytes = entry.link_name_bytes().unwrap_or_default().into_owned();
        match String::from_utf8(bytes) {
            Ok(target) if !target.is_empty() && target.len() <= MAX_PATH && !target.contains('\0') => Ok(target),
            _ => Err(bad("it is a link to nowhere")),
        }
    };
    match entry.header().entry_type() {
        tar::EntryType::Regular | tar::EntryType::Continuous => Ok(EntryKind::File),
        tar::EntryType::Symlink => Ok(EntryKind::Symlink(target()?)),
        tar::EntryType::Link => {
            let target = target()?;
            let path = checked(&target)?;
            if seen.get(path) == Some(&true) {
                return Ok(EntryKind::Hardlink(path.to_owned()));
            }
            Err(bad(format!(
                "it is a hard link to `{}`, which is no file of the package in front of it",
                short(&target)
            )))
        }
        _ => Err(bad("it is neither a file nor a link")),
    }
}
