//! What is in a root file system, for comparing two.

use lib_common::digest::of_bytes;
use lib_image::disk::tree::write_tar;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// What differs between any two builds, whoever makes them: the times and inode numbers in caches and logs.
const PER_BUILD: &[&str] = &["etc/ld.so.cache", "var/cache/ldconfig/aux-cache"];

/// Every file by its name: kind, mode, owner, and its content or where it leads.
pub fn files(rootfs: &Path) -> BTreeMap<String, String> {
    let mut bytes = vec![];
    write_tar(rootfs, Path::new("/"), &mut bytes).unwrap();
    let mut archive = tar::Archive::new(&*bytes);
    let mut all = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut content = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        let (mode, uid, gid) = (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap());
        let line = format!("{:?} {mode:o} {uid}:{gid} {}", header.entry_type(), of_bytes(&content));
        if !PER_BUILD.contains(&name.as_str()) {
            all.insert(name, line);
        }
    }
    all
}
