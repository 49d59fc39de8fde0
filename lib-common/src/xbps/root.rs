//! Packages become one tree: a tar that mke2fs reads, so that nothing is unpacked on the host and nothing there can be
//! overwritten. Everything that belongs to xbps is in it, and nothing has the time of today.

use super::bad;
use super::key::Key;
use super::lock::Locked;
use super::package::{Entry, EntryKind, Package};
use super::pkgver::short;
use crate::build::debian::overlay::{Added, What};
use crate::doc::CONFIGURE_DIR;
use crate::error::{Code, Error, Result};
use crate::sys::signal;
use plist::{Dictionary, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use tar::{EntryType, Header};

/// The largest file whose text is edited, in bytes.
const MAX_EDITED: u64 = 1 << 20;
const PKGDB: &str = "var/db/xbps/pkgdb-0.38.plist";

/// What is made beside the packages' files.
#[derive(Debug)]
pub struct Extra<'a> {
    /// In place of what packages have under those paths.
    pub added: &'a [Added],
    /// How the text of a file is changed.
    pub edit: fn(&str) -> Option<fn(&str) -> String>,
    /// The keys that the guest's xbps is to trust, and whose they are.
    pub keys: &'a [(Key, String)],
    /// The time of every file, in seconds since 1970.
    pub epoch: u64,
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
pub fn write_tar(all: Vec<(Locked, Package)>, extra: &Extra<'_>, to: impl Write) -> Result<(), Stopped> {
    let mut tree = Tree::new(to, extra);
    let (mut database, mut metadata, mut scripts) = (BTreeMap::new(), vec![], Scripts::default());
    let mut alternatives = Alternatives::default();
    for (locked, package) in all {
        let name = locked.pkgver.name().to_owned();
        database.insert(name.clone(), Value::Dictionary(installed(&locked, &package)));
        alternatives.add(&name, &package)?;
        scripts.add(&locked, &package);
        if !package.files.is_empty() {
            metadata.push((format!("var/db/xbps/.{name}-files.plist"), package.files.clone()));
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
        metadata.push((format!("var/db/xbps/keys/{}.plist", key.fingerprint()), xml(key.to_plist(signed_by))?));
    }
    for (path, bytes) in &metadata {
        tree.own(path, 0o644, &Own::File(bytes))?;
    }
    scripts.write(&mut tree)?;
    tree.finish()
}

/// A package's entry in the database, as xbps writes it with `--reproducible`.
fn installed(locked: &Locked, package: &Package) -> Dictionary {
    let mut entry: BTreeMap<String, Value> = package.dictionary.clone().into_iter().collect();
    entry.insert("state".into(), "installed".into());
    entry.insert("filename-sha256".into(), locked.sha256.hex().into());
    entry.insert("filename-size".into(), locked.size.into());
    if locked.automatic {
        entry.insert("automatic-install".into(), true.into());
    }
    for (key, script) in [("install-script", &package.install), ("remove-script", &package.remove)] {
        if let Some(script) = script {
            entry.insert(key.into(), Value::Data(script.clone()));
        }
    }
    if !package.files.is_empty() {
        entry.insert("metafile-sha256".into(), crate::digest::of_bytes(&package.files).hex().into());
    }
    entry.into_iter().collect()
}

fn xml(dictionary: Dictionary) -> Result<Vec<u8>> {
    let mut text = vec![];
    let written = Value::Dictionary(dictionary).to_writer_xml(&mut text);
    written.map_err(|e| Error::new(Code::Internal, "a property list cannot be written").because(&e))?;
    text.push(b'\n');
    Ok(text)
}

/// Groups of which several packages offer one program each; the first that does is the one.
#[derive(Default)]
struct Alternatives {
    groups: BTreeMap<String, Vec<String>>,
    /// Paths without a slash in front, and where they lead.
    links: BTreeMap<String, String>,
}

impl Alternatives {
    fn add(&mut self, name: &str, package: &Package) -> Result<()> {
        for (group, links) in &package.props.alternatives {
            let members = self.groups.entry(group.clone()).or_default();
            members.push(name.to_owned());
            if members.len() > 1 {
                continue;
            }
            for text in links {
                let wrong = || bad(format!("the package `{name}` has the alternative `{}`", short(text)));
                let (link, target) = text.split_once(':').ok_or_else(wrong)?;
                let (path, target) = link_of(link, target).ok_or_else(wrong)?;
                self.links.insert(path, target);
            }
        }
        Ok(())
    }

    fn value(&self) -> Value {
        let names = |names: &Vec<String>| Value::Array(names.iter().map(|name| name.as_str().into()).collect());
        Value::Dictionary(self.groups.iter().map(|(group, all)| (group.clone(), names(all))).collect())
    }
}

/// The link's path, in its target's directory unless it says another, and the target relative to it.
fn link_of(link: &str, target: &str) -> Option<(String, String)> {
    let to = parts(target)?;
    let mut path = if link.starts_with('/') { vec![] } else { to[..to.len() - 1].to_vec() };
    path.extend(parts(link)?);
    let dir = &path[..path.len() - 1];
    let common = dir.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..", dir.len() - common);
    let relative: Vec<&str> = up.chain(to[common..].iter().copied()).collect();
    Some((path.join("/"), relative.join("/")))
}

fn parts(path: &str) -> Option<Vec<&str>> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let fine = !parts.is_empty() && !parts.iter().any(|part| [".", ".."].contains(part));
    fine.then_some(parts)
}

/// The packages' scripts for the configure boot.
#[derive(Default)]
struct Scripts {
    list: String,
    files: Vec<Vec<u8>>,
}

impl Scripts {
    fn add(&mut self, locked: &Locked, package: &Package) {
        if let Some(script) = &package.install {
            self.files.push(script.clone());
            let (n, pkgver) = (self.files.len(), &locked.pkgver);
            self.list += &format!("{n:03} {} {} {}\n", pkgver.name(), pkgver.version(), locked.architecture);
        }
    }

    fn write(&self, tree: &mut Tree<'_, impl Write>) -> Result<(), Stopped> {
        let dir = CONFIGURE_DIR.trim_start_matches('/');
        tree.dir(dir, 0o700)?;
        let epoch = format!("{}\n", tree.extra.epoch);
        for (name, text) in [("list", &self.list), ("epoch", &epoch)] {
            tree.own(&format!("{dir}/{name}"), 0o644, &Own::File(text.as_bytes()))?;
        }
        for (n, script) in self.files.iter().enumerate() {
            tree.own(&format!("{dir}/{:03}", n + 1), 0o755, &Own::File(script))?;
        }
        Ok(())
    }
}

/// Something that no package has brought.
enum Own<'a> {
    File(&'a [u8]),
    Link(&'a str),
}

/// A tree in the making.
struct Tree<'a, W: Write> {
    tar: tar::Builder<W>,
    extra: &'a Extra<'a>,
    dirs: BTreeSet<String>,
    /// Everything else, and whose it is.
    owners: BTreeMap<String, String>,
    skel: BTreeMap<String, Vec<u8>>,
}

/// Directories that a system has before anything runs in it, and their permissions.
const DIRS: [(&str, u32); 8] = [
    ("root", 0o700),
    ("tmp", 0o1777),
    ("proc", 0o555),
    ("sys", 0o555),
    ("dev", 0o755),
    ("run", 0o755),
    ("etc/runit/runsvdir/default", 0o755),
    ("var/db/xbps/keys", 0o755),
];

impl<'a, W: Write> Tree<'a, W> {
    fn new(to: W, extra: &'a Extra<'a>) -> Self {
        let (dirs, owners, skel) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        Tree { tar: tar::Builder::new(to), extra, dirs, owners, skel }
    }

    /// An entry of a package.
    fn package(&mut self, name: &str, entry: Entry<'_>) -> Result<(), Stopped> {
        signal::check()?;
        let path = entry.path.to_owned();
        if self.extra.added.iter().any(|added| added.path == path) {
            return Ok(());
        }
        self.claim(&path, name)?;
        let mut header = self.header(entry.mode, (entry.uid, entry.gid));
        match &entry.kind {
            EntryKind::Symlink(target) => self.link(&mut header, EntryType::Symlink, (&path, target)),
            EntryKind::Hardlink(target) => self.link(&mut header, EntryType::Link, (&path, target)),
            EntryKind::File => {
                let edit = (self.extra.edit)(&path);
                if edit.is_none() && !path.starts_with("etc/skel/") {
                    return self.file(&mut header, &path, (entry.size, entry.content));
                }
                let mut bytes = vec![];
                let read = entry.content.take(MAX_EDITED).read_to_end(&mut bytes);
                read.map_err(|e| bad(format!("`{path}` of the package `{name}` is damaged")).because(&e))?;
                if let Some(edit) = edit {
                    bytes = edit(&String::from_utf8_lossy(&bytes)).into_bytes();
                }
                self.file(&mut header, &path, (bytes.len() as u64, &mut bytes.as_slice()))?;
                if let Some(dotfile) = path.strip_prefix("etc/skel/") {
                    self.skel.insert(dotfile.to_owned(), bytes);
                }
                Ok(())
            }
        }
    }

    /// The path becomes the owner's, and nobody else's.
    fn claim(&mut self, path: &str, owner: &str) -> Result<(), Stopped> {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.parents(parent, owner)?;
        }
        if self.dirs.contains(path) {
            return Err(bad(format!("`{path}` of the package `{owner}` is a directory of another one")).into());
        }
        match self.owners.insert(path.to_owned(), owner.to_owned()) {
            None => Ok(()),
            Some(other) => Err(bad(format!("the packages `{other}` and `{owner}` both have `{path}`")).into()),
        }
    }

    fn parents(&mut self, dir: &str, owner: &str) -> Result<(), Stopped> {
        if self.dirs.contains(dir) {
            return Ok(());
        }
        if let Some(other) = self.owners.get(dir) {
            let message =
                format!("the package `{owner}` has a file below `{dir}`, which is a file or link of `{other}`");
            return Err(bad(message).into());
        }
        if let Some((parent, _)) = dir.rsplit_once('/') {
            self.parents(parent, owner)?;
        }
        let mode = DIRS.iter().find(|(path, _)| *path == dir).map_or(0o755, |(_, mode)| *mode);
        self.dir(dir, mode)
    }

    /// A directory, where there is none yet.
    fn dir(&mut self, path: &str, mode: u32) -> Result<(), Stopped> {
        if !self.dirs.insert(path.to_owned()) {
            return Ok(());
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.parents(parent, "the root file system")?;
        }
        let mut header = self.header(mode, (0, 0));
        header.set_entry_type(EntryType::Directory);
        self.file(&mut header, &format!("{path}/"), (0, &mut io::empty()))
    }

    fn own(&mut self, path: &str, mode: u32, what: &Own<'_>) -> Result<(), Stopped> {
        self.claim(path, "the root file system")?;
        let mut header = self.header(mode, (0, 0));
        match what {
            Own::File(bytes) => self.file(&mut header, path, (bytes.len() as u64, &mut &**bytes)),
            Own::Link(target) => self.link(&mut header, EntryType::Symlink, (path, target)),
        }
    }

    fn header(&self, mode: u32, (uid, gid): (u64, u64)) -> Header {
        let mut header = Header::new_gnu();
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(self.extra.epoch);
        header
    }

    fn file(&mut self, header: &mut Header, path: &str, (size, content): (u64, &mut dyn Read)) -> Result<(), Stopped> {
        header.set_size(size);
        let mut noted = Noted { inner: content, failed: None };
        let appended = self.tar.append_data(header, path, (&mut noted).take(size));
        match (noted.failed, appended) {
            (Some(e), _) => Err(bad(format!("`{path}` is damaged in its package")).because(&e).into()),
            (None, appended) => appended.map_err(Stopped::Output),
        }
    }

    fn link(&mut self, header: &mut Header, kind: EntryType, (path, target): (&str, &str)) -> Result<(), Stopped> {
        header.set_entry_type(kind);
        header.set_size(0);
        self.tar.append_link(header, path, target).map_err(Stopped::Output)
    }

    fn finish(mut self) -> Result<(), Stopped> {
        for (path, mode) in DIRS {
            self.dir(path, mode)?;
        }
        for (name, bytes) in std::mem::take(&mut self.skel) {
            let path = format!("root/{name}");
            if !self.owners.contains_key(&path) {
                self.own(&path, 0o644, &Own::File(&bytes))?;
            }
        }
        for Added { path, mode, what } in self.extra.added {
            match what {
                What::File(text) => self.own(path, *mode, &Own::File(text.as_bytes()))?,
                What::Link(target) => self.own(path, *mode, &Own::Link(target))?,
            }
        }
        self.tar.into_inner().and_then(|mut to| to.flush()).map_err(Stopped::Output)
    }
}

/// Remembers that reading has failed: what goes wrong at the other end is another matter.
struct Noted<'a> {
    inner: &'a mut dyn Read,
    failed: Option<io::Error>,
}

impl Read for Noted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).inspect_err(|e| self.failed = Some(io::Error::new(e.kind(), e.to_string())))
    }
}
