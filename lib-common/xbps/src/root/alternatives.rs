//! Programs of which several packages offer one each under one name, and the links that make one of them it.
//!
//! A link counts from the moment in which its package is unpacked: it takes the place of what the packages before have there,
//! and a file of a package behind takes its place. So all links are planned before anything is written. Sources: xbps'
//! `lib/package_alternatives.c`, and what its tools made of the corpus in `tests/xbps`.

use super::Unpacked;
use crate::shown;
use crate::{bad, package::Package};
use lib_common::error::Result;
use plist::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// No chain of symbolic links is longer, as on Linux.
const MAX_LINKS: usize = 40;

/// A link of the package that is the first of its group.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// What the link says.
    pub(super) target: String,
    /// The package's number.
    pub(super) by: usize,
    /// Directories that have to be there: the link's, and its target's where that is absolute, though nothing may be in it.
    pub(super) dirs: Vec<String>,
}

/// The groups, and all links by their paths, without a slash in front and through no other link.
#[derive(Debug, Default)]
pub(super) struct Alternatives {
    groups: BTreeMap<String, Vec<String>>,
    pub(super) links: BTreeMap<String, Link>,
}

impl Alternatives {
    /// Plans the links of packages that are in the order of their installation.
    ///
    /// Errors: `bad_input` with the package's name, for a link that leads out of the root or through a link to nothing.
    pub(super) fn of(all: &[Unpacked]) -> Result<Self> {
        let mut planned = Alternatives::default();
        let mut there = Links::default();
        for (number, Unpacked { package, .. }) in all.iter().enumerate() {
            there.add(package);
            let name = package.props.pkgver.name();
            for (group, links) in &package.props.alternatives {
                let members = planned.groups.entry(group.clone()).or_default();
                members.push(name.to_owned());
                if members.len() > 1 {
                    continue;
                }
                for text in links {
                    let wrong = || bad(format!("the package `{name}` has the alternative `{}`", shown(text)));
                    let (link, target) = text.split_once(':').ok_or_else(wrong)?;
                    let (path, link) = there.link(link, target, number).ok_or_else(wrong)?;
                    planned.links.insert(path, link);
                }
            }
        }
        Ok(planned)
    }

    /// As the package database has them.
    pub(super) fn value(&self) -> Value {
        let names = |names: &Vec<String>| Value::Array(names.iter().map(|name| name.as_str().into()).collect());
        Value::Dictionary(self.groups.iter().map(|(group, all)| (group.clone(), names(all))).collect())
    }
}

/// The symbolic links and directories of the packages so far, as their `files.plist` lists them.
#[derive(Default)]
struct Links {
    /// Path to absolute target, both without a slash in front.
    links: HashMap<String, String>,
    dirs: BTreeSet<String>,
}

impl Links {
    fn add(&mut self, package: &Package) {
        for list in ["files", "conf_files", "links"] {
            let items = package.files.get(list).and_then(Value::as_array).into_iter().flatten();
            for item in items.filter_map(Value::as_dictionary) {
                let text =
                    |key: &str| item.get(key).and_then(Value::as_string).map(|text| text.trim_start_matches('/'));
                let Some(path) = text("file") else { continue };
                self.dirs.extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
                if let (true, Some(target)) = (list == "links", text("target")) {
                    self.links.insert(path.to_owned(), target.to_owned());
                }
            }
        }
    }

