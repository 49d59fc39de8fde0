//! Indexes and packages from where they are to where they can be read, and what has to be true of them before: each has the
//! digest that it should, and what came over a network a signature of somebody trusted, too. What was downloaded stays in the
//! cache by its content: `xbps/SHA256.xbps` and beside it `.sig2`.

use super::download::Client;
use super::key::Key;
use super::location::Location;
use super::pkgver::PkgVer;
use super::repodata::Index;
use super::resolve::Repository;
use fs_err as fs;
use lib_common::digest;
use lib_common::doc::Digest;
use lib_common::error::{Code, Context, Error, Result};
use lib_common::sys::fs::TEMP_PREFIX;
use lib_common::sys::fs::private_dir;
use lib_common::sys::lock::Lock;
use lib_common::sys::plain;
use lib_common::sys::signal;
use lib_common::sys::thread;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::Duration;

/// So many downloads at a time.
const WORKERS: usize = 4;
/// The largest index that is downloaded, in bytes: that of all of Void's packages has 2 MB.
const MAX_INDEX: u64 = 64 << 20;
/// The largest signature, in bytes: that of a key of 32,768 bits.
const MAX_SIGNATURE: u64 = 4096;
/// How often progress is told.
const TELL: Duration = Duration::from_millis(250);
/// How long another build may download into the same cache.
const OTHERS: Duration = Duration::from_secs(600);

/// A package's file.
#[derive(Clone, Debug)]
pub struct Archive {
    /// Name and version.
    pub pkgver: PkgVer,
    /// `x86_64`, `noarch`.
    pub arch: String,
    /// Of the file.
    pub sha256: Digest,
    /// Of the file, in bytes.
    pub size: u64,
    /// Its repository.
    pub location: Location,
}

impl Archive {
    fn name(&self) -> String {
        format!("{}.{}.xbps", self.pkgver, self.arch)
    }
}

/// Fetches, into one cache.
#[derive(Debug)]
pub struct Fetcher {
    dir: PathBuf,
    keys: Vec<Key>,
    staging: bool,
    client: OnceLock<Client>,
}

impl Fetcher {
    /// Into `xbps/` of that cache. `keys`: whose signatures are believed. `staging`: true if what a repository of another
    /// host has staged counts; that of a directory always does.
    pub fn new(cache_dir: &Path, keys: Vec<Key>, staging: bool) -> Self {
        Fetcher { dir: cache_dir.join("xbps"), keys, staging, client: OnceLock::new() }
    }

    /// A repository with its index as it is now.
    ///
    /// # Errors
    /// [`Code::MissingFile`] where there is none for `arch`, [`Code::BadInput`] for what is none, [`Code::Permission`] for
    /// one of another host that nobody trusted has signed; those of a download.
    pub fn repository(&self, location: &Location, arch: &str) -> Result<Repository> {
        let name = format!("{arch}-repodata");
        let index = match location {
            Location::Dir(dir) => {
                let file = dir.join(&name);
                if !file.is_file() {
                    let message = format!("{location} is no repository for {arch}: it has no {name}");
                    return Err(Error::new(Code::MissingFile, message));
                }
                Index::read(&file, true)?
            }
            Location::Url(url) => {
                private_dir(&self.dir)?;
                let temp = self.temporary()?;
                self.client().get(&format!("{url}/{name}"), temp.path(), MAX_INDEX, &|_| ())?;
                Index::read(temp.path(), self.staging).context(format!("the repository {url} cannot be read"))?
            }
        };
        if location.is_remote() {
            self.check_key(location, index.key.as_ref())?;
        }
        Ok(Repository { location: location.clone(), index })
    }

    /// A file that is known as in the making while it is open.
    fn temporary(&self) -> Result<tempfile::NamedTempFile> {
        let made = tempfile::Builder::new().prefix(TEMP_PREFIX).tempfile_in(&self.dir);
        let temp = made.map_err(|e| Error::io("make a file in", &self.dir, &e))?;
        lib_common::sys::lock::hold(temp.as_file());
        Ok(temp)
    }

    fn check_key(&self, location: &Location, key: Option<&Key>) -> Result<()> {
        let refused =
            |why: String| Error::new(Code::Permission, format!("the repository {location} is not trusted: {why}"));
        match key {
            Some(key) if self.keys.iter().any(|own| own.is_same(key)) => Ok(()),
            Some(key) => Err(refused(format!("it is signed with the key {}", key.fingerprint())).hint(
                "if that is the one it should be, get it from who signs there: --key FILE (PEM or property list)",
            )),
            None => Err(refused("it is not signed".into())
                .hint("sign it with `xbps-rindex --sign`, or copy it and give the directory: --repository DIR")),
        }
    }

    /// A package's file from the cache, if it is there and whole. `signed`: whether it needs a signature that is trusted.
    ///
    /// # Errors
    /// What keeps it from being read.
    pub fn cached(&self, sha256: &Digest, signed: bool) -> Result<Option<PathBuf>> {
        let path = self.dir.join(format!("{}.xbps", sha256.hex()));
        if !path.is_file() {
            return Ok(None);
        }
        if digest::of_file(&path)? != *sha256 {
            fs::remove_file(&path)?;
            return Ok(None);
        }
        let fine = !signed || self.verify(&path).is_ok();
        Ok(fine.then_some(path))
    }

