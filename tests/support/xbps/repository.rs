//! A repository: packages, their signatures and the index of an architecture in one directory.

use super::key::SigningKey;
use super::package::{PackageSpec, xml};
use lib_common::digest::of_bytes;
use plist::{Dictionary, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Who signs, as an index says it.
const SIGNED_BY: &str = "tests of banger <tests@example.com>";

/// A repository that is being made.
#[derive(Debug)]
pub struct Repository {
    dir: PathBuf,
    key: Option<SigningKey>,
    index: BTreeMap<String, Value>,
}

impl Repository {
    /// In a directory that is there.
    pub fn new(dir: &Path) -> Self {
        Repository { dir: dir.into(), key: None, index: BTreeMap::new() }
    }

    /// Packages that are added from here on are signed with `key`, and the index has its public half.
    pub fn sign(mut self, key: &SigningKey) -> Self {
        self.key = Some(key.clone());
        self
    }

    /// Writes a package, and its signature.
    pub fn add(self, spec: &PackageSpec) -> Self {
        let archive = spec.archive();
        self.add_as(spec, &archive)
    }

    /// The same with the given bytes as its archive; the index says of them what `spec` says.
    pub fn add_as(mut self, spec: &PackageSpec, archive: &[u8]) -> Self {
        let file = self.dir.join(spec.file_name());
        std::fs::write(&file, archive).unwrap();
        if let Some(key) = &self.key {
            std::fs::write(self.dir.join(format!("{}.sig2", spec.file_name())), key.sign(&file)).unwrap();
        }
        let mut entry = spec.props();
        for key in ["pkgname", "version", "packaged-with"] {
            entry.remove(key);
        }
        entry.insert("filename-sha256".into(), of_bytes(archive).hex().into());
        entry.insert("filename-size".into(), (archive.len() as u64).into());
        self.index.insert(spec.name.clone(), Value::Dictionary(entry));
        self
    }

    /// Changes what the index says of a package.
    pub fn say(mut self, package: &str, key: &str, value: Value) -> Self {
        let entry = self.index.get_mut(package).and_then(Value::as_dictionary_mut).expect(package);
        entry.insert(key.into(), value);
        self
    }

    /// Writes the index of an architecture, and gives the directory.
    pub fn write(self, arch: &str) -> PathBuf {
        let meta = self.key.as_ref().map(|key| {
            let mut meta = Dictionary::new();
            meta.insert("public-key".into(), Value::Data(key.public.clone().into_bytes()));
            meta.insert("public-key-size".into(), 2048_u64.into());
            meta.insert("signature-by".into(), SIGNED_BY.into());
            meta.insert("signature-type".into(), "rsa".into());
            xml(meta)
        });
        let index = xml(self.index.into_iter().collect());
        let mut tar = tar::Builder::new(zstd::Encoder::new(vec![], 3).unwrap());
        // An index that is not signed, or that stages nothing, has these files all the same, and they are empty.
        for (name, bytes) in
            [("index.plist", index), ("index-meta.plist", meta.unwrap_or_default()), ("stage.plist", vec![])]
        {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(1_700_000_000);
            tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
        }
        let repodata = tar.into_inner().unwrap().finish().unwrap();
        std::fs::write(self.dir.join(format!("{arch}-repodata")), repodata).unwrap();
        self.dir
    }
}
