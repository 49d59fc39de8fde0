//! A release as Void makes them: a tarball of a root file system, the digests, and their signature by a key made here.

use lib_common::digest::of_bytes;
use minisign::{KeyPair, sign};
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// The most bytes of a name that a header has room for; longer ones are records before it.
const NAME: usize = 100;

/// A directory with a release in it.
#[derive(Debug)]
pub struct Release {
    /// Where everything is.
    pub dir: PathBuf,
    /// The tarball.
    pub tarball: PathBuf,
    /// The public key.
    pub key: PathBuf,
}

impl Release {
    /// Writes tarball, sums, signature and key into a new directory.
    pub fn new(dir: &Path, tar: &[u8]) -> Self {
        let name = format!("void-{}-ROOTFS-20250202.tar.zst", std::env::consts::ARCH);
        std::fs::create_dir_all(dir).unwrap();
        let release = Release { dir: dir.to_owned(), tarball: dir.join(&name), key: dir.join("key.pub") };
        let packed = zstd::encode_all(tar, 1).unwrap();
        std::fs::write(&release.tarball, &packed).unwrap();
        let sums =
            format!("SHA256 (void-live.iso) = {}\nSHA256 ({name}) = {}\n", "0".repeat(64), of_bytes(&packed).hex());
        release.sign(&sums);
        release
    }

    /// Signs other sums, with a new key.
    pub fn sign(&self, sums: &str) {
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        let signature = sign(Some(&pair.pk), &pair.sk, sums.as_bytes(), None, None).unwrap();
        std::fs::write(self.dir.join("sha256sum.txt"), sums).unwrap();
        std::fs::write(self.dir.join("sha256sum.sig"), signature.into_string()).unwrap();
        std::fs::write(&self.key, pair.pk.to_box().unwrap().into_string()).unwrap();
    }

    /// The options that name it.
    pub fn options(&self) -> Vec<&str> {
        vec!["--from-rootfs", self.tarball.to_str().unwrap(), "--key", self.key.to_str().unwrap()]
    }
}

/// One entry of a tarball.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As the archive has it: `./usr/bin/x`.
    pub path: String,
    /// What it is.
    pub kind: EntryType,
    /// A link's target, else its content.
    pub content: Vec<u8>,
    /// Permissions.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u64, u64),
    /// Its extended attribute `security.capability`.
    pub capability: Option<Vec<u8>>,
}

impl Entry {
    /// Of root, with usual permissions.
    pub fn new(kind: EntryType, path: &str, content: &[u8]) -> Self {
        let mode = if kind.is_dir() { 0o755 } else { 0o644 };
        Entry { path: path.into(), kind, content: content.to_vec(), mode, owner: (0, 0), capability: None }
    }
}

/// The tar of these entries, their names written as they are.
pub fn tar_of(entries: &[Entry]) -> Vec<u8> {
    let mut tar = Builder::new(vec![]);
    for entry in entries {
        let is_link = entry.kind.is_symlink() || entry.kind.is_hard_link();
        let (content, target) = if is_link { (&[][..], &entry.content[..]) } else { (&entry.content[..], &[][..]) };
        let mut records = vec![];
        for (key, text) in [("path", entry.path.as_bytes()), ("linkpath", target)] {
            if text.len() > NAME {
                records.push((key, text));
            }
        }
        records.extend(entry.capability.iter().map(|value| ("SCHILY.xattr.security.capability", &value[..])));
        if !records.is_empty() {
            tar.append_pax_extensions(records).unwrap();
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_uid(entry.owner.0);
        header.set_gid(entry.owner.1);
        header.set_mtime(0);
        let name = &entry.path.as_bytes()[..entry.path.len().min(NAME)];
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        if is_link {
            header.set_link_name_literal(&target[..target.len().min(NAME)]).unwrap();
        }
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content).unwrap();
    }
    tar.into_inner().unwrap()
}
