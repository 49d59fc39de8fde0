//! Downloads kept on the host, by their content: the second build does not fetch again.
//!
//! `content/SHA256` holds the bytes; `urls/SHA256`, named by the digest of the address, says which those are: a line
//! `sha256:… SIZE URL`, then the header lines to repeat. Both are renamed into place and neither is synced: whatever a
//! crash leaves is found out by its digest when it is next asked for, removed, and fetched again.

use super::conn::Stop;
use super::head::{Header, header};
use crate::digest::{self, Hashing};
use crate::doc::Digest;
use crate::error::Result;
use crate::sys::fs::remove_file;
use fs_err as fs;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::NamedTempFile;

/// An entry of `urls` is not longer than this, in bytes.
const MAX_ENTRY: u64 = 8 << 10;

/// What is being downloaded begins with this; one that is older than a day was left by a builder that was killed.
const TEMP_PREFIX: &str = ".tmp-";
const TEMP_AGE: Duration = Duration::from_secs(24 * 3600);

/// The headers that are stored with an answer.
const STORED: [&str; 3] = ["Content-Type", "ETag", "Last-Modified"];

/// The directory `downloads` of banger's cache.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
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
}

/// Whether what is at this path never changes: a package with its version in its name, its signature, or an index by its
/// digest. Everything else is asked for again each time.
pub fn is_immutable(path: &str) -> bool {
    let named = [".deb", ".udeb", ".xbps", ".sig2"].iter().any(|end| path.ends_with(end));
    !path.contains('?') && (named || path.contains("/by-hash/"))
}

impl Cache {
    /// Opens `<cache>/downloads`, made where it is missing. Of the content more than `most` bytes are not kept: what was
    /// not asked for longest is removed.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(cache: &Path, most: u64) -> Result<Self> {
        let cache = Cache { dir: cache.join("downloads") };
        for dir in ["content", "urls"] {
            fs::create_dir_all(cache.dir.join(dir))?;
        }
        cache.prune(most)?;
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

    /// Begins to store what is fetched from this address; `None` where the disk is full or not ours.
    pub fn save(&self, url: &str) -> Option<Saving<'_>> {
        let temp = tempfile::Builder::new().prefix(TEMP_PREFIX).tempfile_in(&self.dir).ok()?;
        crate::sys::lock::hold(temp.as_file());
        Some(Saving { cache: self, url: url.to_owned(), temp: Hashing::new(temp) })
    }

    fn content_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("content").join(digest.hex())
    }

    fn entry_path(&self, url: &str) -> PathBuf {
        self.dir.join("urls").join(digest::of_bytes(url.as_bytes()).hex())
    }

    fn prune(&self, most: u64) -> Result<()> {
        for (path, _, age) in list(&self.dir)? {
            let temporary = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(TEMP_PREFIX));
            if temporary && age > TEMP_AGE {
                remove_file(&path)?;
            }
        }
        let mut contents = list(&self.dir.join("content"))?;
        contents.sort_by_key(|(_, _, age)| *age);
        let (mut kept, mut removed) = (0_u64, false);
        for (path, size, _) in contents {
            kept = kept.saturating_add(size);
            if kept > most {
                remove_file(&path)?;
                removed = true;
            }
        }
        if removed { self.prune_entries() } else { Ok(()) }
    }

    /// Removes the entries whose content is gone.
    fn prune_entries(&self) -> Result<()> {
        for (path, ..) in list(&self.dir.join("urls"))? {
            let digest = first_line(&path).and_then(|line| Digest::parse(line.split(' ').next()?).ok());
            if !digest.is_some_and(|digest| self.content_path(&digest).exists()) {
                remove_file(&path)?;
            }
        }
        Ok(())
    }
}

impl Saving<'_> {
    /// Appends what was fetched.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.temp.write_all(bytes)
    }

    /// Keeps the whole answer, unless it is not what its name promises (a captive portal's page is no package).
    pub fn finish(self, headers: &[Header]) -> io::Result<()> {
        let (mut temp, digest, size) = self.temp.finish();
        temp.rewind()?;
        if !is_plausible(&self.url, &digest, temp.as_file_mut())? {
            return Ok(());
        }
        temp.persist(self.cache.content_path(&digest)).map_err(|e| e.error)?;
        let mut entry = tempfile::Builder::new().prefix(TEMP_PREFIX).tempfile_in(&self.cache.dir)?;
        writeln!(entry, "{digest} {size} {}", self.url)?;
        for name in STORED {
            if let Some(value) = header(headers, name) {
                entry.write_all(&[name.as_bytes(), b": ", value, b"\n"].concat())?;
            }
        }
        entry.persist(self.cache.entry_path(&self.url)).map_err(|e| e.error)?;
        Ok(())
    }
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

