use super::testing::*;
use super::*;
use lib_common::error::Code;
use tar::EntryType;

const PKGVER: &str = "tool-1.0_1";

fn opened(bytes: &[u8]) -> Result<Package> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.xbps");
    std::fs::write(&path, bytes).unwrap();
    Package::open(&path, &PkgVer::parse(PKGVER).unwrap(), "x86_64")
}

/// Path, kind, mode and content.
type Unpacked = (String, EntryKind, u32, Vec<u8>);

fn unpacked(bytes: &[u8]) -> Result<Vec<Unpacked>> {
    let mut all = vec![];
    opened(bytes)?.entries(&mut |entry| {
        let mut content = vec![];
        entry.content.read_to_end(&mut content)?;
        all.push((entry.path.to_owned(), entry.kind, entry.mode, content));
        Ok(())
    })?;
    Ok(all)
}

fn usual() -> Vec<Raw> {
    vec![
        Raw::file("./usr/bin/su", b"su").mode(0o4755),
        Raw::hardlink("./usr/bin/sg", "./usr/bin/su"),
        Raw::symlink("./usr/bin/link", "../../../outside"),
        Raw::file("./etc/tool.conf", &[7; 100_000]),
    ]
}

/// Refused with the package's name and `says`.
fn refused(bytes: &[u8], says: &str) {
    let e = unpacked(bytes).expect_err(says);
    assert!(matches!(e.code(), Code::BadInput | Code::DigestMismatch), "{e:?}");
    let text = e.with_causes();
    assert!(text.contains(PKGVER) && text.contains(says), "`{says}` is not in: {text}");
}

fn refused_payload(payload: &[Raw], says: &str) {
    refused(&package(props(PKGVER, "x86_64"), payload), says);
}

#[test]
fn a_package_is_read_in_its_order() {
    let mut all = vec![Raw::file("./INSTALL", b"#!/bin/sh").mode(0o755), Raw::file("./REMOVE", b"r")];
    all.extend(entries(props(PKGVER, "noarch"), &usual()));
    for bytes in [zstd(&tar(&all)), tar(&all)] {
        let package = opened(&bytes).unwrap();
        assert_eq!(package.install.as_deref(), Some(&b"#!/bin/sh"[..]));
        assert_eq!(package.remove.as_deref(), Some(&b"r"[..]));
        assert_eq!(package.props.architecture, "noarch");
        let got = unpacked(&bytes).unwrap();
        let file = EntryKind::File;
        assert_eq!(got[0], ("usr/bin/su".into(), file.clone(), 0o4755, b"su".to_vec()));
        assert_eq!(got[1], ("usr/bin/sg".into(), EntryKind::Hardlink("usr/bin/su".into()), 0o644, vec![]));
        assert_eq!(got[2], ("usr/bin/link".into(), EntryKind::Symlink("../../../outside".into()), 0o777, vec![]));
        assert_eq!(got[3], ("etc/tool.conf".into(), file, 0o644, vec![7; 100_000]));
        assert_eq!(got.len(), 4);
    }
    assert_eq!(unpacked(&package(props(PKGVER, "x86_64"), &[])).unwrap(), []);
}

#[test]
fn many_files_are_read() {
    let many: Vec<Raw> = (0..3000).map(|i| Raw::file(&format!("./usr/share/{i}"), b"x")).collect();
    assert_eq!(unpacked(&package(props(PKGVER, "x86_64"), &many)).unwrap().len(), 3000);
}

#[test]
fn content_that_nobody_reads_is_checked_all_the_same() {
    let mut all = entries(props(PKGVER, "x86_64"), &usual());
    opened(&tar(&all)).unwrap().entries(&mut |_| Ok(())).unwrap();
    all.last_mut().unwrap().content[50_000] = 8;
    let e = opened(&tar(&all)).unwrap().entries(&mut |_| Ok(())).unwrap_err();
    assert_eq!(e.code(), Code::DigestMismatch);
    let stopped = opened(&tar(&all)).unwrap().entries(&mut |_| Err(bad("enough"))).unwrap_err();
    assert!(stopped.with_causes().contains("enough"));
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let long = format!("./{}", "d/".repeat(2100) + "f");
    let component = format!("./{}", "c".repeat(256));
    for (name, says) in [
        ("usr/bin/x", "does not begin with"),
        ("/etc/passwd", "does not begin with"),
        ("../x", "does not begin with"),
        ("./../x", "leads elsewhere"),
        ("./usr/../../x", "leads elsewhere"),
        ("./usr/./x", "leads elsewhere"),
        (".//etc/passwd", "empty component"),
        ("./usr//x", "empty component"),
        ("./usr/", "empty component"),
        ("./", "empty component"),
        (&long, "too long"),
        (&component, "too long"),
    ] {
        let file = Raw::file(name, b"x");
        refused_payload(&[file], says);
    }
    let directory = Raw { kind: EntryType::Directory, ..Raw::file("./../x/", b"") };
    let mut all = entries(props(PKGVER, "x86_64"), &[]);
    all.push(directory);
    refused(&tar(&all), "leads elsewhere");
    all.pop();
    all.push(Raw { kind: EntryType::Directory, ..Raw::file("./usr/", b"x") });
    refused(&tar(&all), "directory with content");
    all.pop();
    all.push(Raw { kind: EntryType::Directory, ..Raw::file("./usr/", b"") });
    assert_eq!(unpacked(&tar(&all)).unwrap(), [], "directories are passed by");
}