    /// The files of packages, each checked, in the same order. `note` is told how far it is.
    ///
    /// # Errors
    /// [`Code::DigestMismatch`] with the package's name for a file or a signature that is not what it should be; those of a
    /// download.
    pub fn fetch(&self, all: &[Archive], note: &mut dyn FnMut(&str)) -> Result<Vec<PathBuf>> {
        let _lock = if all.iter().any(|one| one.location.is_remote()) {
            private_dir(&self.dir)?;
            Some(Lock::take(&self.dir.join(".lock"), OTHERS)?)
        } else {
            None
        };
        let (next, done, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicU64::new(0));
        let found: Mutex<Vec<Option<PathBuf>>> = Mutex::new(vec![None; all.len()]);
        let work = || -> Result<()> {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let Some(one) = all.get(n) else { return Ok(()) };
                let path = self.one(one, &|more| {
                    bytes.fetch_add(more, Ordering::Relaxed);
                });
                let path = path.context(format!("the package {} cannot be taken", one.pkgver));
                // The others stop, too.
                let path = path.inspect_err(|_| next.store(all.len(), Ordering::Relaxed))?;
                if let Ok(mut found) = found.lock() {
                    found[n] = Some(path);
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        };
        // Nothing is ever sent: the channel closes when the last worker ends.
        let (alive, ended) = mpsc::channel::<()>();
        let work = &work;
        std::thread::scope(|scope| {
            let begin = |alive: mpsc::Sender<()>| {
                thread::scoped(scope, move || {
                    let _alive = alive;
                    work()
                })
            };
            // Fewer are slower, and one has to be.
            let first = begin(alive.clone())?;
            let more = (1..WORKERS).filter_map(|_| begin(alive.clone()).ok());
            let workers: Vec<_> = [first].into_iter().chain(more).collect();
            drop(alive);
            while ended.recv_timeout(TELL) == Err(mpsc::RecvTimeoutError::Timeout) {
                let (done, mib) = (done.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed) >> 20);
                note(&format!("fetch: {done} of {} packages, {mib} MiB downloaded", all.len()));
            }
            let panicked = |_| Err(Error::new(Code::Internal, "a download panicked"));
            workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(panicked))
        })?;
        let found = found.into_inner().unwrap_or_default();
        found.into_iter().collect::<Option<_>>().ok_or_else(|| Error::new(Code::Internal, "a package was passed by"))
    }

    fn one(&self, one: &Archive, heard: &(dyn Fn(u64) + Sync)) -> Result<PathBuf> {
        signal::check()?;
        match &one.location {
            Location::Dir(dir) => {
                let path = dir.join(one.name());
                check(&path, one)?;
                Ok(path)
            }
            Location::Url(url) => {
                let path = match self.cached(&one.sha256, false)? {
                    Some(path) => path,
                    None => self.download(&format!("{url}/{}", one.name()), one, heard)?,
                };
                let signature = sig2(&path);
                if !signature.is_file() {
                    let temp = self.temporary()?;
                    let address = format!("{url}/{}.sig2", one.name());
                    self.client().get(&address, temp.path(), MAX_SIGNATURE, &|_| ()).map_err(unsigned)?;
                    temp.persist(&signature).map_err(|e| e.error)?;
                }
                self.verify(&path).inspect_err(|_| {
                    let _ = fs::remove_file(&signature);
                })?;
                Ok(path)
            }
        }
    }

    /// Downloads a package into the cache; what an earlier build has of it is its beginning.
    fn download(&self, url: &str, one: &Archive, heard: &(dyn Fn(u64) + Sync)) -> Result<PathBuf> {
        let path = self.dir.join(format!("{}.xbps", one.sha256.hex()));
        let part = path.with_extension("part");
        let resumed = fs::metadata(&part).is_ok_and(|found| found.len() > 0);
        self.client().get(url, &part, one.size, heard)?;
        let mut checked = check(&part, one);
        if checked.is_err() && resumed {
            fs::remove_file(&part)?;
            self.client().get(url, &part, one.size, heard)?;
            checked = check(&part, one);
        }
        checked.inspect_err(|_| drop(fs::remove_file(&part)))?;
        fs::rename(&part, &path)?;
        Ok(path)
    }

    fn verify(&self, path: &Path) -> Result<()> {
        let signature = sig2(path);
        let signature = plain::read_named(&signature, MAX_SIGNATURE)?;
        if self.keys.iter().any(|key| key.verify(path, &signature).is_ok()) {
            return Ok(());
        }
        Err(Error::new(Code::DigestMismatch, "its signature is not by a key that is trusted")
            .hint("the mirror is damaged or hostile: use another one with --repository URL"))
    }

    fn client(&self) -> &Client {
        self.client.get_or_init(Client::new)
    }
}

fn sig2(path: &Path) -> PathBuf {
    path.with_extension("xbps.sig2")
}

fn unsigned(e: Error) -> Error {
    e.within("it has no signature (.sig2)")
}

/// Whether a file is what the index says.
fn check(path: &Path, one: &Archive) -> Result<()> {
    let size = std::fs::metadata(path).map_err(|e| Error::io("read", path, &e).with_code(Code::MissingFile))?.len();
    if size != one.size {
        let message = format!("it has {size} bytes, and should have {}", one.size);
        return Err(Error::new(Code::DigestMismatch, message));
    }
    match digest::of_file(path)? {
        found if found == one.sha256 => Ok(()),
        found => Err(Error::new(Code::DigestMismatch, format!("its digest is {found}, and should be {}", one.sha256))),
    }
}
