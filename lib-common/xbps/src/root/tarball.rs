//! The tarball of a whole root file system becomes a tree: what does not belong into an image is left out, what is added takes
//! its place, and its own package database says what is installed.

use super::alternatives::Link;
use super::tree::Tree;
use super::{Extra, PKGDB, Scripts, Stopped};
use crate::package::tarball::{Item, walk};
use crate::package::{Entry, EntryKind};
use crate::pkgver::PkgVer;
use crate::release::Release;
use crate::{bad, plists, shown};
use lib_common::doc::ManifestEntry;
use lib_common::error::{Code, Error, Result};
use plist::{Dictionary, Value};
use std::collections::BTreeMap;
use std::io::Write;

/// The most that a package database may have, in bytes.
const MAX_PKGDB: u64 = 64 << 20;
/// Links that switch on a login at a terminal; there is none.
const GETTYS: &str = "etc/runit/runsvdir/default/agetty-";

/// A tarball has its alternatives as links already.
static NO_LINKS: BTreeMap<String, Link> = BTreeMap::new();

/// Writes the tree, with the one script `extra.last` for the configure boot. Gives what is installed.
///
/// # Errors
/// Those of the tarball, which name it; [`Code::BadInput`] where it has no package database.
pub fn write_tarball(release: Release, extra: &Extra<'_>, to: impl Write) -> Result<Vec<ManifestEntry>, Stopped> {
    let Release { file, name, .. } = release;
    let (mut tree, mut stopped, mut database) = (Tree::new(to, extra, &NO_LINKS), None, None);
    let mut given = |done: Result<(), Stopped>| match done {
        Ok(()) => Ok(()),
        Err(Stopped::Package(e)) => Err(e),
        Err(Stopped::Output(e)) => {
            stopped = Some(e);
            Err(Error::new(Code::Io, "the disk's end is gone"))
        }
    };
    let read = walk(file, &name, &mut |item| match item {
        Item::Directory(path, mode, owner) => given(tree.directory(path, mode, owner)),
        Item::Entry(entry) if entry.path.starts_with(GETTYS) => Ok(()),
        Item::Entry(entry) if entry.path == PKGDB => {
            let bytes = content(entry)?;
            let done = given(tree.file_of(PKGDB, &name, &bytes));
            database = Some(bytes);
            done
        }
        Item::Entry(entry) => given(tree.package((0, &name), entry)),
    });
    match (stopped, read) {
        (Some(e), _) => return Err(Stopped::Output(e)),
        (None, read) => read?,
    }
    let of = |e: Error| e.within(format!("{name} is no root file system of Void's"));
    let database = database.ok_or_else(|| of(bad(format!("it has no {PKGDB}"))))?;
    let installed = plists::read(&database[..], PKGDB).and_then(|all| installed(&all)).map_err(of)?;
    let mut scripts = Scripts::new(extra.arch);
    scripts.push_last(extra);
    scripts.write(&mut tree, extra.epoch)?;
    tree.finish()?;
    Ok(installed)
}

fn content(entry: Entry<'_>) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    if entry.kind != EntryKind::File || entry.size > MAX_PKGDB {
        return Err(bad(format!("its {PKGDB} is not a file of at most {MAX_PKGDB} bytes")));
    }
    entry.content.read_to_end(&mut bytes).map_err(|e| bad(format!("its {PKGDB} is damaged")).because(&e))?;
    Ok(bytes)
}

fn installed(database: &Dictionary) -> Result<Vec<ManifestEntry>> {
    let entries = database.iter().filter(|(name, _)| !name.starts_with("_XBPS_"));
    entries
        .map(|(name, value)| {
            let get = |key: &str| value.as_dictionary().and_then(|d| d.get(key)).and_then(Value::as_string);
            let wrong = |what: &str| bad(format!("its package `{}` {what}", shown(name)));
            if get("state") != Some("installed") {
                return Err(wrong("is not installed wholly"));
            }
            let pkgver = PkgVer::parse(get("pkgver").ok_or_else(|| wrong("has no version"))?)?;
            let architecture = get("architecture").ok_or_else(|| wrong("has no architecture"))?.to_owned();
            Ok(ManifestEntry { name: pkgver.name().into(), version: pkgver.version().into(), architecture })
        })
        .collect()
}
