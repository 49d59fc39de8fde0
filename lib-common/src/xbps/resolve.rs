//! Which packages are installed, and in which order: what each depends on before itself.

use super::bad;
use super::location::Location;
use super::package::ANY_ARCH;
use super::pattern::Pattern;
use super::pkgver::{PkgVer, is_name, short};
use super::repodata::{Index, IndexEntry};
use crate::error::{Code, Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// The longest chain of dependencies, as xbps has it.
const MAX_DEPTH: usize = 512;

/// Who stands for something that several packages provide, as Void's own configuration has it.
const DEFAULTS: [(&str, &str); 3] = [("awk", "gawk"), ("ntp-daemon", "chrony"), ("smtp-server", "opensmtpd")];

/// What everything else takes for granted.
const FIRST: &str = "base-files";

/// A repository and its index.
#[derive(Debug)]
pub struct Repository {
    /// Where it is.
    pub location: Location,
    /// What it has.
    pub index: Index,
}

/// A package that is going to be installed.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// What the index says of it.
    pub entry: IndexEntry,
    /// The repository, by its number.
    pub repository: usize,
    /// Whether nobody has asked for it by its name.
    pub automatic: bool,
}

/// The packages `wanted`, by their names, with all that they need. The first repository that has a match for a package wins.
///
/// # Errors
/// [`Code::NotFound`] for a name that no repository has; [`Code::BadInput`] for packages that cannot be installed together:
/// one that is missing, a version that does not match, a library that nobody has, a conflict.
pub fn resolve(repositories: &[Repository], wanted: &[String], arch: &str) -> Result<Vec<Chosen>> {
    let mut run = Resolving { repositories, arch, chosen: vec![], places: BTreeMap::new() };
    let first = wanted.iter().filter(|name| *name == FIRST);
    for name in first.chain(wanted.iter().filter(|name| *name != FIRST)) {
        run.ask(name)?;
    }
    for chosen in &mut run.chosen {
        chosen.automatic = !wanted.iter().any(|name| *name == chosen.entry.props.pkgver.name());
    }
    let chosen = run.chosen;
    check_conflicts(&chosen)?;
    check_libraries(&chosen)?;
    Ok(chosen)
}

struct Resolving<'a> {
    repositories: &'a [Repository],
    arch: &'a str,
    chosen: Vec<Chosen>,
    /// The state of each package by its name.
    places: BTreeMap<&'a str, &'a IndexEntry>,
}

impl<'a> Resolving<'a> {
    /// Takes a package that was asked for by its name.
    fn ask(&mut self, name: &str) -> Result<()> {
        let found = if is_name(name) { self.find(name, &|_| true) } else { None };
        let Some((repository, entry)) = found else {
            let message = format!("no repository has the package `{}`", short(name));
            return Err(Error::new(Code::NotFound, message).hint("check its name, and the repositories"));
        };
        self.take(repository, entry, 0)
    }

    /// Takes a package behind all that it depends on. One that is being taken already is passed by: cycles are allowed.
    fn take(&mut self, repository: usize, entry: &'a IndexEntry, depth: usize) -> Result<()> {
        let pkgver = &entry.props.pkgver;
        if self.places.insert(pkgver.name(), entry).is_some() {
            return Ok(());
        }
        let of = |e: Error| e.within(format!("the package {pkgver} cannot be installed"));
        if depth > MAX_DEPTH {
            return Err(of(bad("its dependencies are nested too deep")));
        }
        for text in &entry.props.run_depends {
            self.depend(&Pattern::parse(text).map_err(of)?, pkgver, depth)?;
        }
        self.chosen.push(Chosen { entry: entry.clone(), repository, automatic: true });
        Ok(())
    }

    fn depend(&mut self, pattern: &Pattern, of: &PkgVer, depth: usize) -> Result<()> {
        let fulfils = |entry: &IndexEntry| provides(entry, pattern);
        let taken = self.places.get(pattern.name()).copied();
        if taken.is_some_and(fulfils) || self.places.values().any(|entry| fulfils(entry)) {
            return Ok(());
        }
        let wrong = |what: String| Err(bad(format!("the package {of} needs `{}`: {what}", pattern.as_str())));
        if let Some(entry) = taken {
            return wrong(format!("the repositories have {}", entry.props.pkgver));
        }
        match self.find(pattern.name(), &|pkgver| pattern.matches(pkgver)) {
            Some((repository, entry)) => self.take(repository, entry, depth + 1),
            None => match self.find(pattern.name(), &|_| true) {
                Some((_, entry)) => wrong(format!("the repositories have {}", entry.props.pkgver)),
                None => wrong("no repository has it".into()),
            },
        }
    }

    /// The package of that name that fits, else the first that stands for it.
    fn find(&self, name: &str, fits: &dyn Fn(&PkgVer) -> bool) -> Option<(usize, &'a IndexEntry)> {
        let repositories = self.repositories;
        let here = |entry: &&IndexEntry| [self.arch, ANY_ARCH].contains(&entry.props.architecture.as_str());
        let named = |name: &str| {
            let entries = repositories.iter().enumerate();
            entries.filter_map(|(n, r)| Some((n, r.index.packages.get(name).filter(here)?))).collect::<Vec<_>>()
        };
        if let Some(found) = named(name).into_iter().find(|(_, entry)| fits(&entry.props.pkgver)) {
            return Some(found);
        }
        let stands = |entry: &IndexEntry| entry.props.provides.iter().any(|p| p.name() == name && fits(p));
        let default = DEFAULTS.iter().find(|(of, _)| *of == name).map(|(_, default)| *default);
        let default = default.into_iter().flat_map(|default| named(default).into_iter());
        let all =
            repositories.iter().enumerate().flat_map(|(n, r)| r.index.packages.values().map(move |entry| (n, entry)));
        default.chain(all.filter(|(_, entry)| here(entry))).find(|(_, entry)| stands(entry))
    }
}

/// Whether a package is what a pattern asks for, or stands for it.
fn provides(entry: &IndexEntry, pattern: &Pattern) -> bool {
    pattern.matches(&entry.props.pkgver) || entry.props.provides.iter().any(|provided| pattern.matches(provided))
}

/// Nothing is replaced on an empty disk: a package that would replace another one of the same set is in conflict with it.
fn check_conflicts(chosen: &[Chosen]) -> Result<()> {
    for one in chosen.iter().map(|chosen| &chosen.entry) {
        let pkgver = &one.props.pkgver;
        for text in one.props.conflicts.iter().chain(&one.props.replaces) {
            let pattern = Pattern::parse(text).map_err(|e| e.within(format!("the package {pkgver}")))?;
            let others =
                chosen.iter().map(|other| &other.entry).filter(|other| other.props.pkgver.name() != pkgver.name());
            if let Some(other) = others.into_iter().find(|other| provides(other, &pattern)) {
                let message = format!("the packages {pkgver} and {} cannot be installed together", other.props.pkgver);
                return Err(bad(message).also(format!("{pkgver} conflicts with, or replaces `{text}`")));
            }
        }
    }
    Ok(())
}

fn check_libraries(chosen: &[Chosen]) -> Result<()> {
    let props = || chosen.iter().map(|chosen| &chosen.entry.props);
    let there: BTreeSet<&String> = props().flat_map(|props| &props.shlib_provides).collect();
    for props in props() {
        if let Some(library) = props.shlib_requires.iter().find(|library| !there.contains(library)) {
            let message = format!("the package {} needs the library {}", props.pkgver, short(library));
            return Err(bad(message).also("no package that is going to be installed has it"));
        }
    }
    Ok(())
}
