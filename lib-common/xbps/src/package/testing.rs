//! Packages for tests, hostile ones too: names are written as they are.

use lib_common::digest;
use plist::{Dictionary, Value};
use tar::EntryType;

/// An entry of an archive, as it is to be written.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    pub name: String,
    pub kind: EntryType,
    pub content: Vec<u8>,
    pub link: String,
    pub mode: u32,
}

impl Raw {
    /// A regular file.
    pub fn file(name: &str, content: &[u8]) -> Raw {
        Raw { name: name.into(), kind: EntryType::Regular, content: content.into(), link: String::new(), mode: 0o644 }
    }

    /// A symbolic link.
    pub fn symlink(name: &str, target: &str) -> Raw {
        Raw { kind: EntryType::Symlink, link: target.into(), mode: 0o777, ..Raw::file(name, b"") }
    }

    /// A hard link, with the content of the file that it is one to.
    pub fn hardlink(name: &str, target: &str) -> Raw {
        Raw { kind: EntryType::Link, link: target.into(), ..Raw::file(name, b"") }
    }

    /// The same with another mode.
    pub fn mode(self, mode: u32) -> Raw {
        Raw { mode, ..self }
    }
}

/// `props.plist` with what has to be there.
pub(crate) fn props(pkgver: &str, arch: &str) -> Dictionary {
    let (name, version) = pkgver.rsplit_once('-').unwrap();
    let mut props = Dictionary::new();
    for (key, value) in
        [("architecture", arch), ("pkgname", name), ("version", version), ("pkgver", pkgver), ("short_desc", "A test")]
    {
        props.insert(key.into(), value.into());
    }
    props
}

/// `files.plist` of these entries, links' targets as they are.
pub(crate) fn files(entries: &[Raw]) -> Dictionary {
    let (mut files, mut links) = (vec![], vec![]);
    for entry in entries {
        let mut item = Dictionary::new();
        item.insert("file".into(), format!("/{}", entry.name.trim_start_matches("./").trim_start_matches('/')).into());
        if entry.kind == EntryType::Symlink {
            item.insert("target".into(), entry.link.as_str().into());
            links.push(Value::from(item));
            continue;
        }
        let of = entries.iter().find(|e| entry.kind == EntryType::Link && e.name == entry.link).unwrap_or(entry);
        item.insert("sha256".into(), digest::of_bytes(&of.content).hex().into());
        item.insert("size".into(), (of.content.len() as u64).into());
        files.push(Value::from(item));
    }
    let mut all = Dictionary::new();
    all.insert("files".into(), Value::Array(files));
    all.insert("links".into(), Value::Array(links));
    all
}

/// A property list as XML.
pub(crate) fn xml(dictionary: Dictionary) -> Vec<u8> {
    let mut bytes = vec![];
    Value::from(dictionary).to_writer_xml(&mut bytes).unwrap();
    bytes
}

/// A tar of these entries, names as they are.
pub(crate) fn tar(entries: &[Raw]) -> Vec<u8> {
    let mut out = tar::Builder::new(vec![]);
    for entry in entries {
        if entry.name.len() > 100 {
            out.append_pax_extensions([("path", entry.name.as_bytes())]).unwrap();
        }
        let mut header = tar::Header::new_ustar();
        let name = &entry.name.as_bytes()[..entry.name.len().min(100)];
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.as_mut_bytes()[157..157 + entry.link.len()].copy_from_slice(entry.link.as_bytes());
        header.set_entry_type(entry.kind);
        header.set_size(entry.content.len() as u64);
        header.set_mode(entry.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        out.append(&header, &entry.content[..]).unwrap();
    }
    out.into_inner().unwrap()
}

/// A zstd frame with a checksum.
pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(vec![], 1).unwrap();
    encoder.include_checksum(true).unwrap();
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// All entries of a package without scripts.
pub(crate) fn entries(props: Dictionary, payload: &[Raw]) -> Vec<Raw> {
    let mut all = vec![Raw::file("./props.plist", &xml(props)), Raw::file("./files.plist", &xml(files(payload)))];
    all.extend_from_slice(payload);
    all
}

/// A package.
pub(crate) fn package(props: Dictionary, payload: &[Raw]) -> Vec<u8> {
    zstd(&tar(&entries(props, payload)))
}
