//! From wanted packages to all that have to be installed, in the order in which they are: depth first, dependencies before
//! what needs them, as xbps does it (its `transaction_ops.c`, `repo_pkgdeps.c`). Reads no file.

use super::location::Location;
use super::pattern::Pattern;
use super::pkgver::PkgVer;
use super::repodata::{Index, IndexEntry};
use crate::error::{Code, Error, Result};
use std::collections::HashMap;

/// No chain of dependencies is longer (xbps has the same limit).
const MAX_DEPTH: usize = 512;

/// Its script makes the directories and users that the others' take for granted.
const FIRST: &str = "base-files";

/// What stands for something virtual where several packages could: as Void's xbps.d(5) has it.
const DEFAULTS: &[(&str, &str)] = &[
    ("awk", "gawk"),
    ("cron-daemon", "cronie"),
    ("dhcp-client", "dhcpcd"),
    ("java-environment", "openjdk17"),
    ("libGL", "libglvnd"),
    ("ntp-daemon", "chrony"),
    ("smtp-forwarder", "dma"),
    ("smtp-server", "opensmtpd"),
    ("vi", "nvi"),
];

/// A repository that was read.
#[derive(Clone, Debug)]
pub struct Repository {
    /// Where it is.
    pub location: Location,
    /// What it has.
    pub index: Index,
}

/// A package that is going to be installed.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// As its repository describes it.
    pub entry: IndexEntry,
    /// The number of that repository.
    pub repository: usize,
    /// Whether it is there for another package, and nobody has asked for it by name.
    pub automatic: bool,
}

/// All packages that the `wanted` ones need for `arch`, and themselves: what one depends on comes before it, and base-files
/// and its dependencies before all. Of several repositories the first that has something fitting counts.
///
/// # Errors
/// [`Code::NotFound`] for a wanted package that there is not, [`Code::BadValue`] for what cannot be one's name;
/// [`Code::BadInput`], naming who needs what, where something is missing or two packages cannot be together.
pub fn resolve(repositories: &[Repository], wanted: &[String], arch: &str) -> Result<Vec<Chosen>> {
    let patterns = wanted.iter().map(|text| wanted_pattern(text)).collect::<Result<Vec<_>>>()?;
    let mut set = Set::new(repositories, arch);
    set.require_all(&patterns)?;
    if set.by_name.contains_key(FIRST) {
        let first = wanted_pattern(FIRST)?;
        set = Set { providers: set.providers, ..Set::empty(repositories, arch) };
        set.require(&first, None, 0)?;
        set.require_all(&patterns)?;
    }
    set.check_together()?;
    set.check_libraries()?;
    let asked = |entry: &IndexEntry| patterns.iter().any(|pattern| fits(pattern, entry));
    let chosen = |(repository, entry): &Found<'_>| Chosen {
        entry: (*entry).clone(),
        repository: *repository,
        automatic: !asked(entry),
    };
    Ok(set.order.iter().map(chosen).collect())
}

/// What somebody wrote: a name alone, a package with its version, or a pattern.
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

/// What was chosen so far.
struct Set<'a> {
    repositories: &'a [Repository],
    arch: &'a str,
    /// Who stands for what, in the order of the repositories and names.
    providers: HashMap<&'a str, Vec<Found<'a>>>,
    /// Chosen, or about to be.
    by_name: HashMap<&'a str, &'a IndexEntry>,
    /// The same, by what they stand for.
    provided: HashMap<&'a str, Vec<&'a IndexEntry>>,
    order: Vec<Found<'a>>,
}

impl<'a> Set<'a> {
    fn empty(repositories: &'a [Repository], arch: &'a str) -> Self {
        let (by_name, provided) = (HashMap::new(), HashMap::new());
        Set { repositories, arch, providers: HashMap::new(), by_name, provided, order: vec![] }
    }

    fn new(repositories: &'a [Repository], arch: &'a str) -> Self {
        let mut set = Set::empty(repositories, arch);
        for (number, repository) in repositories.iter().enumerate() {
            for entry in repository.index.packages.values().filter(|entry| runs_on(entry, arch)) {
                for virtual_one in &entry.props.provides {
                    set.providers.entry(virtual_one.name()).or_default().push((number, entry));
                }
            }
        }
        set
    }

    fn require_all(&mut self, patterns: &[Pattern]) -> Result<()> {
        patterns.iter().try_for_each(|pattern| self.require(pattern, None, 0))
    }

