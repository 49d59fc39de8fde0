//! One tree of several packages, and those that cannot be one.

use super::*;
use crate::fixture::{Spec, repository};
use crate::location::Location;
use crate::repodata::Index;
use crate::resolve::{Repository, Request, resolve};
use std::collections::BTreeMap;

fn unpacked(specs: &[Spec]) -> Vec<Unpacked> {
    let dir = tempfile::tempdir().unwrap().keep();
    repository(&dir, specs, &[]);
    let index = Index::read(&dir.join("x86_64-repodata"), false).unwrap();
    let wanted: Vec<String> = specs.iter().map(|spec| spec.pkgver.clone()).collect();
    let repositories = [Repository { location: Location::Dir(dir.clone()), index }];
    let open = |chosen: Chosen| {
        let props = &chosen.entry.props;
        let file = dir.join(format!("{}.{}.xbps", props.pkgver, props.architecture));
        let package = Package::open(&file, &props.pkgver, &props.architecture).unwrap();
        Unpacked { chosen, package }
    };
    let request = Request { wanted: &wanted, arch: "x86_64", providers: &[], is_closed: false };
    resolve(&repositories, &request).unwrap().into_iter().map(|step| open(step.chosen)).collect()
}

fn tar_of(specs: &[Spec], added: &[Added]) -> Result<Vec<u8>, Stopped> {
    let last = Some(("last", "#!/bin/sh\n"));
    let keys: Vec<_> = crate::key::pinned().unwrap().into_iter().map(|key| (key, "Void".to_owned())).collect();
    let extra = Extra { added, last, keys: &keys, is_system: true, arch: "x86_64", epoch: 7 };
    let mut bytes = vec![];
    write_tar(unpacked(specs), &extra, &mut bytes).map(|()| bytes)
}

/// By path: the file's content, or `-> TARGET`, or nothing for a directory.
fn tree(bytes: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(bytes);
    let entry = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().mtime().unwrap(), 7);
        let path = entry.path().unwrap().display().to_string();
        let text = match entry.link_name().unwrap() {
            Some(target) => format!("-> {}", target.display()),
            None => io::read_to_string(&mut entry).unwrap(),
        };
        (path, text)
    };
    archive.entries().unwrap().map(entry).collect()
}

