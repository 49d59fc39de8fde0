//! Packages become one tree: a tar that mke2fs reads, so that nothing is unpacked on the host and nothing there can be
//! overwritten. Everything that belongs to xbps is in it, and nothing has the time of today.

mod alternatives;
mod tarball;
mod tree;

use super::key::Key;
use super::package::Package;
use super::resolve::Chosen;
use alternatives::Alternatives;
use lib_common::added::Added;
use lib_common::doc::CONFIGURE_DIR;
use lib_common::error::{Code, Error, Result};
use plist::{Dictionary, Value};
use std::collections::BTreeMap;
use std::io::{self, Write};
pub use tarball::write_tarball;
use tree::{Own, Tree};

const PKGDB: &str = "var/db/xbps/pkgdb-0.38.plist";

/// What is made beside the packages' files.
#[derive(Debug)]
pub struct Extra<'a> {
    /// In place of what packages have under those paths.
    pub added: &'a [Added],
    /// What is run after the packages' scripts: its name and the script.
    pub last: Option<(&'a str, &'a str)>,
    /// The keys that the guest's xbps is to trust, and whose they are. A file that a package has there stays.
    pub keys: &'a [(Key, String)],
    /// True if the root has the directories that a system needs before anything runs in it.
    pub is_system: bool,
    /// The architecture of the root, which each package's script is told: also that of a package for all.
    pub arch: &'a str,
    /// The time of every file, in seconds since 1970.
    pub epoch: u64,
}

/// A package whose file is here.
#[derive(Debug)]
pub struct Unpacked {
    /// What it is, and why.
    pub chosen: Chosen,
    /// Its file.
    pub package: Package,
}

/// Which end broke.
#[derive(Debug)]
pub enum Stopped {
    /// Something is wrong with a package.
    Package(Error),
    /// Nobody takes the tar any more.
    Output(io::Error),
}

impl From<Error> for Stopped {
    fn from(e: Error) -> Self {
        Stopped::Package(e)
    }
}

/// Writes the tree of the packages, which are in the order of their installation.
///
/// # Errors
/// [`Code::BadInput`], with the package's name, for what cannot be in one tree: two owners of a file, a file below a link.
pub fn write_tar(all: Vec<Unpacked>, extra: &Extra<'_>, to: impl Write) -> Result<(), Stopped> {
    let alternatives = Alternatives::of(&all)?;
    let mut tree = Tree::new(to, extra, &alternatives.links);
    let (mut database, mut metadata, mut scripts) = (BTreeMap::new(), vec![], Scripts::new(extra.arch));
    for (number, Unpacked { chosen, package }) in all.into_iter().enumerate() {
        let name = package.props.pkgver.name().to_owned();
        database.insert(name.clone(), Value::Dictionary(installed(&chosen, &package)?));
        scripts.add(&package);
        if !package.files.is_empty() {
            metadata.push((format!("var/db/xbps/.{name}-files.plist"), xml(package.files.clone())?));
        }
        let mut stopped = None;
        let read = package.entries(&mut |entry| match tree.package((number, &name), entry) {
            Ok(()) => Ok(()),
            Err(Stopped::Package(e)) => Err(e),
            Err(Stopped::Output(e)) => {
                stopped = Some(e);
                Err(Error::new(Code::Io, "the disk's end is gone"))
            }
        });
        match (stopped, read) {
            (Some(e), _) => return Err(Stopped::Output(e)),
            (None, read) => read?,
        }
    }
    tree.links()?;
    database.insert("_XBPS_ALTERNATIVES_".into(), alternatives.value());
    metadata.push((PKGDB.into(), xml(database.into_iter().collect())?));
    for (key, signed_by) in extra.keys {
        let mut dictionary = key.dictionary();
        dictionary.insert("signature-by".into(), signed_by.as_str().into());
        let path = format!("var/db/xbps/keys/{}.plist", key.fingerprint());
        if !tree.has(&path) {
            metadata.push((path, xml(dictionary)?));
        }
    }
    for (path, bytes) in &metadata {
        tree.own(path, 0o644, &Own::File(bytes))?;
    }
    scripts.push_last(extra);
    scripts.write(&mut tree, extra.epoch)?;
    tree.finish()
}

