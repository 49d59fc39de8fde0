//! The bundles in the cache, `<cache_dir>/kernel/KEY/`: their key and their record. Knows nothing of how one is made; that
//! a name there is a whole bundle or nothing is [`crate::build::slot`]'s.

use super::{Places, Source};
use fs_err as fs;
use lib_common::digest;
use lib_common::doc::{self, Digest, Kernel};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::dirs::{list, walk};
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Changes whenever the same input would give another bundle.
const FORMAT: u32 = 1;
/// The bundle's section, in its directory.
const RECORD: &str = "kernel.json";

/// The key of what `source` gives on this host. Two sources have the same key only if their bundles would be the same.
/// Takes milliseconds: apt's lists and module trees count by names, sizes and times, single files by digest.
///
/// Errors: [`Code::MissingFile`] for a file that is not there, and without apt's lists.
pub fn key(source: &Source, places: &Places) -> Result<Digest> {
    let mut key = format!("banger kernel {FORMAT}\nagent {}\n", digest_of(&places.agent)?);
    match source {
        Source::Package(name) => {
            let _ = writeln!(key, "package {}", name.escape_debug());
            key += &apt_lists(&places.apt_lists)?;
        }
        Source::Deb(file) => {
            let _ = writeln!(key, "deb {}", digest_of(file)?);
        }
        Source::Vmlinux { file, modules, version } => {
            let version = version.as_deref().unwrap_or_default();
            let _ = writeln!(key, "vmlinux {} {}", digest_of(file)?, version.escape_debug());
            if let Some(modules) = modules {
                key += &tree(modules)?;
            }
        }
    }
    Ok(digest::of_bytes(key.as_bytes()))
}

/// The bundle in a directory of the cache. One that was damaged since (a file is gone or empty) is none. Digests are not
/// checked again: that is for who boots from it.
pub fn load(dir: &Path) -> Option<Kernel> {
    let text = fs::read_to_string(dir.join(RECORD)).ok()?;
    let kernel: Kernel = doc::strict(&text).ok()?;
    let whole = |path: &Path| {
        let there = fs::metadata(path).is_ok_and(|m| m.is_dir() || m.len() > 0);
        path.starts_with(dir) && there
    };
    let complete = whole(&kernel.vmlinux) && whole(&kernel.initrd) && kernel.modules.as_deref().is_none_or(whole);
    complete.then_some(kernel)
}

/// Writes a bundle's section beside its files.
pub fn save(dir: &Path, kernel: &Kernel) -> Result<()> {
    Ok(fs::write(dir.join(RECORD), doc::to_json(kernel) + "\n")?)
}

/// A line for each of apt's package lists.
fn apt_lists(dir: &Path) -> Result<String> {
    let mut lines = vec![];
    for entry in list(dir)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains("_Packages") {
            lines.push(line(&name, &entry.metadata()?));
        }
    }
    if lines.is_empty() {
        return Err(Error::new(Code::MissingFile, format!("apt has no package lists in {}", dir.display()))
            .hint("apt-get update")
            .detail("path", dir.display().to_string()));
    }
    lines.sort_unstable();
    Ok(lines.concat())
}

/// A line for each file of a module tree.
fn tree(dir: &Path) -> Result<String> {
    let mut lines = vec![format!("modules {}\n", dir.display())];
    for entry in walk(dir, true).map_err(|e| if e.code() == Code::MissingFile { super::missing(dir) } else { e })? {
        if !entry.file_type().is_dir() {
            let metadata = entry.metadata().map_err(std::io::Error::from)?;
            lines.push(line(&entry.path().to_string_lossy(), &metadata));
        }
    }
    Ok(lines.concat())
}

fn line(name: &str, metadata: &std::fs::Metadata) -> String {
    let time = (metadata.mtime(), metadata.mtime_nsec());
    format!("{} {} {}.{:09}\n", name.escape_debug(), metadata.len(), time.0, time.1)
}

fn digest_of(file: &Path) -> Result<Digest> {
    if !file.exists() {
        return Err(super::missing(file));
    }
    digest::of_file(file)
}
