//! Packages become one tree: a tar that mke2fs reads, so that nothing is unpacked on the host and nothing there can be
//! overwritten. Everything that belongs to xbps is in it, and nothing has the time of today.

mod alternatives;
mod tarball;
mod tree;

use super::key::Key;
use super::package::Package;
use super::resolve::Chosen;
use crate::build::added::Added;
use crate::doc::CONFIGURE_DIR;
use crate::error::{Code, Error, Result};
use alternatives::Alternatives;
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
    /// What is run after the packages' scripts, under this name.
    pub last: (&'a str, &'a str),
    /// The keys that the guest's xbps is to trust, and whose they are.
    pub keys: &'a [(Key, String)],
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
    let mut tree = Tree::new(to, extra);
    let (mut database, mut metadata, mut scripts) = (BTreeMap::new(), vec![], Scripts::default());
    let mut alternatives = Alternatives::default();
    for Unpacked { chosen, package } in all {
        let name = package.props.pkgver.name().to_owned();
        database.insert(name.clone(), Value::Dictionary(installed(&chosen, &package)?));
        alternatives.add(&name, &package)?;
        scripts.add(&package);
        if !package.files.is_empty() {
            metadata.push((format!("var/db/xbps/.{name}-files.plist"), xml(package.files.clone())?));
        }
        let mut stopped = None;
        let read = package.entries(&mut |entry| match tree.package(&name, entry) {
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
    for (path, target) in &alternatives.links {
        tree.own(path, 0o777, &Own::Link(target))?;
    }
    database.insert("_XBPS_ALTERNATIVES_".into(), alternatives.value());
    metadata.push((PKGDB.into(), xml(database.into_iter().collect())?));
    for (key, signed_by) in extra.keys {
        let mut dictionary = key.dictionary();
        dictionary.insert("signature-by".into(), signed_by.as_str().into());
        metadata.push((format!("var/db/xbps/keys/{}.plist", key.fingerprint()), xml(dictionary)?));
    }
    for (path, bytes) in &metadata {
        tree.own(path, 0o644, &Own::File(bytes))?;
    }
    scripts.push_last(extra);
    scripts.write(&mut tree, extra.epoch)?;
    tree.finish()
}

/// A package's entry in the database, as xbps writes it with `--reproducible`.
fn installed(chosen: &Chosen, package: &Package) -> Result<Dictionary> {
    let mut entry: BTreeMap<String, Value> = package.dictionary.clone().into_iter().collect();
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
        entry.insert("metafile-sha256".into(), crate::digest::of_bytes(&xml(package.files.clone())?).hex().into());
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

/// The packages' scripts for the configure boot.
#[derive(Default)]
struct Scripts {
    list: String,
    files: Vec<Vec<u8>>,
}

impl Scripts {
    fn add(&mut self, package: &Package) {
        if let Some(script) = &package.install {
            self.files.push(script.clone());
            let (n, props) = (self.files.len(), &package.props);
            let pkgver = &props.pkgver;
            self.list += &format!("{n:03} {} {} {}\n", pkgver.name(), pkgver.version(), props.architecture);
        }
    }

    /// What is run after the others.
    fn push_last(&mut self, extra: &Extra<'_>) {
        let (name, script) = extra.last;
        self.files.push(script.into());
        self.list += &format!("{:03} {name} 1 noarch\n", self.files.len());
    }

    fn write(&self, tree: &mut Tree<'_, impl Write>, epoch: u64) -> Result<(), Stopped> {
        let dir = CONFIGURE_DIR.trim_start_matches('/');
        tree.dir(dir, 0o700)?;
        let epoch = format!("{epoch}\n");
        for (name, text) in [("list", &self.list), ("epoch", &epoch)] {
            tree.own(&format!("{dir}/{name}"), 0o644, &Own::File(text.as_bytes()))?;
        }
        for (n, script) in self.files.iter().enumerate() {
            tree.own(&format!("{dir}/{:03}", n + 1), 0o755, &Own::File(script))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
