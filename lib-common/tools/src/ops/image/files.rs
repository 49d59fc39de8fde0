//! The files of an image against what its record says of them. Reads, and changes nothing.

use lib_common::digest;
use lib_common::doc::{Digest, Document, FileFacts, Kernel, ManifestEntry, Registered, Rootfs, Seed};
use lib_common::error::{Code, Context, Error, Result};
use lib_common::sys::owned;
use lib_image::build::manifest;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// More than the packages of any distribution take, in bytes.
const MOST_OF_A_MANIFEST: u64 = 64 << 20;

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Wrong {
    /// It is not there.
    Missing,
    /// It is not what it was.
    Changed,
}

impl Wrong {
    /// As in `rootfs.ext4 is missing`.
    pub fn in_words(self) -> &'static str {
        match self {
            Wrong::Missing => "is missing",
            Wrong::Changed => "is not what the record says",
        }
    }
}

/// What is wrong with a file or directory whose digest `of` computes; nothing with one that is as it should be.
pub(in crate::ops) fn wrong(
    path: &Path,
    expected: Option<&Digest>,
    of: fn(&Path) -> Result<Digest>,
) -> Result<Option<Wrong>> {
    match of(path) {
        Ok(found) if Some(&found) == expected => Ok(None),
        Ok(_) => Ok(Some(Wrong::Changed)),
        Err(_) if !path.exists() => Ok(Some(Wrong::Missing)),
        Err(e) if e.code() == Code::BadInput => Ok(Some(Wrong::Changed)),
        Err(e) => Err(e),
    }
}

/// By what a change of a file is known without reading it; `None` where it cannot be asked.
pub(in crate::ops) fn facts_of(path: &Path) -> Option<FileFacts> {
    let meta = path.symlink_metadata().ok()?;
    let mtime_ns = meta.mtime().checked_mul(1_000_000_000)?.checked_add(meta.mtime_nsec())?;
    Some(FileFacts { size_bytes: meta.len(), mtime_ns, inode: meta.ino() })
}

/// Puts into the record of an image what is known of its files now, which lie in `dir`, the image's or one in the making. A
/// document that is not registered has no such record. Seeds are made anew in place, before the record says so: they have
/// none.
pub(in crate::ops) fn record_facts(doc: &mut Document, dir: &Path) -> Result<()> {
    let Some(mut registered) = doc.section::<Registered>()? else { return Ok(()) };
    let (kernel, rootfs): (Option<Kernel>, Option<Rootfs>) = (doc.section()?, doc.section()?);
    let kernel = kernel.into_iter().flat_map(|k| [k.vmlinux, k.initrd]);
    let rootfs = rootfs.into_iter().flat_map(|r| [r.path, r.manifest]);
    let names = kernel.chain(rootfs).filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
    registered.files = names.filter_map(|name| facts_of(&dir.join(&name)).map(|facts| (name, facts))).collect();
    doc.set(&registered);
    Ok(())
}

/// All that is wrong with the files of an image, in words; nothing where they are what the record says.
pub(in crate::ops) fn all_wrong(rootfs: &Rootfs, kernel: &Kernel, seed: Option<&Seed>) -> Result<Vec<String>> {
    let file: fn(&Path) -> Result<Digest> = digest::of_file;
    let of_kernel = |key: &str| kernel.digests.get(key);
    let mut files = vec![
        (&rootfs.path, Some(&rootfs.digest), file),
        (&rootfs.manifest, Some(&rootfs.manifest_digest), file),
        (&kernel.vmlinux, of_kernel("vmlinux"), file),
        (&kernel.initrd, of_kernel("initrd"), file),
    ];
    files.extend(kernel.modules.iter().map(|tree| (tree, of_kernel("modules"), digest::of_tree as _)));
    let seeds = seed.iter().flat_map(|seed| &seed.sizes);
    files.extend(seeds.map(|one| (&one.path, Some(&one.digest), digest::of_content as _)));
    let mut found = vec![];
    for (path, expected, of) in files {
        found.extend(wrong(path, expected, of)?.map(|what| format!("{path} {}", what.in_words())));
    }
    if seed.is_some_and(|seed| seed.source_digest != rootfs.digest) {
        found.push("the seeds were made from another root file system".into());
    }
    Ok(found)
}

/// The packages of an image by its manifest, which is what the record says or an error.
///
/// # Errors
/// [`Code::MissingFile`], [`Code::DigestMismatch`], [`Code::BadDocument`].
pub(super) fn packages(rootfs: &Rootfs) -> Result<Vec<ManifestEntry>> {
    let path = &rootfs.manifest;
    let gone = || Error::new(Code::MissingFile, format!("{path} is not there")).hint("build the image again");
    let text = owned::read_text(path, MOST_OF_A_MANIFEST)?.ok_or_else(gone)?;
    let found = manifest::digest(&text);
    if found != rootfs.manifest_digest {
        return Err(Error::new(Code::DigestMismatch, format!("{path} is not what the document says"))
            .also(format!("expected {}, found {found}", rootfs.manifest_digest))
            .hint("build the image again"));
    }
    manifest::parse(&text).context(format!("{path} is not a manifest"))
}
