//! One tree of the files of many packages, as a tar: each path has one owner, and each directory comes before what is in it.

use super::alternatives::Link;
use super::{Extra, Stopped};
use crate::package::{Entry, EntryKind};
use crate::{bad, shown};
use lib_common::added::{Added, What};
use lib_common::error::Result;
use lib_common::sys::signal;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use tar::{EntryType, Header};

/// Something that no package has brought.
pub(super) enum Own<'a> {
    File(&'a [u8]),
    Link(&'a str),
}

/// A tree in the making.
pub(super) struct Tree<'a, W: Write> {
    tar: tar::Builder<W>,
    extra: &'a Extra<'a>,
    /// The links of alternatives, by path.
    links: &'a BTreeMap<String, Link>,
    /// Those whose place a file of a later package has taken.
    covered: BTreeSet<&'a str>,
    dirs: BTreeSet<String>,
    /// Everything else, and whose it is.
    owners: BTreeMap<String, String>,
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
    pub(super) fn new(to: W, extra: &'a Extra<'a>, links: &'a BTreeMap<String, Link>) -> Self {
        let (covered, dirs, owners) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        Tree { tar: tar::Builder::new(to), extra, links, covered, dirs, owners }
    }

    /// An entry of a package, which is given with its number in the order of installation.
    pub(super) fn package(&mut self, (number, name): (usize, &str), entry: Entry<'_>) -> Result<(), Stopped> {
        signal::check()?;
        let path = entry.path.to_owned();
        if self.is_added(&path) {
            return Ok(());
        }
        match self.links.get_key_value(&path) {
            Some((_, link)) if number <= link.by => return Ok(()),
            Some((path, _)) => drop(self.covered.insert(path)),
            None => {}
        }
        if let EntryKind::Hardlink(target) = &entry.kind
            && !self.owners.contains_key(target)
        {
            let message = format!("`{}` of the package `{name}` is a second name of a replaced file", shown(&path));
            return Err(bad(message).into());
        }
        self.claim(&path, name)?;
        let mut header = self.header(entry.mode, (entry.uid, entry.gid));
        match &entry.kind {
            EntryKind::Symlink(target) => self.link(&mut header, EntryType::Symlink, (&path, target)),
            EntryKind::Hardlink(target) => self.link(&mut header, EntryType::Link, (&path, target)),
            EntryKind::File => {
                if let Some(capability) = &entry.capability {
                    let record = ("SCHILY.xattr.security.capability", &capability[..]);
                    self.tar.append_pax_extensions([record]).map_err(Stopped::Output)?;
                }
                self.file(&mut header, &path, (entry.size, entry.content))
            }
        }
    }

    /// True if something is added under that path, in place of what packages have.
    fn is_added(&self, path: &str) -> bool {
        self.extra.added.iter().any(|added| added.path == path)
    }

    /// True if a package has something under that path.
    pub(super) fn has(&self, path: &str) -> bool {
        self.owners.contains_key(path)
    }

    /// The links of alternatives that stand.
    pub(super) fn links(&mut self) -> Result<(), Stopped> {
        for (path, link) in self.links {
            for dir in link.dirs.iter().filter(|dir| !dir.is_empty()) {
                self.parents(dir, "the alternatives")?;
            }
            if !self.covered.contains(path.as_str()) && !self.is_added(path) {
                self.own(path, 0o777, &Own::Link(&link.target))?;
            }
        }
        Ok(())
    }

    /// A directory of an archive that has them: its own permissions, but where a system needs others.
    pub(super) fn directory(&mut self, path: &str, mode: u32, owner: (u64, u64)) -> Result<(), Stopped> {
        match DIRS.iter().find(|(dir, _)| *dir == path) {
            Some((_, mode)) => self.dir(path, *mode),
            None => self.owned_dir(path, mode, owner),
        }
    }

    /// A file of an archive, whose content was read already.
    pub(super) fn file_of(&mut self, path: &str, owner: &str, bytes: &[u8]) -> Result<(), Stopped> {
        self.claim(path, owner)?;
        let mut header = self.header(0o644, (0, 0));
        self.file(&mut header, path, (bytes.len() as u64, &mut &*bytes))
    }

    /// The path becomes the owner's, and nobody else's.
    fn claim(&mut self, path: &str, owner: &str) -> Result<(), Stopped> {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.parents(parent, owner)?;
        }
        if self.dirs.contains(path) {
            let message = format!("`{}` of the package `{owner}` is a directory of another one", shown(path));
            return Err(bad(message).into());
        }
        match self.owners.insert(path.to_owned(), owner.to_owned()) {
            None => Ok(()),
            Some(other) => Err(bad(format!("the packages `{other}` and `{owner}` both have `{}`", shown(path))).into()),
        }
    }

    fn parents(&mut self, dir: &str, owner: &str) -> Result<(), Stopped> {
        if self.dirs.contains(dir) {
            return Ok(());
        }
        if let Some(other) = self.owners.get(dir) {
            let dir = shown(dir);
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
    pub(super) fn dir(&mut self, path: &str, mode: u32) -> Result<(), Stopped> {
        self.owned_dir(path, mode, (0, 0))
    }

    fn owned_dir(&mut self, path: &str, mode: u32, owner: (u64, u64)) -> Result<(), Stopped> {
        if !self.dirs.insert(path.to_owned()) {
            return Ok(());
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.parents(parent, "the root file system")?;
        }
        let mut header = self.header(mode, owner);
        header.set_entry_type(EntryType::Directory);
        self.file(&mut header, &format!("{path}/"), (0, &mut io::empty()))
    }

    pub(super) fn own(&mut self, path: &str, mode: u32, what: &Own<'_>) -> Result<(), Stopped> {
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
        let mut exact = Exact { inner: content, left: size, failed: None };
        let appended = self.tar.append_data(header, path, &mut exact);
        match (exact.failed, appended) {
            (Some(e), _) => Err(bad(format!("`{}` is damaged in its package", shown(path))).because(&e).into()),
            (None, appended) => appended.map_err(Stopped::Output),
        }
    }

    fn link(&mut self, header: &mut Header, kind: EntryType, (path, target): (&str, &str)) -> Result<(), Stopped> {
        header.set_entry_type(kind);
        header.set_size(0);
        self.tar.append_link(header, path, target).map_err(Stopped::Output)
    }

    pub(super) fn finish(mut self) -> Result<(), Stopped> {
        for (path, mode) in DIRS.iter().filter(|_| self.extra.is_system) {
            self.dir(path, *mode)?;
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

/// Exactly as many bytes as the header says, or an error, which it remembers: what goes wrong at the other end is another
/// matter.
struct Exact<'a> {
    inner: &'a mut dyn Read,
    left: u64,
    failed: Option<io::Error>,
}

impl Read for Exact<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = match self.inner.read(&mut buffer[..want]) {
            Ok(0) if want > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => read,
        };
        match read {
            Ok(n) => self.left -= n as u64,
            Err(ref e) => self.failed = Some(io::Error::new(e.kind(), e.to_string())),
        }
        read
    }
}
