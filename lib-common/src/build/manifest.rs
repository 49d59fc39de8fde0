//! Package manifests: which packages a root file system has, one JSON object a line, in an order that does not depend on
//! how they were found. Reads no file.

use super::debian::deb822;
use crate::digest;
use crate::doc::{Digest, ManifestEntry, to_json};

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
    }
}
