//! From wanted packages to all that have to be installed, in the order of xbps' own transaction: the wanted ones enter it
//! first, each is then put behind its dependencies, and what another one replaces leaves it. Reads no file.

use super::location::Location;
use super::pattern::Pattern;
use super::pkgver::PkgVer;
use super::repodata::{Index, IndexEntry};
use lib_common::error::{Code, Error, Result};
use std::collections::{HashMap, HashSet};

/// No package with dependencies is deeper below a wanted one (xbps has the same limit).
const MAX_DEPTH: usize = 512;

/// A repository that was read.
#[derive(Clone, Debug)]
pub struct Repository {
    /// Where it is.
    pub location: Location,
    /// What it has.
    pub index: Index,
}

/// What is to be resolved.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Names, names with a version, and patterns, in the order in which xbps would be given them.
    pub wanted: &'a [String],
    /// Of the packages.
    pub arch: &'a str,
    /// Names of virtual packages, each with the package that provides it where several could.
    pub providers: &'a [(String, String)],
    /// True where the repositories have no more than an earlier resolution chose (a lock file): a package that another one
    /// replaces is not among them then.
    pub is_closed: bool,
}

/// A package that is going to be installed.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// As its repository describes it.
    pub entry: IndexEntry,
    /// The number of that repository.
    pub repository: usize,
    /// True if only other packages need it.
    pub automatic: bool,
}

/// What a transaction does with a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Installs it.
    Install,
    /// Leaves it out, because another package of the transaction replaces it.
    Remove,
}

impl Action {
    /// As xbps-install(1) prints it with `-n`.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Install => "install",
            Action::Remove => "remove",
        }
    }
}

/// One package of a transaction.
#[derive(Clone, Debug)]
pub struct Step {
    /// The package.
    pub chosen: Chosen,
    /// What becomes of it.
    pub action: Action,
}

/// All packages that the wanted ones need, and themselves, in the order in which xbps works on them. Of several repositories
/// the first that has something fitting counts, and of several providers of a virtual package there the first by name.
///
/// # Errors
/// [`Code::NotFound`] for a wanted package that there is not, [`Code::BadValue`] for what cannot be one's name;
/// [`Code::BadInput`], naming who needs what, where something is missing or two packages cannot be together.
pub fn resolve(repositories: &[Repository], request: &Request<'_>) -> Result<Vec<Step>> {
    let patterns = request.wanted.iter().map(|text| wanted_pattern(text)).collect::<Result<Vec<_>>>()?;
    let mut set = Set::new(repositories, *request);
    for pattern in &patterns {
        set.want(pattern)?;
    }
    for found in set.wanted.clone() {
        set.require_all(found.1, 0)?;
        set.order.push(found);
    }
    let replaced = set.replaced()?;
    let stays: Vec<Found<'_>> =
        set.order.iter().filter(|(_, entry)| !replaced.contains(entry.props.pkgver.name())).copied().collect();
    check_conflicts(&stays)?;
    check_libraries(repositories, &stays)?;
    let step = |(repository, entry): &Found<'_>| {
        let name = entry.props.pkgver.name();
        let automatic = !set.wanted.iter().any(|(_, wanted)| wanted.props.pkgver == entry.props.pkgver);
        Step {
            chosen: Chosen { entry: (*entry).clone(), repository: *repository, automatic },
            action: if replaced.contains(name) { Action::Remove } else { Action::Install },
        }
    };
    Ok(set.order.iter().map(step).collect())
}

/// The pattern of a wanted package: a name alone, a package with its version, or a pattern.
fn wanted_pattern(text: &str) -> Result<Pattern> {
    let is_bare = !text.contains(['<', '>', '*', '?', '[']) && PkgVer::parse(text).is_err();
    let pattern = if is_bare { Pattern::parse(&format!("{text}>=0")) } else { Pattern::parse(text) };
    pattern.map_err(|e| {
        Error::new(Code::BadValue, format!("`{}` is not the name of a package", text.escape_debug()))
            .because(&e)
            .hint("a name such as vim, one with a version such as vim-9.1.0_1, or a pattern such as 'vim>=9'")
    })
}

/// A package and the number of its repository.
type Found<'a> = (usize, &'a IndexEntry);

/// A transaction in the making.
struct Set<'a> {
    repositories: &'a [Repository],
    request: Request<'a>,
    /// The packages that provide a virtual one, in the order of the repositories and names.
    providers: HashMap<&'a str, Vec<Found<'a>>>,
    /// Chosen, or about to be: all that are wanted from the beginning.
    by_name: HashMap<&'a str, &'a IndexEntry>,
    /// The same packages, by the names of the virtual ones that they provide.
    provided: HashMap<&'a str, Vec<&'a IndexEntry>>,
    wanted: Vec<Found<'a>>,
    order: Vec<Found<'a>>,
}

