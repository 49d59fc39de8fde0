//! The host's own Debian mirror: reads apt's sources (sources.list(5), both forms) and chooses the entries of one suite.
//! Entries of other vendors are left aside. Changes nothing on the host.

use super::deb822;
use lib_common::error::{Code, Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where apt keeps its sources.
pub const APT_DIR: &str = "/etc/apt";

/// One mirror of one suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The mirror's address, without a `/` at its end.
    pub uri: String,
    /// `bookworm`, `bookworm-updates`, …
    pub suite: String,
    /// `main`, `contrib`, …
    pub components: Vec<String>,
    /// `signed-by` and the like, by their names in the one-line form.
    pub options: BTreeMap<String, String>,
}

impl Source {
    /// The entry for a mirror that the user named; apt's keys of the Debian archive sign it.
    pub fn of_mirror(uri: &str, suite: &str) -> Result<Self> {
        let known = ["http://", "https://", "file:///"].iter().any(|scheme| uri.starts_with(scheme));
        if !known || uri.contains(|c: char| c.is_whitespace() || c.is_control() || "[]\"'".contains(c)) {
            return Err(Error::new(Code::BadValue, format!("`{}` is not the address of a mirror", uri.escape_debug()))
                .hint("such as http://deb.debian.org/debian"));
        }
        let uri = uri.trim_end_matches('/').to_owned();
        Ok(Source { uri, suite: suite.into(), components: vec!["main".into()], options: BTreeMap::new() })
    }

    /// In the one-line form, as mmdebstrap takes it.
    pub fn to_line(&self) -> String {
        let options: Vec<String> = self.options.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let options = if options.is_empty() { String::new() } else { format!("[{}] ", options.join(" ")) };
        format!("deb {options}{} {} {}", self.uri, self.suite, self.components.join(" "))
    }

    /// Whether this is the Debian archive itself: signed by its keys, or, where no key is named, at an address that
    /// ends as its mirrors' do. Microsoft, Docker and others have entries with Debian's suite names too.
    fn is_debian(&self) -> bool {
        if let Some(keys) = self.options.get("signed-by") {
            return keys.split(',').all(|key| key.starts_with('/') && key.contains("debian-archive"));
        }
        let host = self.uri.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let last = self.uri.rsplit('/').next().unwrap_or_default();
        host.ends_with(".debian.org") || ["debian", "debian-security"].contains(&last)
    }

    /// Whether it serves packages of `arch`.
    fn has_arch(&self, arch: &str) -> bool {
        self.options.get("arch").is_none_or(|all| all.split(',').any(|a| a == arch))
    }
}

/// All active `deb` entries under `dir` (normally [`APT_DIR`]), in the order in which apt reads them.
///
/// Errors: [`Code::Io`] or [`Code::Permission`] for a file that cannot be read. What apt itself would refuse is left out.
pub fn read(dir: &Path) -> Result<Vec<Source>> {
    let mut all = vec![];
    for file in files(dir)? {
        let text = std::fs::read(&file).map_err(|e| Error::io("read", &file, &e))?;
        let text = String::from_utf8_lossy(&text);
        all.extend(if file.extension().is_some_and(|e| e == "sources") {
            parse_deb822(&text)
        } else {
            parse_list(&text)
        });
    }
    Ok(all)
}

/// `sources.list`, then those in `sources.list.d` whose names apt accepts, sorted.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = dir.join("sources.list");
    let mut files: Vec<PathBuf> = list.is_file().then_some(list).into_iter().collect();
    let parts = dir.join("sources.list.d");
    let is_source = |path: &PathBuf| path.extension().is_some_and(|e| e == "list" || e == "sources") && path.is_file();
    let mut more: Vec<PathBuf> =
        lib_common::sys::dirs::list(&parts)?.into_iter().map(|entry| entry.path()).filter(is_source).collect();
    more.sort();
    files.append(&mut more);
    Ok(files)
}

/// The one-line form: `deb [ option=value … ] uri suite component…`.
pub fn parse_list(text: &str) -> Vec<Source> {
    text.lines().filter_map(|line| parse_line(line.split('#').next().unwrap_or_default())).collect()
}

