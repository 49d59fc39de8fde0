//! Work seeds: prepared work disks, one a size, whose root directory is the image's `/root`. A VM's work disk is then a
//! clone that takes a millisecond instead of a new file system.

use super::ext4::{self, CheckOutcome, Format};
use super::superblock::Superblock;
use super::tree::{self, Bounds};
use super::untrusted::{Patience, apart};
use crate::digest;
use crate::digest::Hashing;
use crate::doc::{AbsPath, Check, Digest, Seed, SeedSize};
use crate::error::{Error, Result};
use crate::sys::fs::unnamed;
use crate::sys::signal;
use crate::sys::thread;
use crate::timing::Stages;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The sizes that are made unless others are asked for, in bytes. Between them a smaller one is grown, in 40 ms. A file
/// takes 2 and 7 MB of the host's disk, most of it the list of free blocks.
pub const DEFAULT_SIZES: &[u64] = &[2 << 30, 8 << 30];

/// Where the image keeps what goes into a work disk.
const HOME: &str = "/root";

/// The file of a size in a directory of seeds.
pub fn file_name(size: u64) -> String {
    format!("seed-{size}.ext4")
}

/// Makes a seed of each size, smallest first, from the `/root` of the file system in the file `rootfs`, which nobody may
/// have mounted for writing. The files `seed-BYTES.ext4` are new in `dir`. Equal homes give equal seeds.
///
/// Stages: `read_home`, `make_seeds`, `digest`.
///
/// Errors: [`crate::Code::BadInput`] for a `rootfs` that cannot be read, those of [`ext4::make_from_tar`]; no file of
/// this call is left then.
pub fn build(rootfs: &Path, sizes: &[u64], dir: &Path, stages: &mut Stages) -> Result<Vec<SeedSize>> {
    stages.begin("read_home");
    let home = Home::read_for(rootfs, sizes.iter().copied().min().unwrap_or(u64::MAX))?;
    stages.begin("make_seeds");
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    sizes.dedup();
    let mut made = Made(vec![]);
    for size in &sizes {
        let path = dir.join(file_name(*size));
        home.write_to(&path, *size)?;
        made.0.push(path);
    }
    stages.begin("digest");
    let digests = digests(&made.0)?;
    let seeds = sizes.iter().zip(&made.0).zip(digests);
    let seeds = seeds.map(|((size, path), digest)| {
        Ok(SeedSize { size_bytes: *size, path: AbsPath::new(std::path::absolute(path)?)?, digest })
    });
    let seeds = seeds.collect::<Result<Vec<_>>>()?;
    made.0.clear();
    Ok(seeds)
}

/// The digests of files, as many at once as there are files: a core hashes one.
fn digests(paths: &[PathBuf]) -> Result<Vec<Digest>> {
    std::thread::scope(|scope| {
        let mut running = vec![];
        for path in paths {
            running.push(thread::scoped(scope, move || digest::of_content(path))?);
        }
        let joined = running.into_iter().map(|thread| thread.join());
        joined.map(|d| d.unwrap_or_else(|_| Err(Error::new(crate::Code::Internal, "a digest panicked")))).collect()
    })
}

/// Files that are removed again unless all went well.
struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The most that an image's `/root` may have, in bytes: it is read whole, holes included, for each image.
const MAX_HOME: u64 = 1 << 30;
/// The most files and directories in it.
const MAX_ENTRIES: u64 = 1 << 19;
/// mke2fs makes an inode for so many bytes of a work disk.
const BYTES_PER_INODE: u64 = 16384;
/// How long it may be read.
const WITHIN: Duration = Duration::from_secs(300);
/// How much of it is written at a time, in bytes.
const CHUNK: usize = 256 << 10;

/// The content of the image's `/root`: read once for all sizes, into a file without a name.
pub struct Home {
    tar: File,
    length: u64,
    id: Digest,
    epoch: u64,
}

impl Home {
    /// Reads it.
    ///
    /// Errors: [`crate::Code::BadInput`], also for more than a work disk begins with; [`crate::Code::MissingFile`],
    /// [`crate::Code::TimedOut`], or the signal that came.
    pub fn read(rootfs: &Path) -> Result<Self> {
        Self::read_for(rootfs, u64::MAX)
    }

    /// Reads it for work disks of which the smallest has `size` bytes; what does not fit there is not read.
    ///
    /// Errors: as [`Home::read`].
    pub fn read_for(rootfs: &Path, size: u64) -> Result<Self> {
        let epoch = u64::from(Superblock::read(rootfs)?.made_at);
        let bounds = Bounds { bytes: size.min(MAX_HOME), entries: (size / BYTES_PER_INODE).min(MAX_ENTRIES) };
        let (patience, image) = (Patience::new(WITHIN), rootfs.to_owned());
        let spool = BufWriter::with_capacity(CHUNK, unnamed(&[])?);
        let read = move || {
            let mut hashing = Hashing::new(spool);
            Ok(tree::write_within(&image, Path::new(HOME), &mut hashing, (bounds, patience)).map(|()| hashing.finish()))
        };
        let (spool, id, length) =
            apart(patience, read).map_err(|e| e.error(format!("cannot read {HOME} of {}", rootfs.display())))??;
        let tar = spool.into_inner().map_err(|e| spooled(&e.into_error()))?;
        Ok(Home { tar, length, id, epoch })
    }

