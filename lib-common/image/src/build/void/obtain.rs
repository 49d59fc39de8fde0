//! Which packages a root is made of, by its lock file or else by the repositories as they are now, and their files.

use lib_common::doc::PlanEntry;
use lib_common::error::{Code, Error, Result};
use lib_xbps::fetch::{Archive, Fetcher};
use lib_xbps::location::Location;
use lib_xbps::lock::{Lock, Locked};
use lib_xbps::package::Package;
use lib_xbps::pkgver::PkgVer;
use lib_xbps::props::Props;
use lib_xbps::repodata::{Index, IndexEntry};
use lib_xbps::resolve::{self, Action, Chosen, Repository, Step};
use lib_xbps::root::Unpacked;
use std::path::PathBuf;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Of the packages.
    pub arch: String,
    /// Names and patterns.
    pub wanted: Vec<String>,
    /// Virtual packages, and what provides them.
    pub providers: Vec<(String, String)>,
    /// In the order in which they count.
    pub repositories: Vec<Location>,
    /// The lock file.
    pub lock: Option<PathBuf>,
    /// Whether the repositories count, and the lock file is made anew.
    pub update: bool,
}

/// The packages, by name, version and digest.
#[derive(Debug)]
pub struct Plan {
    request: Request,
    lock: Lock,
    from: From,
}

/// A lock file to be written, unless it is what decided.
#[derive(Debug)]
pub struct Pending(Option<(PathBuf, Lock)>);

impl Pending {
    /// Writes it.
    ///
    /// # Errors
    /// Those of [`Lock::write`].
    pub fn save(self) -> Result<()> {
        self.0.map_or(Ok(()), |(path, lock)| lock.write(&path))
    }
}

/// What decided.
#[derive(Debug)]
enum From {
    LockFile,
    Repositories { repositories: Vec<Repository>, steps: Vec<Step>, changes: Option<Vec<String>> },
}

impl Request {
    /// The transaction. `is_closed`: see [`resolve::Request`].
    fn resolve(&self, repositories: &[Repository], is_closed: bool) -> Result<Vec<Step>> {
        let Request { wanted, arch, providers, .. } = self;
        resolve::resolve(repositories, &resolve::Request { wanted, arch, providers, is_closed })
    }
}

/// What a transaction installs, in its order.
fn installs(steps: &[Step]) -> impl Iterator<Item = &Chosen> {
    steps.iter().filter(|step| step.action == Action::Install).map(|step| &step.chosen)
}

impl Plan {
    /// Reads the lock file, or the repositories where there is none or it is to be made anew.
    ///
    /// # Errors
    /// Those of [`Lock::read`], [`Fetcher::repository`] and [`resolve`].
    pub fn of(request: Request, fetcher: &Fetcher) -> Result<Self> {
        let old = request.lock.as_deref().map(Lock::read).transpose()?.flatten();
        if let Some(lock) = old.as_ref().filter(|_| !request.update) {
            return Ok(Plan { lock: lock.clone(), request, from: From::LockFile });
        }
        let repositories = read_all(&request, fetcher)?;
        let steps = request.resolve(&repositories, false)?;
        let lock = Lock::of(installs(&steps));
        let changes = old.map(|old| old.changes(&lock));
        Ok(Plan { request, lock, from: From::Repositories { repositories, steps, changes } })
    }

    /// As a lock file has it.
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// What is another than in the lock file that is made anew.
    pub fn changes(&self) -> Option<&[String]> {
        match &self.from {
            From::Repositories { changes, .. } => changes.as_deref(),
            From::LockFile => None,
        }
    }

    /// What is worth a remark: entries of an index that were passed by, packages that others replace.
    pub fn remarks(&self) -> Vec<String> {
        let From::Repositories { repositories, steps, .. } = &self.from else { return vec![] };
        let skipped = repositories.iter().flat_map(|one| one.index.skipped.iter().map(|what| (&one.location, what)));
        let skipped = skipped.map(|(location, what)| format!("{location}: an entry of the index is passed by: {what}"));
        let removed = steps.iter().filter(|step| step.action == Action::Remove);
        let removed = removed
            .map(|step| format!("`{}` is left out: another package replaces it", step.chosen.entry.props.pkgver));
        skipped.chain(removed).collect()
    }