fn parse_line(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb")?;
    let mut rest = rest.strip_prefix(|c: char| c.is_whitespace() || c == '[').map(|_| rest.trim_start())?;
    let mut options = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('[') {
        let (list, after) = inside.split_once(']')?;
        for (name, value) in list.split_whitespace().filter_map(|word| word.split_once('=')) {
            options.insert(name.trim_end_matches(['+', '-']).to_ascii_lowercase(), value.to_owned());
        }
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    let (uri, suite) = (words.next()?, words.next()?);
    checked(Source { uri, suite, components: words.collect(), options })
}

/// The form of deb822(5): one paragraph is an entry for each of its addresses and suites.
pub fn parse_deb822(text: &str) -> Vec<Source> {
    let mut all = vec![];
    for paragraph in deb822::parse(text) {
        let off = paragraph.get("Enabled").is_some_and(|v| ["no", "false", "0", "off"].contains(&&*v.to_lowercase()));
        if off || !paragraph.words("Types").any(|t| t == "deb") {
            continue;
        }
        let options = options_of(&paragraph);
        for uri in paragraph.words("URIs") {
            for suite in paragraph.words("Suites") {
                let components = paragraph.words("Components").map(str::to_owned).collect();
                let (uri, suite) = (uri.to_owned(), suite.to_owned());
                all.extend(checked(Source { uri, suite, components, options: options.clone() }));
            }
        }
    }
    all
}

/// The fields that are options, by their names in the one-line form.
fn options_of(paragraph: &deb822::Paragraph) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    for (field, value) in paragraph.fields() {
        let name = match field.to_ascii_lowercase().as_str() {
            "types" | "uris" | "suites" | "components" | "enabled" => continue,
            "architectures" => "arch".to_owned(),
            "languages" => "lang".to_owned(),
            "targets" => "target".to_owned(),
            other if other.starts_with("x-") => continue,
            other => other.to_owned(),
        };
        // A key in the file itself has lines of its own and no place in the one-line form; joined, it is no path, so
        // the entry does not count as Debian's.
        options.insert(name, value.split_whitespace().collect::<Vec<_>>().join(","));
    }
    options
}

/// An entry that can be used: no flat repository (its suite ends with `/`), no disc.
fn checked(mut source: Source) -> Option<Source> {
    if source.suite.ends_with('/') || source.components.is_empty() || source.uri.starts_with("cdrom:") {
        return None;
    }
    source.uri.truncate(source.uri.trim_end_matches('/').len());
    Some(source)
}

/// The Debian archive's entries for `suite`, its `-updates` and its `-security`, one each, in this order.
///
/// Errors: [`Code::NotFound`] where the host has none for the suite itself.
pub fn choose(all: &[Source], suite: &str, arch: &str) -> Result<Vec<Source>> {
    let ours: Vec<&Source> = all.iter().filter(|s| s.is_debian() && s.has_arch(arch)).collect();
    let suites = [suite.to_owned(), format!("{suite}-updates"), format!("{suite}-security")];
    let chosen: Vec<Source> = suites.iter().filter_map(|wanted| merged(&ours, wanted)).collect();
    if chosen.first().is_some_and(|first| first.suite == suite) {
        return Ok(chosen);
    }
    let mut known: Vec<&str> = ours.iter().map(|s| s.suite.as_str()).filter(|s| !s.contains('-')).collect();
    known.dedup();
    let error = Error::new(Code::NotFound, format!("this host has no apt source for Debian's suite `{suite}`"));
    Err(match known.as_slice() {
        [] => error.hint("name a mirror: --mirror http://deb.debian.org/debian"),
        known => error.hint(format!("it has one for {}; or name a mirror with --mirror URL", known.join(", "))),
    })
}

/// The first entry of a suite that has `main`, with the components that other lines add to the same mirror.
fn merged(all: &[&Source], suite: &str) -> Option<Source> {
    let main = |s: &&&Source| s.suite == suite && s.components.iter().any(|c| c == "main");
    let mut found = (*all.iter().find(main)?).clone();
    for other in all.iter().filter(|s| s.suite == suite && s.uri == found.uri) {
        for component in &other.components {
            if !found.components.contains(component) {
                found.components.push(component.clone());
            }
        }
    }
    // It has been heeded, and in mmdebstrap's single-architecture root it would say nothing.
    found.options.remove("arch");
    Some(found)
}

#[cfg(test)]
mod tests;
