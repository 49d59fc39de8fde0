//! One package: what it says of itself, its files, and its archive. Nothing is checked, so that a test can make what no
//! honest tool would: paths that lead out, sizes and versions that are not true.

use lib_common::digest::of_bytes;
use plist::{Dictionary, Value};
use std::collections::BTreeMap;
use std::io::Write;

/// What a file of a package is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    File(Vec<u8>),
    Symlink(String),
    /// To a path of the package, without `./`.
    Hardlink(String),
    /// `/dev/null`'s: a package must not have one.
    Device,
}

/// A file of a package; its path has no `./` in front.
#[derive(Clone, Debug)]
pub struct Entry {
    pub path: String,
    pub content: Content,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
}

/// A package to be written.
#[derive(Clone, Debug, Default)]
pub struct PackageSpec {
    pub name: String,
    /// With its revision: `1.2_1`.
    pub version: String,
    pub arch: String,
    pub description: String,
    pub entries: Vec<Entry>,
    pub run_depends: Vec<String>,
    pub provides: Vec<String>,
    pub conflicts: Vec<String>,
    pub replaces: Vec<String>,
    pub shlib_provides: Vec<String>,
    pub shlib_requires: Vec<String>,
    /// Absolute paths.
    pub conf_files: Vec<String>,
    /// Of each group `LINK:TARGET`.
    pub alternatives: BTreeMap<String, Vec<String>>,
    /// The script `INSTALL`.
    pub install: Option<String>,
    /// The script `REMOVE`.
    pub remove: Option<String>,
}

impl PackageSpec {
    /// An empty package for every architecture.
    pub fn new(name: &str, version: &str) -> Self {
        PackageSpec {
            name: name.into(),
            version: version.into(),
            arch: "noarch".into(),
            description: format!("{name}, for tests"),
            ..PackageSpec::default()
        }
    }

    /// With a file of root's.
    pub fn file(mut self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Self {
        self.entries.push(root(path, Content::File(content.as_ref().to_vec()), mode));
        self
    }

    /// With a symbolic link.
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.entries.push(root(path, Content::Symlink(target.into()), 0o777));
        self
    }

    /// With dependencies.
    pub fn needs(mut self, patterns: &[&str]) -> Self {
        self.run_depends.extend(patterns.iter().map(|&pattern| pattern.to_owned()));
        self
    }

    /// With a script `INSTALL`.
    pub fn install(mut self, script: &str) -> Self {
        self.install = Some(script.into());
        self
    }

    /// With a script `REMOVE`.
    pub fn remove(mut self, script: &str) -> Self {
        self.remove = Some(script.into());
        self
    }

