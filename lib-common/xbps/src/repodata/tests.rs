use super::super::key;
use super::super::package::testing::{Raw, props, tar, xml, zstd};
use super::*;
use lib_common::error::Code;
use plist::Dictionary;
use std::io::Write;

fn index_plist(names: &[&str]) -> Dictionary {
    let entry = |name: &&str| {
        let mut entry = props(&format!("{name}-1.0_1"), "x86_64");
        entry.insert("filename-sha256".into(), "ab".repeat(32).into());
        entry.insert("filename-size".into(), 42_u64.into());
        ((*name).to_owned(), Value::from(entry))
    };
    names.iter().map(entry).collect()
}

fn parts(index: Dictionary) -> Vec<Raw> {
    let meta = xml(key::pinned().unwrap()[0].dictionary());
    vec![Raw::file("index.plist", &xml(index)), Raw::file("index-meta.plist", &meta), Raw::file("stage.plist", b"")]
}

fn read_bytes(bytes: &[u8]) -> Result<Index> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x86_64-repodata");
    std::fs::write(&path, bytes).unwrap();
    Index::read(&path, false)
}

#[test]
fn an_index_is_read_however_it_is_compressed() {
    let tar = tar(&parts(index_plist(&["bash", "awk"])));
    let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(vec![], bzip2::Compression::fast());
    bzip2.write_all(&tar).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(vec![], 1);
    xz.write_all(&tar).unwrap();
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(vec![]);
    lz4.write_all(&tar).unwrap();
    let packed = [gzip.finish().unwrap(), bzip2.finish().unwrap(), xz.finish().unwrap(), lz4.finish().unwrap()];
    for bytes in packed.into_iter().chain([zstd(&tar), tar.clone()]) {
        let index = read_bytes(&bytes).unwrap();
        assert_eq!(index.packages.keys().collect::<Vec<_>>(), ["awk", "bash"]);
        let bash = &index.packages["bash"];
        assert_eq!((bash.props.pkgver.as_str(), bash.size), ("bash-1.0_1", 42));
        assert_eq!(bash.sha256.hex(), "ab".repeat(32));
        assert!(index.key.unwrap().is_same(&key::pinned().unwrap()[0]));
        let half = read_bytes(&bytes[..bytes.len() / 2]).unwrap_err();
        assert_eq!(half.code(), Code::BadInput);
        assert!(half.message().contains("x86_64-repodata"), "{half}");
        assert!(read_bytes(&[&bytes[..], b"x"].concat()).is_err());
    }
}

#[test]
fn unsigned_and_old_ones_have_no_key() {
    let index = Raw::file("index.plist", &xml(index_plist(&["a"])));
    for meta in [&b""[..], b"DEADBEEF"] {
        let read = read_bytes(&tar(&[index.clone(), Raw::file("index-meta.plist", meta)])).unwrap();
        assert!(read.key.is_none() && read.packages.len() == 1);
    }
    assert!(read_bytes(&tar(&[Raw::file("index.plist", b"")])).unwrap().packages.is_empty());
}

#[test]
fn what_is_no_index_is_refused() {
    let whole = parts(index_plist(&["a"]));
    let mut renamed = whole.clone();
    renamed[0].name = "./index.plist".into();
    for (bytes, says) in [
        (vec![], "no index.plist"),
        (tar(&whole[1..]), "no part of an index"),
        (tar(&[&whole[..], &whole[..1]].concat()), "no part of an index"),
        (tar(&renamed), "no part of an index"),
        (tar(&[Raw::symlink("index.plist", "/etc/passwd")]), "no part of an index"),
        (tar(&[Raw::file("index.plist", b"junk")]), "index.plist"),
        (tar(&[whole[0].clone(), Raw::file("index-meta.plist", &[b' '; 70_000])]), "too large"),
    ] {
        let e = read_bytes(&bytes).expect_err(says);
        assert_eq!(e.code(), Code::BadInput);
        assert!(e.with_causes().contains(says), "`{says}` is not in: {}", e.with_causes());
    }
    assert_eq!(Index::read(Path::new("/nonexistent/repodata"), false).unwrap_err().code(), Code::MissingFile);
}

#[test]
fn one_malformed_entry_is_passed_by_and_told() {
    let with = |change: &dyn Fn(&mut Dictionary)| {
        let mut index = index_plist(&["a", "b"]);
        change(index.get_mut("a").unwrap().as_dictionary_mut().unwrap());
        index
    };
    let mut no_dictionary = index_plist(&["b"]);
    no_dictionary.insert("a".into(), Value::Boolean(true));
    for (index, says) in [
        (with(&|p| drop(p.insert("pkgver".into(), "c-1.0_1".into()))), "another name"),
        (with(&|p| drop(p.insert("pkgver".into(), "a-1.0".into()))), "pkgver"),
        (with(&|p| drop(p.insert("filename-sha256".into(), "AB".into()))), "filename-sha256"),
        (with(&|p| drop(p.insert("filename-size".into(), "1".into()))), "filename-size"),
        (with(&|p| drop(p.remove("filename-size"))), "filename-size"),
        (no_dictionary, "no dictionary"),
    ] {
        let index = read_bytes(&tar(&parts(index))).unwrap();
        assert_eq!(index.packages.keys().collect::<Vec<_>>(), ["b"]);
        assert!(index.skipped.len() == 1 && index.skipped[0].contains(says), "{:?}", index.skipped);
    }
    let names: Vec<String> = (0..100).map(|n| format!("a{n}")).collect();
    let all: Dictionary = names.iter().map(|name| (name.clone(), Value::Boolean(true))).collect();
    assert_eq!(read_bytes(&tar(&parts(all))).unwrap().skipped.len(), MAX_SKIPPED);
}

#[test]
fn staged_packages_count_where_they_are_asked_for() {
    let mut all = parts(index_plist(&["a", "b"]));
    let mut stage = index_plist(&["a", "c"]);
    stage.get_mut("a").unwrap().as_dictionary_mut().unwrap().insert("pkgver".into(), "a-2.0_1".into());
    all[2] = Raw::file("stage.plist", &xml(stage));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x86_64-repodata");
    std::fs::write(&path, tar(&all)).unwrap();
    let found = |staged: bool| {
        let packages = Index::read(&path, staged).unwrap().packages;
        packages.values().map(|entry| entry.props.pkgver.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(found(false), ["a-1.0_1", "b-1.0_1"]);
    assert_eq!(found(true), ["a-2.0_1", "b-1.0_1", "c-1.0_1"]);
}
