//! Files of images that are not what was registered. A record is saved after the files that it names, and nothing of banger
//! writes to them later; so a file that was written after its record is somebody else's doing.

use super::files::{children, image_files, is_dir, is_seed, owned};
use super::{Found, Remedy};
use crate::digest;
use crate::doc::{Digest, Document, Kernel, Kind, Rootfs, Seed};
use crate::error::{Error, Result};
use crate::store::{Store, read_record};
use crate::sys::signal;
use std::path::Path;
use std::time::SystemTime;

/// What an image's file has to be.
struct Expected<'a> {
    path: &'a Path,
    size: Option<u64>,
    digest: Option<&'a Digest>,
    digested: fn(&Path) -> Result<Digest>,
}

/// Changed files of images: by their sizes and times; with `deep` by their content, too.
pub fn changed(store: &Store, deep: bool) -> Result<Vec<Found>> {
    let mut found = vec![];
    for image in children(&store.images_dir())?.into_iter().filter(|p| is_dir(p)) {
        let record = image.join("image.json");
        let Ok(Some(doc)) = read_record(&record, Kind::Image) else { continue };
        let Ok(since) = std::fs::metadata(&record).and_then(|meta| meta.modified()) else { continue };
        let mut report = |evidence: String| {
            let mut f = owned("image", &image, evidence);
            f.fix = "register it again, with --replace".into();
            found.push(Found { finding: f, remedy: Remedy::Report });
        };
        // A seed is replaced by an equal one while the record stays.
        for path in image_files(&doc).iter().filter(|path| path.is_file() && !is_seed(path)) {
            if let Some(how) = by_looks(path, since) {
                report(format!("{} {how}", path.display()));
            }
        }
        for file in sections(&doc)?.iter().flat_map(Sections::files) {
            signal::check()?;
            if let Some(how) = by_content(&file, deep)? {
                report(format!("{} {how}", file.path.display()));
            }
        }
    }
    Ok(found)
}

fn by_looks(path: &Path, since: SystemTime) -> Option<&'static str> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    match meta.modified() {
        _ if !meta.is_file() => Some("is not a regular file"),
        Ok(at) if at > since => Some("was written to after the image was registered"),
        _ => None,
    }
}

/// A file that is not there is another finding.
fn by_content(file: &Expected<'_>, deep: bool) -> Result<Option<&'static str>> {
    let Ok(meta) = std::fs::metadata(file.path) else { return Ok(None) };
    if file.size.is_some_and(|size| size != meta.len()) {
        return Ok(Some("has another size than was registered"));
    }
    let Some(expected) = file.digest.filter(|_| deep) else { return Ok(None) };
    let same = match (file.digested)(file.path) {
        Ok(found) => found == *expected,
        Err(_) if !file.path.exists() => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok((!same).then_some("has another content than was registered"))
}

/// What of a record names files with sizes or digests.
struct Sections {
    kernel: Option<Kernel>,
    rootfs: Option<Rootfs>,
    seed: Option<Seed>,
}

fn sections(doc: &Document) -> Result<Option<Sections>> {
    let read = || Ok::<_, Error>(Sections { kernel: doc.section()?, rootfs: doc.section()?, seed: doc.section()? });
    // A section that cannot be read is damage, and not a change of files.
    Ok(read().ok())
}

impl Sections {
    fn files(&self) -> Vec<Expected<'_>> {
        let mut all = vec![];
        if let Some(kernel) = &self.kernel {
            for (name, path) in [("vmlinux", &kernel.vmlinux), ("initrd", &kernel.initrd)] {
                let digest = kernel.digests.get(name);
                all.push(Expected { path, size: None, digest, digested: digest::of_file });
            }
            if let Some(path) = &kernel.modules {
                let digest = kernel.digests.get("modules");
                all.push(Expected { path, size: None, digest, digested: digest::of_tree });
            }
        }
        if let Some(rootfs) = &self.rootfs {
            let (size, digest) = (Some(rootfs.size_bytes), Some(&rootfs.digest));
            all.push(Expected { path: &rootfs.path, size, digest, digested: digest::of_file });
            let digest = Some(&rootfs.manifest_digest);
            all.push(Expected { path: &rootfs.manifest, size: None, digest, digested: digest::of_file });
        }
        for one in self.seed.iter().flat_map(|seed| &seed.sizes) {
            let (size, digest) = (Some(one.size_bytes), Some(&one.digest));
            all.push(Expected { path: &one.path, size, digest, digested: digest::of_content });
        }
        all
    }
}