    /// `name-1.2_1`.
    pub fn pkgver(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// `name-1.2_1.noarch.xbps`.
    pub fn file_name(&self) -> String {
        format!("{}.{}.xbps", self.pkgver(), self.arch)
    }

    /// Its `props.plist`.
    pub fn props(&self) -> Dictionary {
        let mut props = BTreeMap::new();
        let strings = [
            ("architecture", self.arch.clone()),
            ("pkgname", self.name.clone()),
            ("version", self.version.clone()),
            ("pkgver", self.pkgver()),
            ("short_desc", self.description.clone()),
            ("packaged-with", "tests of banger".into()),
        ];
        props.extend(strings.map(|(key, value)| (key, Value::String(value))));
        props.insert("installed_size", Value::Integer(self.installed_size().into()));
        let lists = [
            ("run_depends", &self.run_depends),
            ("provides", &self.provides),
            ("conflicts", &self.conflicts),
            ("replaces", &self.replaces),
            ("shlib-provides", &self.shlib_provides),
            ("shlib-requires", &self.shlib_requires),
            ("conf_files", &self.conf_files),
        ];
        props.extend(lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(key, list)| (key, array(list))));
        if !self.alternatives.is_empty() {
            let groups = self.alternatives.iter().map(|(group, links)| (group.clone(), array(links)));
            props.insert("alternatives", Value::Dictionary(groups.collect()));
        }
        props.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn installed_size(&self) -> u64 {
        let size = |entry: &Entry| if let Content::File(bytes) = &entry.content { bytes.len() as u64 } else { 0 };
        self.entries.iter().map(size).sum()
    }

    /// Its `files.plist`.
    fn files(&self) -> Dictionary {
        let mut lists: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for Entry { path, content, .. } in &self.entries {
            let path = format!("/{path}");
            let mut about = Dictionary::new();
            about.insert("file".into(), path.as_str().into());
            let list = match content {
                Content::File(bytes) => {
                    about.insert("sha256".into(), of_bytes(bytes).hex().into());
                    about.insert("size".into(), (bytes.len() as u64).into());
                    if self.conf_files.contains(&path) { "conf_files" } else { "files" }
                }
                Content::Symlink(target) => {
                    about.insert("target".into(), absolute(&path, target).into());
                    "links"
                }
                Content::Hardlink(target) => {
                    let of = self.entries.iter().find(|entry| entry.path == *target).map(|entry| &entry.content);
                    let bytes = if let Some(Content::File(bytes)) = of { bytes.as_slice() } else { &[] };
                    about.insert("sha256".into(), of_bytes(bytes).hex().into());
                    "files"
                }
                Content::Device => "files",
            };
            lists.entry(list).or_default().push(Value::Dictionary(about));
        }
        lists.into_iter().map(|(key, list)| (key.to_owned(), Value::Array(list))).collect()
    }

    /// Its archive, in the order that xbps-create has: `REMOVE` comes before `INSTALL`.
    pub fn archive(&self) -> Vec<u8> {
        let zstd = zstd::Encoder::new(vec![], 3).unwrap();
        let mut tar = tar::Builder::new(zstd);
        for (name, script) in [("REMOVE", &self.remove), ("INSTALL", &self.install)] {
            if let Some(script) = script {
                append(&mut tar, &root(name, Content::File(script.clone().into_bytes()), 0o755));
            }
        }
        for (name, plist) in [("props.plist", self.props()), ("files.plist", self.files())] {
            append(&mut tar, &root(name, Content::File(xml(plist)), 0o644));
        }
        for entry in &self.entries {
            append(&mut tar, entry);
        }
        tar.into_inner().unwrap().finish().unwrap()
    }
}

fn root(path: &str, content: Content, mode: u32) -> Entry {
    Entry { path: path.into(), content, mode, uid: 0, gid: 0 }
}

fn array(list: &[String]) -> Value {
    Value::Array(list.iter().map(|item| Value::String(item.clone())).collect())
}

/// A property list as text.
pub fn xml(dictionary: Dictionary) -> Vec<u8> {
    let mut text = vec![];
    Value::Dictionary(dictionary).to_writer_xml(&mut text).unwrap();
    text.push(b'\n');
    text
}

/// Where a link leads, as an absolute path.
fn absolute(link: &str, target: &str) -> String {
    if target.starts_with('/') {
        return target.into();
    }
    let mut parts: Vec<&str> = link.split('/').filter(|part| !part.is_empty()).collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Adds an entry under `./` and its path; one that is absolute or begins with `..` stays as it is.
fn append(tar: &mut tar::Builder<impl Write>, entry: &Entry) {
    let dotted = |path: &str| {
        let is_raw = path.starts_with('/') || path.starts_with("..");
        if is_raw { path.to_owned() } else { format!("./{path}") }
    };
    let mut header = tar::Header::new_ustar();
    let bytes = if let Content::File(bytes) = &entry.content { bytes.as_slice() } else { &[] };
    header.set_entry_type(match entry.content {
        Content::File(_) => tar::EntryType::Regular,
        Content::Symlink(_) => tar::EntryType::Symlink,
        Content::Hardlink(_) => tar::EntryType::Link,
        Content::Device => tar::EntryType::Char,
    });
    header.set_size(bytes.len() as u64);
    header.set_mode(entry.mode);
    header.set_uid(entry.uid);
    header.set_gid(entry.gid);
    header.set_mtime(1_700_000_000);
    match &entry.content {
        Content::Symlink(target) => header.set_link_name_literal(target).unwrap(),
        Content::Hardlink(target) => header.set_link_name_literal(dotted(target)).unwrap(),
        Content::File(_) | Content::Device => {}
    }
    let path = dotted(&entry.path);
    if path.len() <= 100 {
        // As it is: the setter would refuse what leads out.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    } else {
        header.set_path(&path).unwrap();
    }
    header.set_cksum();
    tar.append(&header, bytes).unwrap();
}
