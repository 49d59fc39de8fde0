//! Package manifests: which packages a root file system has, one JSON object a line, in an order that does not depend on
//! how they were found. Reads no file.

use super::debian::deb822;
use lib_common::digest;
use lib_common::doc::{Digest, ManifestEntry, PackageChange, PackageDiff, strict, to_json};
use lib_common::error::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};

/// The manifest as text: sorted by name, architecture and version, each line once.
pub fn render(mut entries: Vec<ManifestEntry>) -> String {
    entries.sort_by(|a, b| (&a.name, &a.architecture, &a.version).cmp(&(&b.name, &b.architecture, &b.version)));
    entries.dedup();
    entries.iter().map(|entry| to_json(entry) + "\n").collect()
}

/// The digest of a manifest's text.
pub fn digest(text: &str) -> Digest {
    digest::of_bytes(text.as_bytes())
}

/// The packages of a manifest's text.
///
/// Errors: [`lib_common::Code::BadDocument`] with the number of the line that is none of a manifest.
pub fn parse(text: &str) -> Result<Vec<ManifestEntry>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(n, line)| strict(line).context(format!("line {} is none of a manifest", n + 1))).collect()
}

/// A package's versions that only the one and only the other has.
type Versions<'a> = (Vec<&'a ManifestEntry>, Vec<&'a ManifestEntry>);

/// What has to be done to the packages `a` so that they become `b`. A package is known by its name and architecture; where
/// there are several versions of one, each is its own.
pub fn diff(a: &[ManifestEntry], b: &[ManifestEntry]) -> PackageDiff {
    let (a, b): (BTreeSet<_>, BTreeSet<_>) = (a.iter().collect(), b.iter().collect());
    let mut packages: BTreeMap<(&str, &str), Versions<'_>> = BTreeMap::new();
    for entry in a.difference(&b) {
        packages.entry((&entry.name, &entry.architecture)).or_default().0.push(entry);
    }
    for entry in b.difference(&a) {
        packages.entry((&entry.name, &entry.architecture)).or_default().1.push(entry);
    }
    let mut diff = PackageDiff::default();
    for ((name, architecture), (gone, come)) in packages {
        if let ([from], [to]) = (&gone[..], &come[..]) {
            let (name, architecture) = (name.to_owned(), architecture.to_owned());
            let (from, to) = (from.version.clone(), to.version.clone());
            diff.changed.push(PackageChange { name, architecture, from, to });
        } else {
            diff.removed.extend(gone.into_iter().cloned());
            diff.added.extend(come.into_iter().cloned());
        }
    }
    diff
}

/// The installed packages of dpkg's status file.
pub fn of_dpkg_status(text: &str) -> Vec<ManifestEntry> {
    let entry = |p: &deb822::Paragraph| {
        let installed = p.words("Status").last() == Some("installed");
        let field = |name: &str| p.get(name).map(str::to_owned);
        let (name, version, architecture) = (field("Package")?, field("Version")?, field("Architecture")?);
        installed.then_some(ManifestEntry { name, version, architecture })
    };
    deb822::parse(text).iter().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: zsh\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.9-4\nDescription: a\n shell\n .\n\n\
        Package: libc6\nStatus: install ok installed\nArchitecture: i386\nVersion: 2.36-9\n\n\
        Package: libc6\nStatus: hold ok installed\nArchitecture: amd64\nVersion: 2.36-9\n\n\
        Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n";

    #[test]
    fn a_manifest_has_the_installed_packages_in_one_order() {
        let entries = of_dpkg_status(STATUS);
        let text = render(entries.clone());
        let names: Vec<&str> = text.lines().collect();
        assert_eq!(
            names,
            [
                r#"{"name":"libc6","version":"2.36-9","architecture":"amd64"}"#,
                r#"{"name":"libc6","version":"2.36-9","architecture":"i386"}"#,
                r#"{"name":"zsh","version":"5.9-4","architecture":"amd64"}"#,
            ]
        );
        let doubled: Vec<_> = entries.iter().rev().chain(&entries).cloned().collect();
        assert_eq!(digest(&render(doubled)), digest(&text));
        assert_eq!(render(parse(&text).unwrap()), text);
        let e = parse(&format!("{text}{{\"name\":\"a\"}}\n")).unwrap_err();
        assert!(e.message().contains("line 4"), "{e}");
    }

    #[test]
    fn a_package_is_its_name_and_architecture_and_each_of_several_versions_is_its_own() {
        let entry = |text: &str| {
            let words: Vec<&str> = text.split('/').collect();
            ManifestEntry { name: words[0].into(), version: words[1].into(), architecture: words[2].into() }
        };
        let entries = |text: &str| text.split_whitespace().map(entry).collect::<Vec<_>>();
        let a = entries("same/1/all libc6/1/amd64 libc6/1/i386 gone/1/all two/1/all two/2/all");
        let b = entries("two/3/all new/1/all libc6/2/i386 libc6/1/amd64 same/1/all");
        let found = diff(&a, &b);
        assert_eq!(found.added, entries("new/1/all two/3/all"));
        assert_eq!(found.removed, entries("gone/1/all two/1/all two/2/all"));
        let [change] = &found.changed[..] else { panic!("{found:?}") };
        assert_eq!((change.name.as_str(), change.architecture.as_str()), ("libc6", "i386"));
        assert_eq!((change.from.as_str(), change.to.as_str()), ("1", "2"));
        assert!(diff(&a, &a).is_empty() && !found.is_empty());
    }
}