#[test]
fn entries_that_meet_are_refused() {
    let (file, link) = (Raw::file("./a", b"x"), Raw::symlink("./a", "/etc"));
    for (payload, says) in [
        (vec![link.clone(), Raw::file("./a/passwd", b"x")], "below a link or file"),
        (vec![link.clone(), Raw::file("./a/b/passwd", b"x")], "below a link or file"),
        (vec![file.clone(), Raw::file("./a/b", b"x")], "below a link or file"),
        (vec![Raw::file("./a/b", b"x"), link.clone()], "have a directory"),
        (vec![link.clone(), link.clone()], "is there twice"),
        (vec![file.clone(), link], "is there twice"),
        (vec![Raw::file("./z", b"x"), Raw::file("./INSTALL", b"x")], "is metadata"),
        (vec![Raw::file("./x", b"x"), Raw::hardlink("./b", "./a")], "no earlier file"),
        (vec![Raw::hardlink("./b", "./a"), file.clone()], "no earlier file"),
        (vec![Raw::symlink("./l", "/etc/shadow"), Raw::hardlink("./b", "./l")], "no earlier file"),
        (vec![Raw::hardlink("./b", "./b")], "no earlier file"),
        (vec![Raw::hardlink("./b", "/etc/shadow")], "leads out"),
        (vec![Raw::hardlink("./b", "./../shadow")], "leads out"),
        (vec![Raw::hardlink("./b", "")], "leads out"),
        (vec![Raw::symlink("./b", "")], "symbolic link to nothing"),
    ] {
        refused_payload(&payload, says);
    }
    let twice = [file.clone(), file];
    let mut all = entries(props(PKGVER, "x86_64"), &twice[..1]);
    all.push(twice[1].clone());
    refused(&tar(&all), "is there twice");
}

#[test]
fn only_files_and_links_are_taken() {
    use EntryType::{Block, Char, Continuous, Fifo, GNUSparse};
    for kind in [Block, Char, Fifo, Continuous, EntryType::new(b's')] {
        refused_payload(&[Raw { kind, ..Raw::file("./dev/x", b"") }], "neither a file nor a link");
    }
    let sparse = Raw { kind: GNUSparse, ..Raw::file("./x", b"") };
    assert!(unpacked(&package(props(PKGVER, "x86_64"), &[sparse])).is_err());
}

#[test]
fn metadata_comes_first_in_any_order() {
    let all = entries(props(PKGVER, "x86_64"), &usual());
    let (props, files, rest) = (all[0].clone(), all[1].clone(), &all[2..]);
    let with = |start: &[&Raw]| tar(&start.iter().copied().chain(rest).cloned().collect::<Vec<_>>());
    let (install, remove) = (Raw::file("./INSTALL", b"i"), Raw::file("./REMOVE", b"r"));
    let parts = [&install, &remove, &props, &files];
    for order in [[0, 1, 2, 3], [1, 0, 2, 3], [2, 3, 1, 0], [3, 2, 0, 1], [2, 0, 3, 1]] {
        let bytes = with(&order.map(|at| parts[at]));
        let package = opened(&bytes).unwrap();
        assert_eq!((package.install.as_deref(), package.remove.as_deref()), (Some(&b"i"[..]), Some(&b"r"[..])));
        assert_eq!(unpacked(&bytes).unwrap().len(), 4, "{order:?}");
    }
    refused(&with(&[]), "no props.plist");
    refused(&with(&[&props]), "no files.plist");
    refused(&with(&[&files]), "no props.plist");
    refused(&with(&[&props, &props, &files]), "is there twice");
    refused(&with(&[&Raw::symlink("./INSTALL", "/bin/sh"), &props, &files]), "is metadata and not a file");
    refused(&with(&[&Raw::file("./INSTALL", &vec![0; 5 << 20]), &props, &files]), "larger than");
    refused(&with(&[&Raw::file("./props.plist", b"<plist>"), &files]), "props.plist");
    refused(&tar(&[props]), "no files.plist");
    refused(b"", "no props.plist");
}