    /// Makes a work disk of it, of `size` bytes, in the new file `path`. Its root directory is 0:0's and 0700, as sshd's
    /// StrictModes wants a home to be.
    ///
    /// Errors: those of [`ext4::make_from_tar`].
    pub fn write_to(&self, path: &Path, size: u64) -> Result<()> {
        let format = Format { label: "work", id: &self.id, epoch: self.epoch, root_mode: 0o700 };
        let mut writer = ext4::make_from_tar(path, size, format)?;
        match self.copy_to(&mut writer) {
            Ok(()) => writer.finish(),
            Err(Copying::From(e)) => Err(e),
            Err(Copying::To(e)) => Err(writer.failure().unwrap_or_else(|| Error::from(e))),
        }
        .map_err(|e| e.within(format!("cannot make the work disk {}, of {}", path.display(), crate::size::bytes(size))))
    }

    fn copy_to(&self, writer: &mut impl Write) -> Result<(), Copying> {
        let mut buffer = vec![0; CHUNK];
        let mut at = 0;
        while at < self.length {
            signal::check().map_err(Copying::From)?;
            let want = usize::try_from(self.length - at).unwrap_or(CHUNK).min(CHUNK);
            self.tar.read_exact_at(&mut buffer[..want], at).map_err(|e| Copying::From(spooled(&e)))?;
            writer.write_all(&buffer[..want]).map_err(Copying::To)?;
            at += want as u64;
        }
        Ok(())
    }
}

/// Which end of a copy failed.
enum Copying {
    From(Error),
    To(io::Error),
}

fn spooled(e: &io::Error) -> Error {
    Error::io("keep a copy of the image's /root in", &std::env::temp_dir(), e)
}

/// Whether the seeds are those of this root file system, whole and unharmed.
///
/// Errors: [`crate::Code::MissingProgram`], or the signal that came. What is wrong with a seed is in its check.
pub fn check_seed(seed: &Seed, rootfs_digest: &Digest) -> Result<Vec<Check>> {
    let rebuild = "bg-seed build makes them anew";
    let current = seed.source_digest == *rootfs_digest;
    let mut checks = vec![Check::new(
        "source",
        current,
        if current { "made from this root file system".into() } else { format!("made from {}", seed.source_digest) },
        rebuild,
    )];
    let mut seen = HashMap::new();
    for one in &seed.sizes {
        let name = file_name(one.size_bytes);
        let name = name.trim_end_matches(".ext4").replace('-', "_");
        if !one.path.is_file() {
            checks.push(Check::new(&name, false, format!("{} is not there", one.path), rebuild));
            continue;
        }
        let Seen { digest, file_system } = Seen::once(&mut seen, &one.path, rebuild)?;
        let same = digest == one.digest;
        let said = if same { "as it was made".into() } else { format!("its digest is {digest}") };
        checks.push(Check::new(&format!("{name}_digest"), same, said, rebuild));
        checks.push(Check { name: format!("{name}_file_system"), ..file_system });
    }
    Ok(checks)
}

/// What a file of a seed is.
#[derive(Clone)]
struct Seen {
    digest: Digest,
    file_system: Check,
}

impl Seen {
    /// Reads a file, unless it is among those that were `seen`: a document may name one file again and again.
    fn once(seen: &mut HashMap<(u64, u64), Seen>, path: &Path, fix: &str) -> Result<Seen> {
        let meta = fs_err::metadata(path)?;
        if let Some(known) = seen.get(&(meta.dev(), meta.ino())) {
            return Ok(known.clone());
        }
        let looked = Seen { digest: digest::of_content(path)?, file_system: check_file_system("", path, fix)? };
        seen.insert((meta.dev(), meta.ino()), looked.clone());
        Ok(looked)
    }
}

/// The check of one file system; one that cannot be read has not passed.
pub(super) fn check_file_system(name: &str, path: &Path, fix: &str) -> Result<Check> {
    let (ok, message) = match ext4::check(path) {
        Ok(CheckOutcome::Clean) => (true, "clean".into()),
        Ok(CheckOutcome::JournalPending) => (true, "its journal is replayed at the next start".into()),
        Ok(CheckOutcome::Damaged(problems)) => (false, problems),
        Err(e) if matches!(e.code(), crate::Code::BadInput | crate::Code::CommandFailed) => (false, e.to_string()),
        Err(e) => return Err(e),
    };
    Ok(Check::new(name, ok, message, fix))
}

#[cfg(test)]
pub(super) mod tests;
