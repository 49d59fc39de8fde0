//! The disk from which a guest that is built takes its kernel's modules: far quicker than sending them, and read-only.

use crate::disk::ext4::{self, Format};
use lib_common::digest;
use lib_common::doc::Kernel;
use lib_common::error::{Code, Error, Result};
use lib_common::sys::dirs::walk;
use lib_common::sys::signal;
use std::io::{self, Write};
use std::path::Path;
use tar::{Builder, EntryType, Header};

/// What a file system needs beside the files, in bytes.
const ROOM: u64 = 32 << 20;

/// Makes it in the new file `path`: `lib/modules/VERSION` and what is below, all of it root's.
///
/// Errors: [`Code::BadValue`] for a kernel without modules, those of [`ext4::make_from_tar`], and of reading.
pub fn make_disk(kernel: &Kernel, path: &Path) -> Result<()> {
    let tree = kernel.modules.as_ref().ok_or_else(|| Error::new(Code::BadValue, "the kernel has no module tree"))?;
    let place = Path::new("lib/modules").join(&kernel.version);
    let files = files(tree)?;
    let bytes: u64 = files.iter().map(|(_, meta)| meta.len().next_multiple_of(ext4::BLOCK)).sum();
    let size = (bytes + bytes / 8 + ROOM).next_multiple_of(ext4::BLOCK);
    let id = digest::of_bytes(kernel.version.as_bytes());
    let disk = ext4::make_from_tar(path, size, Format { label: "modules", id: &id, epoch: 1, root_mode: 0o755 })?;
    let mut tar = Builder::new(disk);
    match fill(&mut tar, tree, &place, &files) {
        Ok(()) => tar.into_inner()?.finish(),
        Err(e) => Err(tar.into_inner().ok().and_then(ext4::TarWriter::failure).unwrap_or(e)),
    }
    .map_err(|e| e.within("cannot make the disk of kernel modules"))
}

type Found = (std::path::PathBuf, std::fs::Metadata);

fn files(tree: &Path) -> Result<Vec<Found>> {
    let mut found = vec![];
    let missing = |e: Error| match e.code() {
        Code::MissingFile => Error::new(Code::MissingFile, format!("the module tree {} is not there", tree.display())),
        _ => e,
    };
    for entry in walk(tree, true).map_err(missing)? {
        let meta = entry.metadata().map_err(|e| Error::from(io::Error::from(e)))?;
        // Links in such a tree lead to the kernel's sources, which are not in the guest.
        if meta.is_dir() || meta.is_file() {
            found.push((entry.into_path(), meta));
        }
    }
    Ok(found)
}

fn fill<W: Write>(tar: &mut Builder<W>, tree: &Path, place: &Path, files: &[Found]) -> Result<()> {
    for above in ["lib", "lib/modules"] {
        tar.append_data(&mut header(EntryType::Directory, 0o755, 0), above, io::empty())?;
    }
    for (path, meta) in files {
        signal::check()?;
        let below = path.strip_prefix(tree).unwrap_or(Path::new(""));
        let to = if below.as_os_str().is_empty() { place.to_owned() } else { place.join(below) };
        if meta.is_dir() {
            tar.append_data(&mut header(EntryType::Directory, 0o755, 0), to, io::empty())?;
        } else {
            let file = fs_err::File::open(path)?;
            tar.append_data(&mut header(EntryType::Regular, 0o644, meta.len()), to, file)?;
        }
    }
    Ok(())
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(size);
    header
}
