//! One Debian package packed anew. Its maintainer scripts are left out: what they would do, our own packages do.

#![allow(clippy::disallowed_types)]

use super::control::Control;
use super::{shlib, tree};
use crate::support::xbps::package::{Content, Entry, PackageSpec};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

/// Groups of which Debian's packages offer one program each: package, group, `LINK:TARGET`.
const ALTERNATIVES: &[(&str, &str, &str)] = &[
    ("gawk", "awk", "/usr/bin/awk:/usr/bin/gawk"),
    ("debianutils", "which", "/usr/bin/which:/usr/bin/which.debianutils"),
];

/// The package of a `.deb`, with the given dependencies.
pub fn repack(deb: &Path, control: &Control, run_depends: Vec<String>) -> PackageSpec {
    let mut spec = PackageSpec::new(&control.name, &control.version);
    spec.arch.clone_from(&control.architecture);
    spec.description = format!("Debian's {} in Void's clothes, for tests", control.name);
    spec.run_depends = run_depends;
    spec.provides = control.provides.iter().map(|name| format!("{name}-0_1")).collect();
    for (_, group, link) in ALTERNATIVES.iter().filter(|(package, ..)| *package == control.name) {
        spec.alternatives.insert((*group).to_owned(), vec![(*link).to_owned()]);
    }
    spec.entries = entries(deb);
    let is_conf = |entry: &&Entry| entry.path.starts_with("etc/") && matches!(entry.content, Content::File(_));
    spec.conf_files = spec.entries.iter().filter(is_conf).map(|entry| format!("/{}", entry.path)).collect();
    let (mut provided, mut required) = (BTreeSet::new(), BTreeSet::new());
    for entry in &spec.entries {
        if let Content::File(bytes) = &entry.content {
            let found = shlib::of(bytes);
            required.extend(found.needed);
            provided.extend(found.soname.filter(|_| entry.path.starts_with("usr/lib/")));
        }
    }
    spec.shlib_requires = required.difference(&provided).cloned().collect();
    spec.shlib_provides = provided.into_iter().collect();
    spec
}

/// Its files in their places; the links of a package last, as they may lead to any of them.
fn entries(deb: &Path) -> Vec<Entry> {
    let mut command = Command::new("dpkg-deb");
    let mut child = command.arg("--fsys-tarfile").arg(deb).stdout(Stdio::piped()).spawn().unwrap();
    let mut archive = tar::Archive::new(child.stdout.take().unwrap());
    let mut all: Vec<Entry> = archive.entries().unwrap().filter_map(|entry| read(&mut entry.unwrap())).collect();
    // To its end, so that dpkg-deb is not ended by a broken pipe.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).unwrap();
    assert!(child.wait().unwrap().success(), "{}", deb.display());
    all.sort_by_key(|entry| !matches!(entry.content, Content::File(_)));
    // A program that was in /bin and in /sbin is in both no more.
    let mut paths = BTreeSet::new();
    all.retain(|entry| paths.insert(entry.path.clone()));
    all
}

fn read(entry: &mut tar::Entry<'_, impl Read>) -> Option<Entry> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let debian = text(entry.path_bytes().strip_prefix(b"./")?);
    let path = tree::place(&debian)?;
    let link = entry.link_name_bytes().map(|bytes| text(&bytes));
    let content = match entry.header().entry_type() {
        tar::EntryType::Regular => {
            let mut bytes = vec![];
            entry.read_to_end(&mut bytes).unwrap();
            Content::File(bytes)
        }
        tar::EntryType::Symlink => Content::Symlink(tree::target(&debian, &link.unwrap())?),
        tar::EntryType::Link => Content::Hardlink(tree::place(link.unwrap().trim_start_matches("./"))?),
        _ => return None,
    };
    let header = entry.header();
    let (uid, gid) = (header.uid().unwrap(), header.gid().unwrap());
    Some(Entry { path, content, mode: header.mode().unwrap() & 0o7777, uid, gid })
}
