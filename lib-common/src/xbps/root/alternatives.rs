//! Programs of which several packages offer one each under one name, and the links that make one of them it.

use crate::error::Result;
use crate::xbps::bad;
use crate::xbps::package::Package;
use crate::xbps::shown;
use plist::Value;
use std::collections::BTreeMap;

/// Groups of which several packages offer one program each; the first that does is the one.
#[derive(Debug, Default)]
pub(super) struct Alternatives {
    groups: BTreeMap<String, Vec<String>>,
    /// Paths without a slash in front, and where they lead.
    pub(super) links: BTreeMap<String, String>,
}

impl Alternatives {
    pub(super) fn add(&mut self, name: &str, package: &Package) -> Result<()> {
        for (group, links) in &package.props.alternatives {
            let members = self.groups.entry(group.clone()).or_default();
            members.push(name.to_owned());
            if members.len() > 1 {
                continue;
            }
            for text in links {
                let wrong = || bad(format!("the package `{name}` has the alternative `{}`", shown(text)));
                let (link, target) = text.split_once(':').ok_or_else(wrong)?;
                let (path, target) = link_of(link, target).ok_or_else(wrong)?;
                self.links.insert(path, target);
            }
        }
        Ok(())
    }

    /// As the package database has them.
    pub(super) fn value(&self) -> Value {
        let names = |names: &Vec<String>| Value::Array(names.iter().map(|name| name.as_str().into()).collect());
        Value::Dictionary(self.groups.iter().map(|(group, all)| (group.clone(), names(all))).collect())
    }
}

/// The link's path, in its target's directory unless it says another, and the target relative to it.
fn link_of(link: &str, target: &str) -> Option<(String, String)> {
    let to = parts(target)?;
    let mut path = if link.starts_with('/') { vec![] } else { to[..to.len() - 1].to_vec() };
    path.extend(parts(link)?);
    let dir = &path[..path.len() - 1];
    let common = dir.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..", dir.len() - common);
    let relative: Vec<&str> = up.chain(to[common..].iter().copied()).collect();
    Some((path.join("/"), relative.join("/")))
}

fn parts(path: &str) -> Option<Vec<&str>> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let fine = !parts.is_empty() && !parts.iter().any(|part| [".", ".."].contains(part));
    fine.then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_beside_its_target_and_leads_there_the_short_way() {
        for (link, target, path, leads) in [
            ("vi", "/usr/bin/nvi", "usr/bin/vi", "nvi"),
            ("/usr/bin/sh", "/usr/bin/dash", "usr/bin/sh", "dash"),
            ("/usr/share/man/man1/vi.1", "/usr/share/man/man1/nvi.1", "usr/share/man/man1/vi.1", "nvi.1"),
            ("/etc/alt", "/usr/lib/alt/one", "etc/alt", "../usr/lib/alt/one"),
            ("sub/x", "/usr/bin/y", "usr/bin/sub/x", "../y"),
        ] {
            assert_eq!(link_of(link, target), Some((path.into(), leads.into())), "{link}:{target}");
        }
        for (link, target) in [("", "/a"), ("a", ""), ("../a", "/b/c"), ("a", "/../b"), ("/", "/a")] {
            assert_eq!(link_of(link, target), None, "{link}:{target}");
        }
    }
}