    /// The transaction, in its order; of a lock file its packages, by name.
    pub fn entries(&self) -> Vec<PlanEntry> {
        let entry = |pkgver: &PkgVer, repository: Option<&Location>, action: Action| PlanEntry {
            pkgver: pkgver.to_string(),
            repository: repository.map(Location::to_string),
            action: action.as_str().into(),
        };
        match &self.from {
            From::LockFile => self.lock.packages().map(|one| entry(&one.pkgver, None, Action::Install)).collect(),
            From::Repositories { repositories, steps, .. } => {
                let step = |Step { chosen, action }: &Step| {
                    let location = &repositories[chosen.repository].location;
                    entry(&chosen.entry.props.pkgver, Some(location), *action)
                };
                steps.iter().map(step).collect()
            }
        }
    }

    /// What was asked for.
    pub fn wanted(&self) -> &[String] {
        &self.request.wanted
    }

    /// The lock file that is to be written once all has gone well.
    pub fn pending(&self) -> Pending {
        match (&self.from, &self.request.lock) {
            (From::Repositories { .. }, Some(path)) => Pending(Some((path.clone(), self.lock.clone()))),
            _ => Pending(None),
        }
    }

    /// Has all files here, each checked, in the order in which they are installed. `note` is told how far it is.
    ///
    /// # Errors
    /// Those of [`Fetcher::fetch`] and [`Package::open`]; [`Code::BadInput`] for a package that says something else of itself
    /// than the index, and for a lock file that does not have just the packages that are needed; [`Code::MissingFile`] for a
    /// locked package that is nowhere any more.
    pub fn obtain(&self, fetcher: &Fetcher, note: &mut dyn FnMut(&str)) -> Result<Vec<Unpacked>> {
        match &self.from {
            From::Repositories { repositories, steps, .. } => {
                let archives: Vec<Archive> = installs(steps).map(|one| archive(one, repositories)).collect();
                let files = fetcher.fetch(&archives, note)?;
                installs(steps).cloned().zip(files).map(|(chosen, file)| opened(chosen, &file)).collect()
            }
            From::LockFile => self.obtain_locked(fetcher, note),
        }
    }

    fn obtain_locked(&self, fetcher: &Fetcher, note: &mut dyn FnMut(&str)) -> Result<Vec<Unpacked>> {
        let files = self.locked_files(fetcher, note)?;
        let mut all = std::collections::BTreeMap::new();
        let mut index = Index::default();
        for (locked, file) in self.lock.packages().zip(files) {
            let package = Package::open(&file, &locked.pkgver, &locked.arch)?;
            let size = std::fs::metadata(&file).map_err(|e| Error::io("read", &file, &e))?.len();
            let entry = IndexEntry { props: package.props.clone(), sha256: locked.sha256.clone(), size };
            index.packages.insert(locked.pkgver.name().to_owned(), entry);
            all.insert(locked.pkgver.name().to_owned(), package);
        }
        let path = self.request.lock.as_deref().map_or_else(String::new, |path| path.display().to_string());
        let update = || format!("give --update to make {path} anew");
        let repository = Repository { location: Location::Dir("/".into()), index };
        let steps = self
            .request
            .resolve(&[repository], true)
            .map_err(|e| e.within(format!("{path} does not have all packages that are needed")).hint(update()))?;
        let mut unpacked = vec![];
        for chosen in installs(&steps).cloned() {
            if let Some(package) = all.remove(chosen.entry.props.pkgver.name()) {
                unpacked.push(Unpacked { chosen, package });
            }
        }
        match all.into_values().next() {
            None => Ok(unpacked),
            Some(more) => {
                let message = format!("{path} has the package `{}`, which nothing needs", more.props.pkgver);
                Err(Error::new(Code::BadInput, message).hint(update()))
            }
        }
    }