    /// Chooses what fits, and before it what that needs, unless it is there. `by` is who needs it.
    fn require(&mut self, pattern: &Pattern, by: Option<&IndexEntry>, depth: usize) -> Result<()> {
        let there = self.by_name.get(pattern.name()).copied();
        let virtually = self.provided.get(pattern.name()).into_iter().flatten();
        if there.into_iter().chain(virtually.copied()).any(|entry| fits(pattern, entry)) {
            return Ok(());
        }
        let Some((repository, entry)) = self.find(pattern) else { return Err(self.missing(pattern, by)) };
        if let Some(other) = self.by_name.get(entry.props.pkgver.name()) {
            return Err(two_versions(pattern, by, &other.props.pkgver));
        }
        if depth >= MAX_DEPTH {
            let message = format!("the dependencies of `{}` are more than {MAX_DEPTH} deep", entry.props.pkgver);
            return Err(Error::new(Code::BadInput, message));
        }
        self.by_name.insert(entry.props.pkgver.name(), entry);
        for virtual_one in &entry.props.provides {
            self.provided.entry(virtual_one.name()).or_default().push(entry);
        }
        for text in &entry.props.run_depends {
            let needed = pattern_of(text, entry)?;
            self.require(&needed, Some(entry), depth + 1)?;
        }
        self.order.push((repository, entry));
        Ok(())
    }

    /// A package of that name; else the usual one of those that stand for it; else the first of them.
    fn find(&self, pattern: &Pattern) -> Option<Found<'a>> {
        let named = |name: &str| {
            let mut all = self.repositories.iter().enumerate();
            all.find_map(|(number, repository)| {
                let entry = repository.index.packages.get(name)?;
                (runs_on(entry, self.arch) && fits(pattern, entry)).then_some((number, entry))
            })
        };
        let usual = DEFAULTS.iter().find(|(name, _)| *name == pattern.name());
        named(pattern.name())
            .or_else(|| named(usual?.1))
            .or_else(|| self.providers.get(pattern.name())?.iter().find(|(_, entry)| fits(pattern, entry)).copied())
    }

    fn missing(&self, pattern: &Pattern, by: Option<&IndexEntry>) -> Error {
        let has = self.repositories.iter().find_map(|repository| repository.index.packages.get(pattern.name()));
        let (what, code) = match by {
            Some(by) => (format!("`{}` needs `{}`, and", by.props.pkgver, pattern.as_str()), Code::BadInput),
            None => (format!("`{}` cannot be installed:", pattern.as_str().trim_end_matches(">=0")), Code::NotFound),
        };
        let why = match has {
            Some(entry) if runs_on(entry, self.arch) => format!("there is only `{}`", entry.props.pkgver),
            Some(entry) => format!("`{}` is for {}", entry.props.pkgver, entry.props.architecture),
            None => "no repository has it".into(),
        };
        Error::new(code, format!("{what} {why}")).hint(match by {
            Some(_) => "name a repository that has it, too: --repository URL|DIR".to_owned(),
            None => "check the name in --packages, or name a repository that has it: --repository URL|DIR".to_owned(),
        })
    }

    /// Nothing conflicts with, or takes the place of, something else.
    fn check_together(&self) -> Result<()> {
        for (_, entry) in &self.order {
            let props = &entry.props;
            for (lists, what) in [(&props.conflicts, "conflicts with"), (&props.replaces, "takes the place of")] {
                for text in lists {
                    let pattern = pattern_of(text, entry)?;
                    let named = self.by_name.get(pattern.name()).filter(|other| pattern.matches(&other.props.pkgver));
                    // What replaces something virtual only says that the providers exclude each other at updates.
                    let virtually = self.provided.get(pattern.name()).into_iter().flatten();
                    let virtually = virtually.filter(|other| what.starts_with("conflicts") && fits(&pattern, other));
                    let mut others = named.into_iter().chain(virtually);
                    if let Some(other) = others.find(|other| other.props.pkgver.name() != props.pkgver.name()) {
                        let message = format!("`{}` {what} `{}`", props.pkgver, other.props.pkgver);
                        return Err(Error::new(Code::BadInput, format!("{message}, and both are needed"))
                            .hint("leave one of them out of --packages"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Every shared library that is needed is in one of them.
    fn check_libraries(&self) -> Result<()> {
        let there: std::collections::HashSet<&str> =
            self.order.iter().flat_map(|(_, entry)| &entry.props.shlib_provides).map(String::as_str).collect();
        for (_, entry) in &self.order {
            let Some(library) = entry.props.shlib_requires.iter().find(|one| !there.contains(one.as_str())) else {
                continue;
            };
            let message = format!("`{}` needs the library `{library}`, and no package here has it", entry.props.pkgver);
            let all = self.repositories.iter().flat_map(|repository| repository.index.packages.values());
            let owner = all.into_iter().find(|other| other.props.shlib_provides.contains(library));
            return Err(Error::new(Code::BadInput, message).hint(match owner {
                Some(owner) => format!("--packages {} installs what has it", owner.props.pkgver.name()),
                None => "name a repository that has it, too: --repository URL|DIR".into(),
            }));
        }
        Ok(())
    }
}

fn runs_on(entry: &IndexEntry, arch: &str) -> bool {
    entry.props.architecture == arch || entry.props.architecture == "noarch"
}

/// Whether a package is meant by a pattern, as itself or for something that it stands for.
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
