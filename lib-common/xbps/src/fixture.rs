//! Small packages and repositories for tests, written here.

#![allow(missing_docs, reason = "the names say it, and only tests use them")]

use lib_common::digest;
use plist::{Dictionary, Value};
use std::path::Path;

/// A package to be.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    pub pkgver: String,
    pub arch: Option<String>,
    /// Lists of `props.plist`.
    pub lists: Vec<(&'static str, Vec<String>)>,
    pub alternatives: Vec<(&'static str, &'static str)>,
    pub files: Vec<(String, String)>,
    pub links: Vec<(String, String)>,
    pub install: Option<String>,
}

impl Spec {
    pub fn new(pkgver: &str) -> Self {
        Spec { pkgver: pkgver.into(), ..Spec::default() }
    }

    pub fn list(mut self, key: &'static str, items: &[&str]) -> Self {
        self.lists.push((key, items.iter().map(|item| (*item).to_owned()).collect()));
        self
    }

    pub fn needs(self, items: &[&str]) -> Self {
        self.list("run_depends", items)
    }

    pub fn file(mut self, path: &str, content: &str) -> Self {
        self.files.push((path.into(), content.into()));
        self
    }

    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.links.push((path.into(), target.into()));
        self
    }

    pub fn alternative(mut self, group: &'static str, text: &'static str) -> Self {
        self.alternatives.push((group, text));
        self
    }

    pub fn install(mut self, script: &str) -> Self {
        self.install = Some(script.into());
        self
    }

    pub fn for_arch(mut self, arch: &str) -> Self {
        self.arch = Some(arch.into());
        self
    }

    fn arch(&self) -> &str {
        self.arch.as_deref().unwrap_or("noarch")
    }

    pub fn props(&self) -> Dictionary {
        let name = self.pkgver.rsplit_once('-').unwrap().0;
        let mut props = Dictionary::new();
        for (key, text) in [("architecture", self.arch()), ("pkgname", name), ("pkgver", &self.pkgver)] {
            props.insert(key.into(), text.into());
        }
        for (key, items) in &self.lists {
            props.insert((*key).into(), Value::Array(items.iter().map(|item| item.as_str().into()).collect()));
        }
        let mut groups = Dictionary::new();
        for (group, text) in &self.alternatives {
            groups.insert((*group).into(), Value::Array(vec![(*text).into()]));
        }
        if !groups.is_empty() {
            props.insert("alternatives".into(), Value::Dictionary(groups));
        }
        props
    }

    /// What `files.plist` says, in which each path is once.
    fn listed(&self) -> Dictionary {
        let listed = |path: &str, key: &str, value: &str| {
            let mut item = Dictionary::new();
            item.insert("file".into(), format!("/{path}").into());
            item.insert(key.into(), value.into());
            Value::Dictionary(item)
        };
        let mut all = Dictionary::new();
        let files =
            self.files.iter().map(|(path, text)| listed(path, "sha256", digest::of_bytes(text.as_bytes()).hex()));
        all.insert("files".into(), Value::Array(files.collect()));
        // Absolute, as xbps-create writes them.
        let absolute = |path: &str, target: &str| match (target.starts_with('/'), path.rsplit_once('/')) {
            (false, Some((dir, _))) => format!("/{dir}/{target}"),
            (false, None) => format!("/{target}"),
            (true, _) => target.to_owned(),
        };
        let links = self.links.iter().map(|(path, target)| listed(path, "target", &absolute(path, target)));
        all.insert("links".into(), Value::Array(links.collect()));
        all
    }

    /// The package's bytes.
    pub fn archive(&self) -> Vec<u8> {
        let blank = || {
            let mut header = tar::Header::new_ustar();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_mode(0o777);
            header
        };
        let mut tar = tar::Builder::new(vec![]);
        let mut add = |path: &str, bytes: &[u8], mode: u32| {
            let mut header = blank();
            header.set_size(bytes.len() as u64);
            header.set_mode(mode);
            header.as_ustar_mut().unwrap().name[..path.len() + 2].copy_from_slice(format!("./{path}").as_bytes());
            header.set_cksum();
            tar.append(&header, bytes).unwrap();
        };
        if let Some(script) = &self.install {
            add("INSTALL", script.as_bytes(), 0o755);
        }
        add("props.plist", &xml(self.props()), 0o644);
        add("files.plist", &xml(self.listed()), 0o644);
        self.files.iter().for_each(|(path, content)| add(path, content.as_bytes(), 0o755));
        for (path, target) in &self.links {
            let mut header = blank();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_link_name_literal(target).unwrap();
            header.set_size(0);
            header.as_ustar_mut().unwrap().name[..path.len() + 2].copy_from_slice(format!("./{path}").as_bytes());
            header.set_cksum();
            tar.append(&header, &[][..]).unwrap();
        }
        zstd::encode_all(&*tar.into_inner().unwrap(), 1).unwrap()
    }
}

/// Writes a repository for x86_64. `forged`: what the index says instead, by the packages' numbers.
pub fn repository(dir: &Path, specs: &[Spec], forged: &[(usize, &str, Value)]) {
    let mut index = Dictionary::new();
    for (n, spec) in specs.iter().enumerate() {
        let bytes = spec.archive();
        std::fs::write(dir.join(format!("{}.{}.xbps", spec.pkgver, spec.arch())), &bytes).unwrap();
        let mut entry = spec.props();
        entry.insert("filename-sha256".into(), digest::of_bytes(&bytes).hex().into());
        entry.insert("filename-size".into(), (bytes.len() as u64).into());
        for (_, key, value) in forged.iter().filter(|(number, ..)| *number == n) {
            entry.insert((*key).into(), value.clone());
        }
        index.insert(spec.pkgver.rsplit_once('-').unwrap().0.into(), Value::Dictionary(entry));
    }
    let mut tar = tar::Builder::new(vec![]);
    for (name, bytes) in [("index.plist", xml(index)), ("index-meta.plist", vec![]), ("stage.plist", vec![])] {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, &*bytes).unwrap();
    }
    let packed = zstd::encode_all(&*tar.into_inner().unwrap(), 1).unwrap();
    std::fs::write(dir.join("x86_64-repodata"), packed).unwrap();
}

fn xml(dictionary: Dictionary) -> Vec<u8> {
    let mut text = vec![];
    Value::Dictionary(dictionary).to_writer_xml(&mut text).unwrap();
    text
}