impl<'a> Set<'a> {
    fn new(repositories: &'a [Repository], request: Request<'a>) -> Self {
        let mut providers: HashMap<&str, Vec<Found<'a>>> = HashMap::new();
        for (number, repository) in repositories.iter().enumerate() {
            for entry in repository.index.packages.values().filter(|entry| runs_on(entry, request.arch)) {
                for provided in &entry.props.provides {
                    providers.entry(provided.name()).or_default().push((number, entry));
                }
            }
        }
        let (by_name, provided) = (HashMap::new(), HashMap::new());
        Set { repositories, request, providers, by_name, provided, wanted: vec![], order: vec![] }
    }

    /// Puts what a wanted pattern means into the transaction, once.
    fn want(&mut self, pattern: &Pattern) -> Result<()> {
        let Some(found) = self.find(pattern) else {
            return if self.is_replaced(pattern) { Ok(()) } else { Err(self.missing(pattern, None)) };
        };
        match self.by_name.get(found.1.props.pkgver.name()) {
            Some(other) if other.props.pkgver == found.1.props.pkgver => Ok(()),
            Some(other) => Err(two_versions(pattern, None, &other.props.pkgver)),
            None => {
                self.enter(found.1);
                self.wanted.push(found);
                Ok(())
            }
        }
    }

    fn enter(&mut self, entry: &'a IndexEntry) {
        self.by_name.insert(entry.props.pkgver.name(), entry);
        for provided in &entry.props.provides {
            self.provided.entry(provided.name()).or_default().push(entry);
        }
    }

    /// Chooses what a package needs and is not chosen yet, each behind its own dependencies.
    fn require_all(&mut self, by: &'a IndexEntry, depth: usize) -> Result<()> {
        if depth >= MAX_DEPTH && !by.props.run_depends.is_empty() {
            let message = format!("the dependencies of `{}` are more than {MAX_DEPTH} deep", by.props.pkgver);
            return Err(Error::new(Code::BadInput, message));
        }
        for text in &by.props.run_depends {
            let pattern = pattern_of(text, by)?;
            if by.props.provides.iter().any(|one| pattern.matches(one)) || self.has(&pattern) {
                continue;
            }
            let Some(found) = self.find(&pattern) else {
                if self.is_replaced(&pattern) {
                    continue;
                }
                return Err(self.missing(&pattern, Some(by)));
            };
            let name = found.1.props.pkgver.name();
            if name == by.props.pkgver.name() {
                continue;
            }
            if let Some(other) = self.by_name.get(name) {
                return Err(two_versions(&pattern, Some(by), &other.props.pkgver));
            }
            self.enter(found.1);
            self.require_all(found.1, depth + 1)?;
            self.order.push(found);
        }
        Ok(())
    }

    /// True if a package of the transaction will do.
    fn has(&self, pattern: &Pattern) -> bool {
        if pattern.spans_names() {
            return self.by_name.values().any(|entry| fits(pattern, entry));
        }
        let named = self.by_name.get(pattern.name()).copied();
        let virtually = self.provided.get(pattern.name()).into_iter().flatten();
        named.into_iter().chain(virtually.copied()).any(|entry| fits(pattern, entry))
    }

