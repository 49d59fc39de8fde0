//! The test distribution is whole by itself: read again with nothing but tar, zstd and a reader of property lists, so that
//! a fault in it is not looked for in what uses it.

use crate::support::xbps::{full, own};
use lib_common::digest;
use plist::{Dictionary, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

/// A package as its archive has it.
struct Packed {
    file: String,
    props: Dictionary,
    /// The names of all entries, in order.
    entries: Vec<String>,
}

fn text<'a>(dictionary: &'a Dictionary, key: &str) -> &'a str {
    dictionary.get(key).and_then(Value::as_string).unwrap_or_else(|| panic!("{key}: {dictionary:?}"))
}

fn list(dictionary: &Dictionary, key: &str) -> Vec<String> {
    let items = dictionary.get(key).and_then(Value::as_array);
    items.into_iter().flatten().map(|item| item.as_string().unwrap().to_owned()).collect()
}

fn dictionary(bytes: &[u8]) -> Dictionary {
    Value::from_reader_xml(bytes).unwrap().into_dictionary().unwrap()
}

/// The files of an archive that are asked for, and the names of all.
fn read(path: &Path, wanted: &[&str]) -> (BTreeMap<String, Vec<u8>>, Vec<String>) {
    let mut archive = tar::Archive::new(zstd::Decoder::new(std::fs::File::open(path).unwrap()).unwrap());
    let (mut found, mut names) = (BTreeMap::new(), vec![]);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        if wanted.contains(&name.as_str()) {
            let mut bytes = vec![];
            entry.read_to_end(&mut bytes).unwrap();
            found.insert(name.clone(), bytes);
        }
        names.push(name);
    }
    (found, names)
}

fn packed(dir: &Path, index: &Dictionary) -> Vec<Packed> {
    let files = index.values().map(|entry| {
        let entry = entry.as_dictionary().unwrap();
        let file = format!("{}.{}.xbps", text(entry, "pkgver"), text(entry, "architecture"));
        assert_eq!(digest::of_file(&dir.join(&file)).unwrap().hex(), text(entry, "filename-sha256"), "{file}");
        assert!(dir.join(format!("{file}.sig2")).metadata().unwrap().len() == 256, "{file}");
        file
    });
    files
        .map(|file| {
            let (found, entries) = read(&dir.join(&file), &["./props.plist"]);
            Packed { props: dictionary(&found["./props.plist"]), entries, file }
        })
        .collect()
}

/// The name in a dependency, and the package itself where it is an exact one.
fn name_and_exact(pattern: &str) -> (&str, Option<&str>) {
    match pattern.find(['<', '>']) {
        Some(at) => (&pattern[..at], None),
        None => (pattern.rsplit_once('-').unwrap().0, Some(pattern)),
    }
}

#[test]
fn the_test_distribution_needs_nothing_that_it_does_not_have() {
    let full = full::repository();
    let (repodata, names) =
        read(&full.dir.join(format!("{}-repodata", std::env::consts::ARCH)), &["index.plist", "index-meta.plist"]);
    assert_eq!(names, ["index.plist", "index-meta.plist", "stage.plist"]);
    let key = dictionary(&repodata["index-meta.plist"]).remove("public-key").unwrap().into_data().unwrap();
    assert_eq!(key, std::fs::read(&full.key).unwrap());

    let all = packed(&full.dir, &dictionary(&repodata["index.plist"]));
    let each = |key: &'static str| all.iter().flat_map(move |package| list(&package.props, key));
    let pkgvers: BTreeSet<String> = all.iter().map(|package| text(&package.props, "pkgver").to_owned()).collect();
    let name = |pkgver: &String| pkgver.rsplit_once('-').unwrap().0.to_owned();
    let provided: BTreeSet<String> = pkgvers.iter().map(name).chain(each("provides").map(|p| name(&p))).collect();
    let shlibs: BTreeSet<String> = each("shlib-provides").collect();
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for package in &all {
        let lacks =
            |what: &str, items: Vec<String>| assert_eq!(items, Vec::<String>::new(), "{}: {what}", package.file);
        let required = list(&package.props, "shlib-requires").into_iter();
        lacks("libraries", required.filter(|lib| !shlibs.contains(lib)).collect());
        let is_there = |pattern: &String| {
            let (name, exact) = name_and_exact(pattern);
            provided.contains(name) && exact.is_none_or(|pkgver| pkgvers.contains(pkgver))
        };
        lacks("packages", list(&package.props, "run_depends").into_iter().filter(|p| !is_there(p)).collect());
        for entry in package
            .entries
            .iter()
            .filter(|entry| !matches!(&entry[2..], "INSTALL" | "REMOVE" | "props.plist" | "files.plist"))
        {
            let other = owners.insert(entry, &package.file);
            assert_eq!(other, None, "{entry} is in {}, too", package.file);
        }
    }
    for file in ["./usr/lib/runit/runit-init", "./usr/bin/runit", "./usr/bin/sh", "./usr/bin/sshd", "./etc/runit/1"] {
        assert!(owners.contains_key(file), "{file}");
    }
    let moved =
        owners.keys().filter(|path| ["./bin/", "./sbin/", "./lib/", "./usr/sbin/"].iter().any(|d| path.starts_with(d)));
    assert_eq!(moved.collect::<Vec<_>>(), Vec::<&&str>::new(), "below a link");
    assert!(provided.contains(own::TOOL) && all.len() > 90, "{}", all.len());
}