#[track_caller]
fn refused(specs: &[Spec], words: &[&str]) {
    match tar_of(specs, &[]) {
        Err(Stopped::Package(e)) => {
            let said = e.with_causes();
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
        other => panic!("{:?}", other.map(|bytes| bytes.len())),
    }
}

#[test]
fn a_root_has_the_files_the_database_and_the_scripts_in_order() {
    let specs = [
        Spec::new("a-1_1").file("usr/bin/a", "a").install("#!/bin/sh\n").alternative("x", "x:/usr/bin/a"),
        Spec::new("b-2_1").needs(&["a>=0"]).link("usr/bin/b", "a").alternative("x", "x:/usr/bin/b"),
        Spec::new("c-3_1").needs(&["b>=0"]).install("#!/bin/sh\n").file("etc/conf", "theirs"),
    ];
    let added = [Added::file("etc/conf", "ours"), Added::link("etc/on", "/etc/sv/on")];
    let bytes = tar_of(&specs, &added).unwrap();
    let tree = tree(&bytes);
    let at = |path: &str| tree.get(path).unwrap_or_else(|| panic!("{path}: {:?}", tree.keys())).as_str();
    for (path, content) in [
        ("usr/bin/a", "a"),
        ("usr/bin/b", "-> a"),
        ("usr/bin/x", "-> a"),
        ("etc/conf", "ours"),
        ("etc/on", "-> /etc/sv/on"),
        ("var/lib/banger/configure/list", "001 a 1_1 x86_64\n002 c 3_1 x86_64\n003 last 1 x86_64\n"),
        ("var/lib/banger/configure/epoch", "7\n"),
    ] {
        assert_eq!(at(path), content, "{path}");
    }
    let database = Value::from_reader_xml(at(PKGDB).as_bytes()).unwrap();
    let get = |keys: &[&str]| keys.iter().fold(&database, |value, key| &value.as_dictionary().unwrap()[*key]).clone();
    assert_eq!(get(&["a", "state"]).as_string(), Some("installed"));
    assert_eq!(get(&["_XBPS_ALTERNATIVES_", "x"]).as_array().unwrap()[0].as_string(), Some("a"));
    assert!(get(&["a", "install-script"]).as_data().is_some());
    assert_eq!(tar_of(&specs, &added).unwrap(), bytes, "the same packages give the same bytes");
}

#[test]
fn a_path_has_one_owner_and_leads_through_nobody_elses_link() {
    let a = |spec: fn(Spec) -> Spec| spec(Spec::new("a-1_1"));
    let b = |path: &str| Spec::new("b-1_1").file(path, "b");
    refused(&[a(|a| a.file("etc/x", "a")), b("etc/x")], &["`a`", "`b`", "etc/x"]);
    refused(&[a(|a| a.link("etc/x", "../..")), b("etc/x/y")], &["`a`", "`b`", "etc/x"]);
    refused(&[a(|a| a.file("etc/x", "a")), b("etc/x/y")], &["`a`", "`b`", "etc/x"]);
    refused(&[a(|a| a.file("etc/x/y", "a")), b("etc/x")], &["`b`", "etc/x"]);
    refused(&[a(|a| a.alternative("g", "../../../x:/usr/bin/y"))], &["`a`", "../../../x"]);
}

#[test]
fn a_key_file_that_a_package_ships_stays() {
    let name = crate::key::pinned().unwrap()[0].fingerprint();
    let path = format!("var/db/xbps/keys/{name}.plist");
    let tree = tree(&tar_of(&[Spec::new("xbps-1_1").file(&path, "theirs")], &[]).unwrap());
    assert_eq!(tree[&path], "theirs");
    assert_eq!(tree.keys().filter(|path| path.starts_with("var/db/xbps/keys/") && path.ends_with("plist")).count(), 2);
}

#[test]
fn the_script_of_base_files_is_first_and_the_database_says_what_xbps_does() {
    let specs = [
        Spec::new("a-1_1").install("#!/bin/sh\n"),
        Spec::new("base-files-1_1").install("#!/bin/sh\n"),
        Spec::new("c-1_1").install("#!/bin/sh\n"),
    ];
    let tree = tree(&tar_of(&specs, &[]).unwrap());
    let list = "001 base-files 1_1 x86_64\n002 a 1_1 x86_64\n003 c 1_1 x86_64\n004 last 1 x86_64\n";
    assert_eq!(tree["var/lib/banger/configure/list"], list);
    let database = Value::from_reader_xml(tree[PKGDB].as_bytes()).unwrap();
    let a = database.as_dictionary().unwrap()["a"].as_dictionary().unwrap();
    assert!(a.contains_key("pkgver") && NOT_IN_PKGDB.iter().all(|key| !a.contains_key(key)), "{a:?}");
}

#[test]
fn an_alternative_takes_the_place_of_earlier_files_and_gives_way_to_later_ones() {
    let owner = || Spec::new("b-1_1").file("usr/bin/tool", "file");
    let link = || Spec::new("a-1_1").file("usr/bin/real", "r").alternative("g", "tool:/usr/bin/real");
    let at = |specs: &[Spec]| tree(&tar_of(specs, &[]).unwrap())["usr/bin/tool"].clone();
    assert_eq!(at(&[owner(), link()]), "-> real");
    assert_eq!(at(&[link(), owner()]), "file");
    let added = [Added::file("usr/bin/tool", "ours")];
    assert_eq!(tree(&tar_of(&[owner(), link()], &added).unwrap())["usr/bin/tool"], "ours");
    let linked = [
        Spec::new("base-1_1").link("bin", "usr/bin").file("usr/bin/x", ""),
        Spec::new("a-1_1").alternative("g", "/bin/tool:/usr/bin/x"),
    ];
    assert_eq!(at(&linked), "-> ../usr/bin/x", "below the directory that the link leads to");
}