#[test]
fn names_have_any_character_but_nul() {
    let odd = [Raw::file("./a\nb\tc\r\x07", b"x"), Raw::symlink("./l", "a\nb")];
    let got = unpacked(&package(props(PKGVER, "x86_64"), &odd)).unwrap();
    assert_eq!(got[0].0, "a\nb\tc\r\x07");
    assert_eq!(got[1].1, EntryKind::Symlink("a\nb".into()));
}

#[test]
fn it_has_to_be_what_was_expected() {
    refused(&package(props("tool-1.0_2", "x86_64"), &usual()), "tool-1.0_2");
    refused(&package(props("loot-1.0_1", "x86_64"), &usual()), "loot-1.0_1");
    refused(&package(props(PKGVER, "aarch64"), &usual()), "aarch64");
    let mut small = props(PKGVER, "x86_64");
    small.insert("installed_size".into(), 10_u64.into());
    refused(&package(small, &[Raw::file("./big", &vec![0; 3 << 20])]), "larger than it says");
}

#[test]
fn files_plist_and_content_agree() {
    let mut listed = entries(props(PKGVER, "x86_64"), &usual());
    let unlisted = Raw::file("./more", b"x");
    listed.push(unlisted.clone());
    refused(&tar(&listed), "`more` is not in files.plist");
    listed.pop();
    listed.push(Raw::symlink("./more", "x"));
    refused(&tar(&listed), "`more` is not in files.plist");
    listed.truncate(listed.len() - 2);
    refused(&tar(&listed), "`etc/tool.conf` is in files.plist and not in the archive");
    listed.push(Raw::file("./etc/tool.conf", &[7; 99_999]));
    refused(&tar(&listed), "has 99999 bytes");
    let mut other = vec![Raw::file("./o", b"other")];
    other.extend(usual());
    let mut all = entries(props(PKGVER, "x86_64"), &other);
    all[4].link = "./o".into();
    refused(&tar(&all), "hard link to another content");
}

#[test]
fn damage_is_said_with_the_package() {
    let whole = package(props(PKGVER, "x86_64"), &usual());
    assert!(unpacked(&whole).is_ok());
    for cut in (0..whole.len()).step_by(whole.len() / 40 + 1) {
        refused(&whole[..cut], "");
    }
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        if let Ok(same) = unpacked(&flipped) {
            // Bits of a frame's header that say nothing of its content.
            assert_eq!(same, unpacked(&whole).unwrap(), "{at}");
        }
    }
    let plain = tar(&entries(props(PKGVER, "x86_64"), &usual()));
    for cut in (0..plain.len() - 1024).step_by(512) {
        refused(&plain[..cut], "");
    }
    for (bytes, says) in [
        ([&whole[..], b"x"].concat(), "behind the end of the compressed stream"),
        ([&whole[..], &whole[..]].concat(), "behind the end of the compressed stream"),
        (zstd(&[&plain[..], b"x"].concat()), "behind the end of the archive"),
        (zstd(&[&plain[..], &vec![0; 2 << 20]].concat()), "behind the end of the archive"),
    ] {
        refused(&bytes, says);
    }
}

#[test]
fn headers_without_end_are_cut_off() {
    // A pax record that promises gigabytes, all zeros: it would have to be in memory.
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_path("./x").unwrap();
    header.set_size(4 << 30);
    header.set_cksum();
    let mut bomb = tar(&entries(props(PKGVER, "x86_64"), &[]));
    bomb.truncate(bomb.len() - 1024);
    bomb.extend(header.as_bytes());
    bomb.extend(vec![0; 8 << 20]);
    refused(&zstd(&bomb), "more headers than an entry can have");
}

#[test]
fn a_missing_file_is_missing() {
    let path = std::path::Path::new("/nonexistent/p.xbps");
    let e = Package::open(path, &PkgVer::parse(PKGVER).unwrap(), "x86_64").unwrap_err();
    assert_eq!(e.code(), Code::MissingFile);
}
