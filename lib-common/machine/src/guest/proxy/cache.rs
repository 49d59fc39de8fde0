//! Downloads kept on the host, by their content: the second build does not fetch again.
//!
//! `content/SHA256` holds the bytes; `urls/SHA256`, named by the digest of the address, says which those are: a line
//! `sha256:… SIZE URL`, then the header lines to repeat. Both are renamed into place and neither is synced: whatever a
//! crash leaves is found out by its digest when it is next asked for, removed, and fetched again.

mod budget;

use super::conn::Stop;
use super::head::{Header, header};
use budget::{Budget, Part};
use fs_err as fs;
use lib_common::digest::{self, Hashing};
use lib_common::doc::Digest;
use lib_common::error::Result;
use lib_common::sys::fs::{TEMP_PREFIX, private_dir, remove_file};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::NamedTempFile;

/// An entry of `urls` is not longer than this, in bytes.
const MAX_ENTRY: u64 = 8 << 10;

/// A download that is older than a day was left by a builder that was killed.
const TEMP_AGE: Duration = Duration::from_secs(24 * 3600);

/// What a file takes beside its bytes, and more: its inode, and the rest of its last block.
const FILE_BYTES: u64 = 4 << 10;

/// What an entry of `urls` takes at most.
const ENTRY_BYTES: u64 = MAX_ENTRY + FILE_BYTES;

/// At most so many contents, and so many entries, survive a start, however short they are.
const MOST_FILES: usize = 32 << 10;

/// The headers that are stored with an answer.
const STORED: [&str; 3] = ["Content-Type", "ETag", "Last-Modified"];

/// The directory `downloads` of banger's cache.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    budget: Budget,
}

/// A stored answer whose bytes are what they were.
#[derive(Debug)]
pub struct Hit {
    /// At its beginning.
    pub file: File,
    /// Its size in bytes.
    pub size: u64,
    /// The headers that came with it.
    pub headers: Vec<Header>,
}

/// An answer that is being stored; dropped, it is forgotten.
pub struct Saving<'a> {
    cache: &'a Cache,
    url: String,
    temp: Hashing<NamedTempFile>,
    part: Part<'a>,
}

/// Whether what is at this path never changes: a package with its version in its name, its signature, or an index by its
/// digest. Everything else is asked for again each time.
pub fn is_immutable(path: &str) -> bool {
    let named = [".deb", ".udeb", ".xbps", ".sig2"].iter().any(|end| path.ends_with(end));
    !path.contains('?') && (named || path.contains("/by-hash/"))
}

impl Cache {
    /// Opens `<cache>/downloads`, made where it is missing. Of the content more than `most` bytes are not kept: what was
    /// not asked for longest is removed. From then on as much is stored as makes `most` and a quarter of it with what is
    /// there: a full cache could take up nothing new, and so would never change.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(cache: &Path, most: u64) -> Result<Self> {
        let dir = cache.join("downloads");
        for name in ["content", "urls"] {
            private_dir(&dir.join(name))?;
        }
        let mut cache = Cache { dir, budget: Budget::default() };
        let there = cache.prune(most, MOST_FILES)?;
        cache.budget = Budget::new(most.saturating_add(most / 4).saturating_sub(there));
        Ok(cache)
    }

    /// The stored answer for this address. One that is damaged is removed, and there is none.
    ///
    /// # Errors
    /// Only that of `stop`: without a cache, everything is fetched.
    pub fn lookup(&self, url: &str, stop: &Stop) -> io::Result<Option<Hit>> {
        let entry = self.entry_path(url);
        let Some((digest, size, headers)) = read_entry(&entry, url) else { return Ok(None) };
        let content = self.content_path(&digest);
        let Ok(mut file) = File::open(&content) else { return Ok(None) };
        if digest_of(&mut file, stop)? == Some((digest, size)) && file.rewind().is_ok() {
            // Only what `prune` goes by.
            let _ = file.set_modified(SystemTime::now());
            return Ok(Some(Hit { file, size, headers }));
        }
        for path in [entry, content] {
            // It is fetched and replaced all the same.
            let _ = fs::remove_file(path);
        }
        Ok(None)
    }

    /// Begins to store what is fetched from this address; `None` where the budget is used up, or the disk is full or not ours.
    pub fn save(&self, url: &str) -> Option<Saving<'_>> {
        let part = self.budget.part(FILE_BYTES + ENTRY_BYTES)?;
        let temp = tempfile::Builder::new().prefix(TEMP_PREFIX).tempfile_in(&self.dir).ok()?;
        lib_common::sys::lock::hold(temp.as_file());
        Some(Saving { cache: self, url: url.to_owned(), temp: Hashing::new(temp), part })
    }

    fn content_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("content").join(digest.hex())
    }

    fn entry_path(&self, url: &str) -> PathBuf {
        self.dir.join("urls").join(digest::of_bytes(url.as_bytes()).hex())
    }

    /// Removes what is too much, and gives what is left: bytes, and what files take beside them.
    fn prune(&self, most: u64, most_files: usize) -> Result<u64> {
        let mut left = 0_u64;
        for (path, size, age) in list(&self.dir)? {
            let temporary = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(TEMP_PREFIX));
            if temporary && age > TEMP_AGE {
                remove_file(&path)?;
            } else {
                left = left.saturating_add(size + FILE_BYTES);
            }
        }
        let mut kept = 0_u64;
        let mut removed = false;
        for (count, (path, size, _)) in by_age(&self.dir.join("content"))?.into_iter().enumerate() {
            kept = kept.saturating_add(size);
            if kept > most || count >= most_files {
                remove_file(&path)?;
                removed = true;
            } else {
                left = left.saturating_add(size + FILE_BYTES);
            }
        }
        Ok(left.saturating_add(self.prune_entries(removed, most_files)?))
    }

    /// Removes the entries that are too many, and, where any content was `removed`, those whose content is gone. Gives what the
    /// rest takes.
    fn prune_entries(&self, removed: bool, most_files: usize) -> Result<u64> {
        let mut left = 0_u64;
        for (count, (path, ..)) in by_age(&self.dir.join("urls"))?.into_iter().enumerate() {
            if count >= most_files || (removed && !self.has_content(&path)) {
                remove_file(&path)?;
            } else {
                left = left.saturating_add(ENTRY_BYTES);
            }
        }
        Ok(left)
    }

    fn has_content(&self, entry: &Path) -> bool {
        let digest = first_line(entry).and_then(|line| Digest::parse(line.split(' ').next()?).ok());
        digest.is_some_and(|digest| self.content_path(&digest).exists())
    }
}