/// The files of a directory, with size and age. One that goes meanwhile, another builder has removed.
fn list(dir: &Path) -> Result<Vec<(PathBuf, u64, Duration)>> {
    let mut files = vec![];
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
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
mod tests {
    use super::*;

    const URL: &str = "http://h:80/pool/x_1_amd64.deb";

    fn store(cache: &Cache, url: &str, bytes: &[u8]) {
        let mut saving = cache.save(url).unwrap();
        saving.write(bytes).unwrap();
        saving.finish(&[("etag".into(), b"\"1\"".to_vec()), ("Server".into(), b"x".to_vec())]).unwrap();
    }

    fn read(cache: &Cache, url: &str) -> Option<Vec<u8>> {
        let hit = cache.lookup(url, &Stop::new().unwrap()).unwrap()?;
        let mut bytes = vec![];
        (&hit.file).read_to_end(&mut bytes).unwrap();
        assert_eq!(hit.size, bytes.len() as u64);
        assert_eq!(hit.headers, [("ETag".to_owned(), b"\"1\"".to_vec())]);
        Some(bytes)
    }

    fn count(dir: &Path, name: &str) -> usize {
        fs::read_dir(dir.join("downloads").join(name)).unwrap().count()
    }

    #[test]
    fn only_what_never_changes_is_stored() {
        for (path, expected) in [
            ("/debian/pool/x_1_amd64.deb", true),
            ("/x.udeb", true),
            ("/x.xbps", true),
            ("/x.xbps.sig2", true),
            ("/dists/x/main/by-hash/SHA256/00", true),
            ("/dists/bookworm/InRelease", false),
            ("/dists/bookworm/main/Packages.xz", false),
            ("/x.deb?login=1", false),
            ("/x86_64-repodata", false),
        ] {
            assert_eq!(is_immutable(path), expected, "{path}");
        }
    }

    #[test]
    fn what_was_stored_is_found_by_its_address_until_it_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 1 << 30).unwrap();
        let package = b"!<arch>\npackage";
        assert!(cache.lookup(URL, &Stop::new().unwrap()).unwrap().is_none());
        store(&cache, URL, package);
        store(&cache, "http://other:80/x.deb", package);
        assert_eq!((count(dir.path(), "content"), count(dir.path(), "urls")), (1, 2), "one content");
        assert_eq!(read(&cache, URL).as_deref(), Some(&package[..]));
        let content = cache.content_path(&digest::of_bytes(package));
        for damage in [&b"!<arch>\npackagf"[..], b"!<arch>\n", b"!<arch>\npackage and more"] {
            fs::write(&content, damage).unwrap();
            assert_eq!(read(&cache, URL), None);
            assert!(!content.exists(), "what is damaged is gone");
            store(&cache, URL, package);
            assert!(read(&cache, URL).is_some());
        }
    }

    #[test]
    fn an_entry_is_read_strictly() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 1 << 30).unwrap();
        store(&cache, URL, b"!<arch>\n");
        let path = cache.entry_path(URL);
        let good = fs::read_to_string(&path).unwrap();
        for bad in [
            String::new(),
            good.replace(URL, "http://evil:80/x.deb"),
            good.replace("sha256:", "sha256:../../"),
            good.trim_end().to_owned(),
            good.clone() + "Set-Cookie: x\n",
            good.clone() + "ETag: x\ry\n",
            good.clone() + &"ETag: x\n".repeat(2000),
        ] {
            fs::write(&path, &bad).unwrap();
            assert_eq!(read(&cache, URL), None, "{bad:?}");
        }
        fs::write(&path, &good).unwrap();
        assert!(read(&cache, URL).is_some());
    }

    #[test]
    fn what_its_name_does_not_promise_and_what_was_cut_short_are_not_stored() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 1 << 30).unwrap();
        let index = format!("http://h:80/by-hash/SHA256/{}", digest::of_bytes(b"index").hex());
        store(&cache, URL, b"<html>please log in</html>");
        store(&cache, &index, b"another");
        cache.save(URL).unwrap().write(b"!<arch>\npart").unwrap();
        assert_eq!((count(dir.path(), "content"), count(dir.path(), "urls")), (0, 0));
        assert_eq!(count(dir.path(), "."), 2, "nothing lies beside them");
        store(&cache, &index, b"index");
        assert!(read(&cache, &index).is_some());
    }

    #[test]
    fn the_oldest_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 1 << 30).unwrap();
        for (age, name) in [(300, "a"), (100, "b"), (200, "c")] {
            let bytes = format!("{name:1000}");
            store(&cache, &format!("http://h:80/{name}.xbps"), bytes.as_bytes());
            let content = File::open(cache.content_path(&digest::of_bytes(bytes.as_bytes()))).unwrap();
            content.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        let dead = dir.path().join("downloads/.tmp-dead");
        fs::write(&dead, "").unwrap();
        Cache::open(dir.path(), 2000).unwrap();
        assert!(dead.exists(), "another builder may be at it");
        File::open(&dead).unwrap().set_modified(SystemTime::now() - 2 * TEMP_AGE).unwrap();
        Cache::open(dir.path(), 2000).unwrap();
        assert_eq!((count(dir.path(), "content"), count(dir.path(), "urls"), dead.exists()), (2, 2, false));
        assert_eq!(read(&cache, "http://h:80/a.xbps"), None);
        assert!(read(&cache, "http://h:80/b.xbps").is_some());
    }
}