/// What `props.plist` says and the database does not, since xbps 0.60: the pkgver has both, and the third is of the day on
/// which the package was made.
const NOT_IN_PKGDB: [&str; 3] = ["pkgname", "version", "packaged-with"];

/// A package's entry in the database, as xbps writes it with `--reproducible`.
fn installed(chosen: &Chosen, package: &Package) -> Result<Dictionary> {
    let mut entry: BTreeMap<String, Value> = package.dictionary.clone().into_iter().collect();
    NOT_IN_PKGDB.iter().for_each(|key| drop(entry.remove(*key)));
    entry.insert("state".into(), "installed".into());
    entry.insert("filename-sha256".into(), chosen.entry.sha256.hex().into());
    entry.insert("filename-size".into(), chosen.entry.size.into());
    if chosen.automatic {
        entry.insert("automatic-install".into(), true.into());
    }
    for (key, script) in [("install-script", &package.install), ("remove-script", &package.remove)] {
        if let Some(script) = script {
            entry.insert(key.into(), Value::Data(script.clone()));
        }
    }
    if !package.files.is_empty() {
        entry.insert("metafile-sha256".into(), lib_common::digest::of_bytes(&xml(package.files.clone())?).hex().into());
    }
    Ok(entry.into_iter().collect())
}

fn xml(dictionary: Dictionary) -> Result<Vec<u8>> {
    let mut text = vec![];
    let written = Value::Dictionary(dictionary).to_writer_xml(&mut text);
    written.map_err(|e| Error::new(Code::Internal, "a property list cannot be written").because(&e))?;
    text.push(b'\n');
    Ok(text)
}

/// The package whose script is run before all others: it makes the directories and users that they take for granted.
const FIRST: &str = "base-files";

/// The packages' scripts for the configure boot.
struct Scripts<'a> {
    arch: &'a str,
    /// A line of the list, without the file's number, and the script.
    all: Vec<(String, Vec<u8>)>,
}

impl<'a> Scripts<'a> {
    fn new(arch: &'a str) -> Self {
        Scripts { arch, all: vec![] }
    }

    fn add(&mut self, package: &Package) {
        if let Some(script) = &package.install {
            let pkgver = &package.props.pkgver;
            let line = format!("{} {} {}", pkgver.name(), pkgver.version(), self.arch);
            let at = if pkgver.name() == FIRST { 0 } else { self.all.len() };
            self.all.insert(at, (line, script.clone()));
        }
    }

    /// What is run after the others.
    fn push_last(&mut self, extra: &Extra<'_>) {
        if let Some((name, script)) = extra.last {
            self.all.push((format!("{name} 1 {}", self.arch), script.into()));
        }
    }

    /// Writes them; nothing where there is none.
    fn write(&self, tree: &mut Tree<'_, impl Write>, epoch: u64) -> Result<(), Stopped> {
        if self.all.is_empty() {
            return Ok(());
        }
        let dir = CONFIGURE_DIR.trim_start_matches('/');
        tree.dir(dir, 0o700)?;
        let numbered = self.all.iter().enumerate().map(|(n, (line, script))| (format!("{:03}", n + 1), line, script));
        let list: String = numbered.clone().map(|(file, line, _)| format!("{file} {line}\n")).collect();
        let epoch = format!("{epoch}\n");
        for (name, text) in [("list", &list), ("epoch", &epoch)] {
            tree.own(&format!("{dir}/{name}"), 0o644, &Own::File(text.as_bytes()))?;
        }
        for (file, _, script) in numbered {
            tree.own(&format!("{dir}/{file}"), 0o755, &Own::File(script))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
