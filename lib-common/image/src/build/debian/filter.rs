//! The tar stream between mmdebstrap and mke2fs: applies the overlay's table and rules and notes dpkg's status as it goes
//! by. Works on raw entries, so what it does not touch (extended headers with capabilities and long names, hard links,
//! devices) passes byte for byte; holds one small file in memory at most. Starts nothing and opens no file.

use super::overlay::{Verdict, verdict};
use lib_common::added::{Added, What};
use lib_common::error::{Code, Error};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use tar::{Archive, Entry, EntryType, Header};

/// The most that one extended header, or a file that is edited or noted, may have, in bytes. dpkg's status of a thousand
/// packages is 2 MB.
const HELD_MAX: u64 = 64 << 20;

/// What dpkg knows of the installed packages.
const DPKG_STATUS: &str = "var/lib/dpkg/status";

/// What was seen on the way.
#[derive(Debug, Default)]
pub struct Passed {
    /// The content of dpkg's status file; empty where there was none.
    pub dpkg_status: String,
    /// Entries that were written.
    pub entries: u64,
}

/// Which end of the pipe broke: the error of the program at that end says more than ours.
#[derive(Debug)]
pub enum Stopped {
    /// The stream ended too early or is not a tar.
    Input(Error),
    /// Nobody takes the result any more.
    Output(io::Error),
}

type Result<T> = std::result::Result<T, Stopped>;

/// Copies the tar `input` to `output` with `added` in it. What is added has the time `epoch`, in seconds since 1970.
pub fn filter(mut input: impl Read, output: impl Write, added: &[Added], epoch: u64) -> Result<Passed> {
    let mut pass = Pass::new(output, added, epoch);
    let mut archive = Archive::new(&mut input);
    // The raw header blocks of the coming entry, and what they say of it.
    let mut prefix = Prefix::default();
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        lib_common::sys::signal::check().map_err(Stopped::Input)?;
        match entry.header().entry_type() {
            EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink => prefix.add(&mut entry)?,
            EntryType::GNUSparse => return Err(Stopped::Input(bad("the tar has a sparse file in GNU's old form"))),
            EntryType::XGlobalHeader => pass.copy(&[], &mut entry)?,
            _ => {
                let before = std::mem::take(&mut prefix);
                let path = before.path.clone().unwrap_or_else(|| entry.path_bytes().into_owned());
                pass.one(&normal(&path), &before, &mut entry)?;
            }
        }
    }
    // A tar is padded after its end; a program that cannot write that has failed.
    io::copy(&mut input, &mut io::sink()).map_err(broken)?;
    pass.finish()
}

/// Extended headers that belong to the next entry.
#[derive(Default)]
struct Prefix {
    raw: Vec<u8>,
    path: Option<Vec<u8>>,
}

impl Prefix {
    fn add(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<()> {
        let content = held(entry)?;
        match entry.header().entry_type() {
            EntryType::XHeader => {
                for (key, value) in pax_records(&content)? {
                    match key {
                        b"path" => self.path = Some(value.to_vec()),
                        // Only for files of 8 GiB and more; their headers' own sizes cannot be followed.
                        b"size" => return Err(Stopped::Input(bad("the tar has a file of 8 GiB or more"))),
                        _ => {}
                    }
                }
            }
            EntryType::GNULongName => {
                let end = content.iter().position(|b| *b == 0).unwrap_or(content.len());
                self.path = Some(content[..end].to_vec());
            }
            _ => {}
        }
        self.raw.extend_from_slice(entry.header().as_bytes());
        self.raw.extend_from_slice(&content);
        self.raw.resize(self.raw.len().next_multiple_of(512), 0);
        Ok(())
    }
}

/// The records `LENGTH KEY=VALUE\n` of a pax header (pax(1), POSIX.1-2001). By their lengths: a value may be binary.
fn pax_records(mut rest: &[u8]) -> Result<Vec<(&[u8], &[u8])>> {
    let damaged = || Stopped::Input(bad("the tar has a damaged extended header"));
    let mut records = vec![];
    while !rest.is_empty() {
        let blank = rest.iter().position(|b| *b == b' ').ok_or_else(damaged)?;
        let length = std::str::from_utf8(&rest[..blank]).ok().and_then(|n| n.parse::<usize>().ok());
        let length = length.filter(|n| (blank + 2..=rest.len()).contains(n)).ok_or_else(damaged)?;
        let record = rest[blank + 1..length].strip_suffix(b"\n").ok_or_else(damaged)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(damaged)?;
        records.push((&record[..equals], &record[equals + 1..]));
        rest = &rest[length..];
    }
    Ok(records)
}

/// One run of the filter.
struct Pass<'a, W> {
    output: W,
    added: &'a [Added],
    epoch: u64,
    dirs: BTreeSet<String>,
    /// root's dotfiles that the tar has.
    dotfiles: BTreeSet<String>,
    /// Those of `/etc/skel`, for the ones that it lacks.
    skel: BTreeMap<String, Vec<u8>>,
    passed: Passed,
    buffer: Vec<u8>,
}

impl<'a, W: Write> Pass<'a, W> {
    fn new(output: W, added: &'a [Added], epoch: u64) -> Self {
        Pass {
            output,
            added,
            epoch,
            dirs: BTreeSet::new(),
            dotfiles: BTreeSet::new(),
            skel: BTreeMap::new(),
            passed: Passed::default(),
            buffer: vec![0; 128 << 10],
        }
    }