impl Saving<'_> {
    /// Appends what was fetched; an error where the budget or the disk has no room for it.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.part.grow(bytes.len() as u64)?;
        self.temp.write_all(bytes)
    }

    /// Keeps the whole answer, unless it is not what its name promises (a captive portal's page is no package).
    pub fn finish(self, headers: &[Header]) -> io::Result<()> {
        let Saving { cache, url, temp, mut part } = self;
        let (mut temp, digest, size) = temp.finish();
        temp.rewind()?;
        let text = entry_text(&digest, size, &url, headers);
        // A longer one would not be read again.
        if text.len() as u64 > MAX_ENTRY || !is_plausible(&url, &digest, temp.as_file_mut())? {
            return Ok(());
        }
        let (content, entry) = (cache.content_path(&digest), cache.entry_path(&url));
        // What takes the place of another of its kind takes no more room.
        let (is_new, is_first) = (!content.exists(), !entry.exists());
        temp.persist(content).map_err(|e| e.error)?;
        part.spend(if is_new { size + FILE_BYTES } else { 0 });
        let mut temp = tempfile::Builder::new().prefix(TEMP_PREFIX).tempfile_in(&cache.dir)?;
        temp.write_all(&text)?;
        temp.persist(entry).map_err(|e| e.error)?;
        part.spend(if is_first { ENTRY_BYTES } else { 0 });
        Ok(())
    }
}

/// What the entry of an address says.
fn entry_text(digest: &Digest, size: u64, url: &str, headers: &[Header]) -> Vec<u8> {
    let mut text = format!("{digest} {size} {url}\n").into_bytes();
    for name in STORED {
        if let Some(value) = header(headers, name) {
            text.extend([name.as_bytes(), b": ", value, b"\n"].concat());
        }
    }
    text
}

/// A Debian package is an ar archive (deb(5)); the name of an index by-hash is its digest.
fn is_plausible(url: &str, digest: &Digest, file: &mut File) -> io::Result<bool> {
    if let Some((_, promised)) = url.rsplit_once("/by-hash/SHA256/") {
        return Ok(promised == digest.hex());
    }
    if !url.ends_with(".deb") && !url.ends_with(".udeb") {
        return Ok(true);
    }
    let mut magic = vec![];
    file.take(8).read_to_end(&mut magic)?;
    Ok(magic == b"!<arch>\n")
}

/// `None` for a file that cannot be read to its end.
fn digest_of(file: &mut File, stop: &Stop) -> io::Result<Option<(Digest, u64)>> {
    let mut hasher = Hashing::new(io::sink());
    let mut buffer = vec![0; 256 << 10];
    loop {
        stop.check()?;
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hasher.write_all(&buffer[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(None),
        }
    }
    let (_, digest, size) = hasher.finish();
    Ok(Some((digest, size)))
}

/// What an entry says, if it is one of this address.
fn read_entry(path: &Path, url: &str) -> Option<(Digest, u64, Vec<Header>)> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_ENTRY).read_to_string(&mut text).ok()?;
    let mut lines = text.strip_suffix('\n')?.split('\n');
    let mut first = lines.next()?.splitn(3, ' ');
    let (digest, size) = (Digest::parse(first.next()?).ok()?, first.next()?.parse().ok()?);
    if first.next() != Some(url) {
        return None;
    }
    let plain = |text: &str| !text.contains(|c: char| c.is_control());
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(": ")?;
        (STORED.contains(&name) && plain(value)).then(|| (name.to_owned(), value.as_bytes().to_vec()))
    });
    Some((digest, size, headers.collect::<Option<_>>()?))
}

fn first_line(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_ENTRY).read_to_string(&mut text).ok()?;
    text.lines().next().map(str::to_owned)
}

/// The files of a directory, the youngest first.
fn by_age(dir: &Path) -> Result<Vec<(PathBuf, u64, Duration)>> {
    let mut files = list(dir)?;
    files.sort_by_key(|(_, _, age)| *age);
    Ok(files)
}

/// The files of a directory, with size and age. One that goes meanwhile, another builder has removed.
fn list(dir: &Path) -> Result<Vec<(PathBuf, u64, Duration)>> {
    let mut files = vec![];
    for entry in lib_common::sys::dirs::list(dir)? {
        let path = entry.path();
        if let Ok(meta) = path.symlink_metadata()
            && meta.is_file()
        {
            let age = meta.modified().ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
            files.push((path, meta.len(), age));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