    /// A package of that name; else, by repository, the usual provider or the first one.
    fn find(&self, pattern: &Pattern) -> Option<Found<'a>> {
        let named = |number: usize, name: &str| {
            let entry = self.repositories[number].index.packages.get(name)?;
            (runs_on(entry, self.request.arch) && fits(pattern, entry)).then_some((number, entry))
        };
        let mut all = 0..self.repositories.len();
        if let Some(found) = all.clone().find_map(|number| named(number, pattern.name())) {
            return Some(found);
        }
        let usual = self.request.providers.iter().find(|(name, _)| name == pattern.name());
        let providers = self.providers.get(pattern.name());
        all.find_map(|number| {
            let first = || providers?.iter().find(|(at, entry)| *at == number && fits(pattern, entry)).copied();
            usual.and_then(|(_, name)| named(number, name)).or_else(first)
        })
    }

    /// True if the package is left out of a closed set because another one replaces it.
    fn is_replaced(&self, pattern: &Pattern) -> bool {
        let names = |text: &String| Pattern::parse(text).is_ok_and(|replaced| replaced.name() == pattern.name());
        let all = || self.repositories.iter().flat_map(|repository| repository.index.packages.values());
        self.request.is_closed && all().any(|entry| entry.props.replaces.iter().any(names))
    }

    /// The names of packages that others of the transaction replace. One that is replaced replaces nothing.
    fn replaced(&self) -> Result<HashSet<&'a str>> {
        let mut replaced = HashSet::new();
        for (_, entry) in &self.order {
            if replaced.contains(entry.props.pkgver.name()) {
                continue;
            }
            for text in &entry.props.replaces {
                let pattern = pattern_of(text, entry)?;
                let other = self.by_name.get(pattern.name()).filter(|other| pattern.matches(&other.props.pkgver));
                let other = other.map(|other| other.props.pkgver.name());
                replaced.extend(other.filter(|name| *name != entry.props.pkgver.name()));
            }
        }
        Ok(replaced)
    }

    fn missing(&self, pattern: &Pattern, by: Option<&IndexEntry>) -> Error {
        let has = self.repositories.iter().find_map(|repository| repository.index.packages.get(pattern.name()));
        let (what, code) = match by {
            Some(by) => (format!("`{}` needs `{}`, and", by.props.pkgver, pattern.as_str()), Code::BadInput),
            None => (format!("`{}` cannot be installed:", pattern.as_str().trim_end_matches(">=0")), Code::NotFound),
        };
        let why = match has {
            Some(entry) if runs_on(entry, self.request.arch) => format!("there is only `{}`", entry.props.pkgver),
            Some(entry) => format!("`{}` is for {}", entry.props.pkgver, entry.props.architecture),
            None => "no repository has it".into(),
        };
        Error::new(code, format!("{what} {why}")).hint(match by {
            Some(_) => "name a repository that has it, too: --repository URL|DIR".to_owned(),
            None => "check the name in --packages, or name a repository that has it: --repository URL|DIR".to_owned(),
        })
    }
}

/// Fails if one of the packages conflicts with another one of them.
fn check_conflicts(stays: &[Found<'_>]) -> Result<()> {
    for (_, entry) in stays {
        let props = &entry.props;
        for text in &props.conflicts {
            let pattern = pattern_of(text, entry)?;
            let is_other = |other: &IndexEntry| other.props.pkgver.name() != props.pkgver.name();
            let other = stays.iter().map(|(_, other)| *other).find(|other| is_other(other) && fits(&pattern, other));
            if let Some(other) = other {
                let message = format!("`{}` conflicts with `{}`", props.pkgver, other.props.pkgver);
                return Err(Error::new(Code::BadInput, format!("{message}, and both are needed"))
                    .hint("leave one of them out of --packages"));
            }
        }
    }
    Ok(())
}

/// Fails if one of the packages needs a shared library that none of them has.
fn check_libraries(repositories: &[Repository], stays: &[Found<'_>]) -> Result<()> {
    let there: HashSet<&str> =
        stays.iter().flat_map(|(_, entry)| &entry.props.shlib_provides).map(String::as_str).collect();
    for (_, entry) in stays {
        let Some(library) = entry.props.shlib_requires.iter().find(|one| !there.contains(one.as_str())) else {
            continue;
        };
        let message = format!("`{}` needs the library `{library}`, and no package here has it", entry.props.pkgver);
        let all = repositories.iter().flat_map(|repository| repository.index.packages.values());
        let owner = all.into_iter().find(|other| other.props.shlib_provides.contains(library));
        return Err(Error::new(Code::BadInput, message).hint(match owner {
            Some(owner) => format!("--packages {} installs what has it", owner.props.pkgver.name()),
            None => "name a repository that has it, too: --repository URL|DIR".into(),
        }));
    }
    Ok(())
}

fn runs_on(entry: &IndexEntry, arch: &str) -> bool {
    entry.props.architecture == arch || entry.props.architecture == "noarch"
}

/// True if a pattern means a package, by its own name or by that of a virtual one that it provides.
fn fits(pattern: &Pattern, entry: &IndexEntry) -> bool {
    pattern.matches(&entry.props.pkgver) || entry.props.provides.iter().any(|one| pattern.matches(one))
}

fn pattern_of(text: &str, of: &IndexEntry) -> Result<Pattern> {
    Pattern::parse(text).map_err(|e| e.within(format!("the package `{}` cannot be installed", of.props.pkgver)))
}

fn two_versions(pattern: &Pattern, by: Option<&IndexEntry>, other: &PkgVer) -> Error {
    let who = by.map_or_else(|| "--packages".to_owned(), |by| format!("`{}`", by.props.pkgver));
    let message = format!("{who} needs `{}`, and `{other}` is needed already", pattern.as_str());
    Error::new(Code::BadInput, message).hint("give first the --repository whose version all of them can use")
}

#[cfg(test)]
mod tests;