    /// An entry with its normal path.
    fn one(&mut self, path: &str, before: &Prefix, entry: &mut Entry<'_, impl Read>) -> Result<()> {
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            self.dirs.insert(path.to_owned());
            if path == "root" {
                return self.root_home(before, entry.header().clone());
            }
            return self.copy(&before.raw, entry);
        }
        if self.added.iter().any(|a| a.path == path) {
            return Ok(());
        }
        match verdict(path) {
            Verdict::Drop => Ok(()),
            Verdict::Edit(edit) if kind.is_file() => {
                let text = String::from_utf8_lossy(&held(entry)?).into_owned();
                self.put(&before.raw, entry.header().clone(), edit(&text).as_bytes())
            }
            _ if kind.is_file() && noted(path) => {
                let content = held(entry)?;
                let header = entry.header().clone();
                self.put(&before.raw, header, &content)?;
                self.note(path, content);
                Ok(())
            }
            _ => self.copy(&before.raw, entry),
        }
    }

    /// root's home is private, whatever the packages made of it: sshd's StrictModes looks at it.
    fn root_home(&mut self, before: &Prefix, mut header: Header) -> Result<()> {
        header.set_mode(0o700);
        self.put(&before.raw, header, &[])
    }

    fn note(&mut self, path: &str, content: Vec<u8>) {
        if path == DPKG_STATUS {
            self.passed.dpkg_status = String::from_utf8_lossy(&content).into_owned();
        } else if let Some(name) = path.strip_prefix("etc/skel/") {
            self.skel.insert(name.to_owned(), content);
        } else if let Some(name) = path.strip_prefix("root/") {
            self.dotfiles.insert(name.to_owned());
        }
    }

    /// Writes an entry as it is.
    fn copy(&mut self, before: &[u8], entry: &mut Entry<'_, impl Read>) -> Result<()> {
        self.write(before)?;
        let header = *entry.header().as_bytes();
        self.write(&header)?;
        let size = entry.header().entry_size().map_err(broken)?;
        let mut left = size;
        while left > 0 {
            match entry.read(&mut self.buffer) {
                Ok(0) => return Err(early()),
                Ok(n) => {
                    self.output.write_all(&self.buffer[..n]).map_err(Stopped::Output)?;
                    left -= n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(broken(e)),
            }
        }
        self.passed.entries += 1;
        self.pad(size)
    }

    /// Writes an entry with other content.
    fn put(&mut self, before: &[u8], mut header: Header, content: &[u8]) -> Result<()> {
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.write(before)?;
        self.write(header.as_bytes())?;
        self.write(content)?;
        self.passed.entries += 1;
        self.pad(content.len() as u64)
    }

    /// Writes an entry of our own, after the directories that it needs.
    fn add(&mut self, path: &str, mode: u32, what: &Content<'_>) -> Result<()> {
        if let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| !self.dirs.contains(*parent)) {
            self.add(parent, 0o755, &Content::Dir)?;
        }
        let mut header = Header::new_ustar();
        let (kind, name, content): (_, _, &[u8]) = match what {
            Content::Dir => (EntryType::Directory, format!("./{path}/"), &[]),
            Content::File(content) => (EntryType::Regular, format!("./{path}"), content),
            Content::Link(target) => {
                header.set_link_name(target).map_err(broken)?;
                (EntryType::Symlink, format!("./{path}"), &[])
            }
        };
        header.set_entry_type(kind);
        header.set_path(name).map_err(broken)?;
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.epoch);
        if matches!(what, Content::Dir) {
            self.dirs.insert(path.to_owned());
        }
        self.put(&[], header, content)
    }

    /// What is added, and the end of the tar.
    fn finish(mut self) -> Result<Passed> {
        // An empty stream is the sign of a program that failed; its status tells.
        if self.passed.entries == 0 {
            return Ok(self.passed);
        }
        if !self.dirs.contains("root") {
            self.add("root", 0o700, &Content::Dir)?;
        }
        for (name, content) in std::mem::take(&mut self.skel) {
            if !self.dotfiles.contains(&name) {
                self.add(&format!("root/{name}"), 0o644, &Content::File(&content))?;
            }
        }
        for added in self.added {
            let content = match &added.what {
                What::File(text) => Content::File(text.as_bytes()),
                What::Link(target) => Content::Link(target),
            };
            self.add(&added.path, added.mode, &content)?;
        }
        self.write(&[0; 1024])?;
        self.output.flush().map_err(Stopped::Output)?;
        Ok(self.passed)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.write_all(bytes).map_err(Stopped::Output)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let over = usize::try_from(size % 512).unwrap_or_default();
        if over == 0 { Ok(()) } else { self.write(&[0; 512][over..]) }
    }
}

/// An entry of our own.
enum Content<'a> {
    Dir,
    File(&'a [u8]),
    Link(&'a str),
}

/// Files whose content is looked at: dpkg's status, and the dotfiles that root gets from `/etc/skel` where its own lack.
fn noted(path: &str) -> bool {
    let dotfile = |dir: &str| path.strip_prefix(dir).is_some_and(|name| [".bashrc", ".profile"].contains(&name));
    path == DPKG_STATUS || dotfile("etc/skel/") || dotfile("root/")
}

/// The path without `./` before and `/` after it.
fn normal(path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    path.trim_start_matches("./").trim_end_matches('/').to_owned()
}

/// The whole content of a small entry.
fn held(entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>> {
    let size = entry.header().entry_size().map_err(broken)?;
    if size > HELD_MAX {
        return Err(Stopped::Input(bad(format!("the tar has an unexpected entry of {size} bytes"))));
    }
    let mut content = vec![];
    entry.read_to_end(&mut content).map_err(broken)?;
    if content.len() as u64 == size { Ok(content) } else { Err(early()) }
}

fn broken(e: io::Error) -> Stopped {
    Stopped::Input(bad("the tar cannot be read").because(&e))
}

fn early() -> Stopped {
    Stopped::Input(bad("the tar ends in the middle of a file"))
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(Code::BadInput, message)
}

#[cfg(test)]
mod tests;