    /// The path of a link and the link, from `LINK:TARGET`: beside its target unless the link says another place. An
    /// absolute target is written relative to the link, as it is named.
    fn link(&self, link: &str, target: &str, by: usize) -> Option<(String, Link)> {
        if link.is_empty() || target.is_empty() || target.contains('\0') {
            return None;
        }
        let beside = target.rsplit_once('/').map_or("", |(dir, _)| dir);
        let named = if link.starts_with('/') { parts(link)? } else { parts(&format!("{beside}/{link}"))? };
        let (name, dir) = named.split_last()?;
        let mut dirs = vec![self.real(dir)?];
        let written = match target.strip_prefix('/') {
            None => target.to_owned(),
            Some(_) => {
                let to = parts(target)?;
                let (_, to_dir) = to.split_last()?;
                dirs.push(self.real(to_dir)?);
                let common = dir.iter().zip(&to).take_while(|(a, b)| a == b).count();
                let up = std::iter::repeat_n("..", dir.len() - common);
                up.chain(to[common..].iter().map(String::as_str)).collect::<Vec<_>>().join("/")
            }
        };
        let path = if dirs[0].is_empty() { name.clone() } else { format!("{}/{name}", dirs[0]) };
        Some((path, Link { target: written, by, dirs }))
    }

    /// The directory without a link in its path. `None` for a link to a directory that no package has, and for links that
    /// lead in a circle.
    fn real(&self, dir: &[String]) -> Option<String> {
        let mut left: Vec<String> = dir.iter().rev().cloned().collect();
        let (mut real, mut followed) = (String::new(), 0);
        while let Some(part) = left.pop() {
            let path = if real.is_empty() { part } else { format!("{real}/{part}") };
            match self.links.get(&path) {
                None => real = path,
                Some(target) => {
                    followed += 1;
                    let target = parts(target)?;
                    let joined = target.join("/");
                    let leads = self.dirs.contains(&joined) || self.links.contains_key(&joined);
                    if followed > MAX_LINKS || !leads {
                        return None;
                    }
                    left.extend(target.into_iter().rev());
                    real.clear();
                }
            }
        }
        Some(real)
    }
}

/// The parts of a path below the root, without `.` and with `..` taken away. `None` for one that leads out of the root.
fn parts(path: &str) -> Option<Vec<String>> {
    let mut parts: Vec<String> = vec![];
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part if part.contains('\0') || part.len() > 255 => return None,
            part => parts.push(part.to_owned()),
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_beside_its_target_and_leads_there_the_short_way() {
        let mut there = Links::default();
        there.links.insert("bin".into(), "usr/bin".into());
        there.links.insert("lib64".into(), "usr/lib".into());
        there.links.insert("loop".into(), "loop".into());
        there.dirs.insert("usr/bin".into());
        let link = |link: &str, target: &str| there.link(link, target, 0).map(|(path, link)| (path, link.target));
        for (name, target, path, leads) in [
            ("vi", "/usr/bin/nvi", "usr/bin/vi", "nvi"),
            ("/usr/bin/sh", "/usr/bin/dash", "usr/bin/sh", "dash"),
            ("/usr/share/man/man1/vi.1", "/usr/share/man/man1/nvi.1", "usr/share/man/man1/vi.1", "nvi.1"),
            ("/etc/alt", "/usr/lib/alt/one", "etc/alt", "../usr/lib/alt/one"),
            ("sub/x", "/usr/bin/y", "usr/bin/sub/x", "../y"),
            ("../sbin/y", "/usr/bin/x", "usr/sbin/y", "../bin/x"),
            ("/bin/sd", "/usr/bin/real", "usr/bin/sd", "../usr/bin/real"),
            ("/usr/bin/relt", "real", "usr/bin/relt", "real"),
            ("/etc/rel/x", "../x/y", "etc/rel/x", "../x/y"),
            ("x", "real", "x", "real"),
        ] {
            assert_eq!(link(name, target), Some((path.into(), leads.into())), "{name}:{target}");
        }
        for (name, target) in [
            ("", "/a"),
            ("a", ""),
            ("../a", "/b"),
            ("../../a", "/b/c"),
            ("a", "/../b"),
            ("/", "/a"),
            ("/../a", "/b"),
            ("/lib64/x", "/usr/bin/y"),
            ("/loop/x", "/usr/bin/y"),
        ] {
            assert_eq!(link(name, target), None, "{name}:{target}");
        }
    }
}