    /// From the cache; only if something is not there, from the repositories, which must have the very same.
    fn locked_files(&self, fetcher: &Fetcher, note: &mut dyn FnMut(&str)) -> Result<Vec<PathBuf>> {
        let signed = self.request.repositories.iter().all(Location::is_remote);
        let cached = self.lock.packages().map(|one| fetcher.cached(&one.sha256, signed)).collect::<Result<Vec<_>>>()?;
        let missing: Vec<&Locked> =
            self.lock.packages().zip(&cached).filter(|(_, path)| path.is_none()).map(|(one, _)| one).collect();
        let mut fetched = if missing.is_empty() {
            vec![].into_iter()
        } else {
            let repositories = read_all(&self.request, fetcher)?;
            let found = missing.iter().map(|one| locked_archive(one, &repositories)).collect::<Result<Vec<_>>>()?;
            fetcher.fetch(&found, note)?.into_iter()
        };
        Ok(cached.into_iter().filter_map(|path| path.or_else(|| fetched.next())).collect())
    }
}

fn read_all(request: &Request, fetcher: &Fetcher) -> Result<Vec<Repository>> {
    request.repositories.iter().map(|one| fetcher.repository(one, &request.arch)).collect()
}

fn archive(chosen: &Chosen, repositories: &[Repository]) -> Archive {
    let IndexEntry { props, sha256, size } = &chosen.entry;
    Archive {
        pkgver: props.pkgver.clone(),
        arch: props.architecture.clone(),
        sha256: sha256.clone(),
        size: *size,
        location: repositories[chosen.repository].location.clone(),
    }
}

fn locked_archive(locked: &Locked, repositories: &[Repository]) -> Result<Archive> {
    let entries = repositories
        .iter()
        .filter_map(|repository| Some((repository, repository.index.packages.get(locked.pkgver.name())?)));
    let is_it = |entry: &IndexEntry| {
        entry.sha256 == locked.sha256 && entry.props.pkgver == locked.pkgver && entry.props.architecture == locked.arch
    };
    let found = entries.into_iter().find(|(_, entry)| is_it(entry));
    let (repository, entry) = found.ok_or_else(|| {
        let message =
            format!("the locked package `{}` is neither in the cache nor in a repository any more", locked.pkgver);
        Error::new(Code::MissingFile, message)
            .hint("--update makes the lock file anew; a mirror that keeps old packages is given with --repository")
    })?;
    let (pkgver, arch) = (locked.pkgver.clone(), locked.arch.clone());
    let (sha256, size, location) = (entry.sha256.clone(), entry.size, repository.location.clone());
    Ok(Archive { pkgver, arch, sha256, size, location })
}

/// The package in a file, which must be what the index says: only the package itself is signed.
fn opened(chosen: Chosen, file: &std::path::Path) -> Result<Unpacked> {
    let said = &chosen.entry.props;
    let package = Package::open(file, &said.pkgver, &said.architecture)?;
    if let Some(key) = difference(said, &package.props) {
        let message = format!("the index says something else of the package `{}` than itself: {key}", said.pkgver);
        return Err(Error::new(Code::BadInput, message).hint("the index is damaged or forged: use another repository"));
    }
    Ok(Unpacked { chosen, package })
}

/// What differs first.
fn difference(index: &Props, package: &Props) -> Option<&'static str> {
    let pairs = [
        ("architecture", index.architecture == package.architecture),
        ("run_depends", index.run_depends == package.run_depends),
        ("provides", index.provides == package.provides),
        ("conflicts", index.conflicts == package.conflicts),
        ("replaces", index.replaces == package.replaces),
        ("shlib-provides", index.shlib_provides == package.shlib_provides),
        ("shlib-requires", index.shlib_requires == package.shlib_requires),
        ("conf_files", index.conf_files == package.conf_files),
        ("alternatives", index.alternatives == package.alternatives),
    ];
    pairs.into_iter().find(|(_, same)| !same).map(|(key, _)| key)
}
