//! Indices and packages from where they are into the cache, and what has to be true of them before anybody reads them: a
//! digest for each, and for what comes over a network a signature, too.

use super::bad;
use super::key::Key;
use super::location::Location;
use super::lock::Locked;
use super::repodata::Index;
use crate::digest;
use crate::error::{Code, Error, Result};
use crate::sys::signal;
use fs_err as fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// So many downloads at a time.
const WORKERS: usize = 4;
/// The largest index that is downloaded, in bytes: Void's has 2 MB.
const MAX_INDEX: u64 = 256 << 20;
/// The largest signature, in bytes: that of a key of 32,768 bits.
const MAX_SIGNATURE: u64 = 4096;
/// A server that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// How often a download is taken up again where it was cut off.
const TRIES: usize = 3;

/// Downloads into one cache.
#[derive(Debug)]
pub struct Fetcher {
    dir: PathBuf,
    keys: Vec<Key>,
    agent: ureq::Agent,
}

impl Fetcher {
    /// Into `xbps/` of that cache. `keys`: whose signatures are believed.
    pub fn new(cache_dir: &Path, keys: Vec<Key>) -> Result<Self> {
        let dir = cache_dir.join("xbps");
        fs::create_dir_all(&dir)?;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .build();
        Ok(Fetcher { dir, keys, agent: config.into() })
    }

    /// The index of a repository, as it is now.
    ///
    /// # Errors
    /// [`Code::Io`] where it cannot be had, [`Code::BadInput`] for what is none.
    pub fn index(&self, location: &Location, arch: &str) -> Result<Index> {
        match location {
            Location::Directory(dir) => Index::read(&dir.join(format!("{arch}-repodata"))),
            Location::Remote(url) => {
                let temporary = tempfile::NamedTempFile::new_in(&self.dir)?;
                self.download(&format!("{url}/{arch}-repodata"), temporary.path(), MAX_INDEX)?;
                Index::read(temporary.path())
            }
        }
    }

    /// The archives of packages, in their order, each checked. `tell` hears of each that is there.
    ///
    /// # Errors
    /// [`Code::DigestMismatch`] for a digest or a signature that is wrong, with the package's name; [`Code::Io`].
    pub fn packages(&self, all: &[Locked], tell: &mut (dyn FnMut(usize) + Send)) -> Result<Vec<PathBuf>> {
        let (next, done) = (AtomicUsize::new(0), Mutex::new((0, tell)));
        let work = || -> Result<Vec<(usize, PathBuf)>> {
            let mut mine = vec![];
            while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                let n = all.iter().position(|other| std::ptr::eq(one, other)).unwrap_or_default();
                let path =
                    self.package(one).map_err(|e| e.within(format!("the package {} cannot be taken", one.pkgver)));
                // The others stop, too.
                mine.push((n, path.inspect_err(|_| next.store(all.len(), Ordering::Relaxed))?));
                if let Ok(mut done) = done.lock() {
                    done.0 += 1;
                    let count = done.0;
                    (done.1)(count);
                }
            }
            Ok(mine)
        };
        let mut found = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
            let ended = workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|_| Err(Error::new(Code::Internal, "a download panicked"))));
            ended.collect::<Vec<_>>().into_iter().collect::<Result<Vec<_>>>()
        })?
        .concat();
        found.sort();
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }

    fn package(&self, one: &Locked) -> Result<PathBuf> {
        match &one.location {
            Location::Directory(dir) => {
                let path = dir.join(one.file_name());
                checked(&path, one)?;
                Ok(path)
            }
            Location::Remote(url) => {
                let path = self.dir.join(format!("{}.xbps", one.sha256.hex()));
                let signature = path.with_extension("xbps.sig2");
                let address = format!("{url}/{}", one.file_name());
                if !path.is_file() {
                    self.whole(&address, &path, one)?;
                }
                if !signature.is_file() {
                    let part = tempfile::NamedTempFile::new_in(&self.dir)?;
                    self.download(&format!("{address}.sig2"), part.path(), MAX_SIGNATURE)?;
                    part.persist(&signature).map_err(|e| e.error)?;
                }
                // Looked at each time: what has been in the cache may have changed, and so may the keys.
                checked(&path, one).and_then(|()| self.verify(&path, &signature)).inspect_err(|_| {
                    let _ = fs::remove_file(&path);
                    let _ = fs::remove_file(&signature);
                })?;
                Ok(path)
            }
        }
    }

    /// Downloads an archive; what was cut off is gone on with, also by the next build.
    fn whole(&self, url: &str, to: &Path, one: &Locked) -> Result<()> {
        let part = to.with_extension("part");
        self.download(url, &part, one.size)?;
        if let Err(e) = checked(&part, one) {
            fs::remove_file(&part)?;
            return Err(e);
        }
        Ok(fs::rename(&part, to)?)
    }

    fn verify(&self, path: &Path, signature: &Path) -> Result<()> {
        let signature = fs::read(signature)?;
        if self.keys.iter().any(|key| key.verify(path, &signature).is_ok()) {
            return Ok(());
        }
        Err(Error::new(Code::DigestMismatch, "its signature is not by a key that is trusted")
            .hint("--key FILE trusts another key"))
    }

    /// The rest of a file behind what `to` has of it.
    fn download(&self, url: &str, to: &Path, limit: u64) -> Result<()> {
        let mut last = None;
        for _ in 0..TRIES {
            signal::check()?;
            match self.attempt(url, to, limit) {
                Ok(()) => return Ok(()),
                Err(e) if e.code() == Code::Io => last = Some(e),
                Err(e) => return Err(e),
            }
        }
        Err(last.unwrap_or_else(|| Error::new(Code::Io, format!("cannot download {url}"))))
    }

    fn attempt(&self, url: &str, to: &Path, limit: u64) -> Result<()> {
        let failed =
            |e: &dyn std::fmt::Display| Error::new(Code::Io, format!("cannot download {url}")).also(e.to_string());
        let mut file = fs::OpenOptions::new().create(true).append(true).open(to)?;
        let have = file.metadata()?.len();
        let request = self.agent.get(url);
        let request = if have > 0 { request.header("Range", format!("bytes={have}-")) } else { request };
        let response = request.call().map_err(|e| failed(&e))?;
        match response.status().as_u16() {
            206 if have > 0 => {}
            200 => file.set_len(0)?,
            // All of it is there.
            416 if have > 0 => return Ok(()),
            status => return Err(failed(&format!("the server says {status}")).with_code(Code::MissingFile)),
        }
        let mut input = response.into_body().into_reader().take(limit + 1);
        let mut buffer = vec![0; 128 << 10];
        loop {
            signal::check()?;
            match input.read(&mut buffer).map_err(|e| failed(&e))? {
                0 => break,
                n => file.write_all(&buffer[..n])?,
            }
        }
        if file.metadata()?.len() > limit { Err(bad(format!("{url} has more than {limit} bytes"))) } else { Ok(()) }
    }
}

fn checked(path: &Path, one: &Locked) -> Result<()> {
    let size = fs::metadata(path).map_err(|e| Error::from(e).with_code(Code::MissingFile))?.len();
    if size != one.size {
        let message = format!("it has {size} bytes, and the index says {}", one.size);
        return Err(Error::new(Code::DigestMismatch, message));
    }
    match digest::of_file(path)? {
        is if is == one.sha256 => Ok(()),
        is => Err(Error::new(Code::DigestMismatch, format!("its digest is {is}, and the index says {}", one.sha256))),
    }
}
