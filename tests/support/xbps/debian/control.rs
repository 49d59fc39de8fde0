//! What a Debian package says of itself: its name, its version in Void's characters, and what it depends on.

#![allow(clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// The fields of one package.
#[derive(Clone, Debug)]
pub struct Control {
    pub name: String,
    /// As Void would write it: `1.4.13.dfsg1.1_1`.
    pub version: String,
    pub architecture: String,
    /// Names that others may depend on.
    pub provides: Vec<String>,
    /// Each a list of alternatives: a name, and the version that it must be exactly, if any.
    pub depends: Vec<Vec<(String, Option<String>)>>,
}

impl Control {
    /// Of a package's file.
    pub fn of(deb: &Path) -> Self {
        let fields = ["Package", "Version", "Architecture", "Provides", "Pre-Depends", "Depends"];
        let output = Command::new("dpkg-deb").arg("--field").arg(deb).args(fields).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Control::parse(&String::from_utf8(output.stdout).unwrap())
    }

    fn parse(text: &str) -> Self {
        let fields: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(": ")).collect();
        let get = |field: &str| fields.get(field).copied().unwrap_or_default();
        let groups = |field: &str| get(field).split(", ").filter(|group| !group.is_empty()).map(str::to_owned);
        Control {
            name: get("Package").to_owned(),
            version: version(get("Version")),
            architecture: if get("Architecture") == "all" { "noarch".into() } else { std::env::consts::ARCH.into() },
            provides: groups("Provides").map(|item| alternative(&item).0).collect(),
            depends: groups("Pre-Depends")
                .chain(groups("Depends"))
                .map(|group| group.split('|').map(|item| alternative(item.trim())).collect())
                .collect(),
        }
    }
}

/// `name (= 1.2-3)` with the version, where it must be that one. Other relations are left to Debian's own solver, which has
/// chosen versions that keep them.
fn alternative(item: &str) -> (String, Option<String>) {
    let name = item.split([' ', ':', '(']).next().unwrap().to_owned();
    let exact = item.split_once("(= ").map(|(_, rest)| version(rest.trim_end_matches(')')));
    (name, exact)
}

/// A version as Void can have it.
fn version(debian: &str) -> String {
    let text: String = debian.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '.' }).collect();
    format!("{text}_1")
}

/// For each of `all` that `wanted` needs, the patterns of what it depends on. What is not in `all` is Debian's own
/// administration, or was left out on purpose, and nothing depends on it any more.
pub fn depends<'a>(all: &'a BTreeMap<String, Control>, wanted: &[&str]) -> BTreeMap<&'a str, Vec<String>> {
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut queue: Vec<&str> = wanted.to_vec();
    while let Some(name) = queue.pop() {
        let (name, control) = all.get_key_value(name).unwrap_or_else(|| panic!("no package {name}"));
        if found.contains_key(name.as_str()) {
            continue;
        }
        let mut patterns = BTreeSet::new();
        for group in &control.depends {
            let Some((target, pattern)) = group.iter().find_map(|item| choose(all, item)) else { continue };
            queue.push(target);
            patterns.insert(pattern);
        }
        found.insert(name, patterns.into_iter().collect());
    }
    found
}

/// The package that fulfils an alternative, and the pattern by which Void would ask for it.
fn choose<'a>(
    all: &'a BTreeMap<String, Control>,
    (name, exact): &(String, Option<String>),
) -> Option<(&'a str, String)> {
    if let Some(control) = all.get(name) {
        let pattern = match exact {
            Some(version) => format!("{name}-{version}"),
            None => format!("{name}>=0"),
        };
        return Some((&control.name, pattern));
    }
    let provider = all.values().find(|control| control.provides.contains(name))?;
    Some((&provider.name, format!("{name}>=0")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_what_void_would_say() {
        let text = "Package: a\nVersion: 1:4.13+dfsg1-1~b2\nArchitecture: all\nProvides: awk, x (= 2)\n\
            Pre-Depends: libc6 (>= 2.34)\nDepends: b (= 1-2), gone | awk, python3:any\n";
        let a = Control::parse(text);
        assert_eq!((a.version.as_str(), a.architecture.as_str()), ("1.4.13.dfsg1.1.b2_1", "noarch"));
        assert_eq!(a.provides, ["awk", "x"]);
        let names: Vec<&str> = a.depends.iter().flatten().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["libc6", "b", "gone", "awk", "python3"]);
        let b = Control::parse("Package: b\nVersion: 1-2\nArchitecture: amd64\n");
        let all = BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        let found = depends(&all, &["a"]);
        assert_eq!(found["a"], ["awk>=0", "b-1.2_1"]);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), ["a", "b"]);
    }
}
