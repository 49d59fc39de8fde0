//! SHA-256 of bytes, streams, files, sparse disks and trees, as [`Digest`]s. Owns how each becomes one digest; knows
//! nothing of what is digested.

use crate::doc::Digest;
use crate::error::{Code, Error, Result};
use crate::sys::dirs::walk;
use crate::sys::{fs::for_each_extent, plain, signal};
use fs_err as fs;
use nix::errno::Errno;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How much is read at a time, in bytes: SHA-256 is faster than a read of a page, and slower than this.
const CHUNK: usize = 256 << 10;

/// The blocks of [`of_content`], in bytes: those of the file systems that it is for.
const BLOCK: usize = 4096;

/// The digest of some bytes.
pub fn of_bytes(bytes: &[u8]) -> Digest {
    Digest::from_sha256(&Sha256::digest(bytes))
}

/// The digest of all that `input` has, and how many bytes that was.
pub fn of_reader(input: &mut impl Read) -> io::Result<(Digest, u64)> {
    let mut hasher = Hashing::new(io::sink());
    let mut buffer = vec![0; CHUNK];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hasher.write_all(&buffer[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let (_, digest, length) = hasher.finish();
    Ok((digest, length))
}

/// The digest of a whole file, its holes as zeros, which are not read: what `sha256sum` says.
///
/// Errors: [`Code::MissingFile`], [`Code::Io`], or the signal that came.
pub fn of_file(path: &Path) -> Result<Digest> {
    let mut hasher = Sha256::new();
    let zeros = vec![0; CHUNK];
    let mut done = 0;
    let size = for_each_chunk(path, |start, bytes| {
        hash_zeros(&mut hasher, &zeros, start - done)?;
        hasher.update(bytes);
        done = start + bytes.len() as u64;
        Ok(())
    })?;
    let rest = hash_zeros(&mut hasher, &zeros, size - done);
    rest.map_err(|e| signal::check().err().unwrap_or_else(|| Error::io("read", path, &e.into())))?;
    Ok(Digest::from_sha256(&hasher.finalize()))
}

/// The digest of a sparse disk by its content alone, in time that goes with its data and not with its size: that of its
/// size in bytes (8 bytes, little-endian), then of each block of 4,096 bytes that is not all zeros, its offset (the
/// same) and its bytes, in order. Whether zeros are holes makes no difference.
///
/// Errors: as [`of_file`].
pub fn of_content(path: &Path) -> Result<Digest> {
    let size = fs::metadata(path).map_err(|e| missing(path, &e))?.len();
    let mut hasher = Sha256::new();
    hasher.update(size.to_le_bytes());
    for_each_chunk(path, |start, bytes| {
        for (block, at) in bytes.chunks(BLOCK).zip((start..).step_by(BLOCK)) {
            if block.iter().any(|b| *b != 0) {
                hasher.update(at.to_le_bytes());
                hasher.update(block);
            }
        }
        Ok(())
    })?;
    Ok(Digest::from_sha256(&hasher.finalize()))
}

/// Calls `f(offset, bytes)` for the data of a sparse file, in order, and gives its size. Extents begin at multiples of
/// the file system's block size, and chunks end at multiples of [`BLOCK`] or at the end of their extent.
fn for_each_chunk(path: &Path, mut f: impl FnMut(u64, &[u8]) -> Result<(), Errno>) -> Result<u64> {
    let file = plain::named(path)?;
    let size = file.metadata().map_err(|e| Error::io("read", path, &e))?.len();
    let mut buffer = vec![0; CHUNK];
    let walked = for_each_extent(&file, size.cast_signed(), |start, end| {
        let (mut at, end) = (start.cast_unsigned(), end.cast_unsigned());
        while at < end {
            stop_on_signal()?;
            let want = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            file.read_exact_at(&mut buffer[..want], at)
                .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(nix::libc::EIO)))?;
            f(at, &buffer[..want])?;
            at += want as u64;
        }
        Ok(())
    });
    walked.map_err(|e| signal::check().err().unwrap_or_else(|| Error::io("read", path, &e.into())))?;
    Ok(size)
}

fn missing(path: &Path, e: &io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::NotFound => Error::io("read", path, e).with_code(Code::MissingFile),
        _ => Error::io("read", path, e),
    }
}

fn hash_zeros(hasher: &mut Sha256, zeros: &[u8], mut count: u64) -> Result<(), Errno> {
    while count > 0 {
        stop_on_signal()?;
        let n = usize::try_from(count).unwrap_or(CHUNK).min(zeros.len());
        hasher.update(&zeros[..n]);
        count -= n as u64;
    }
    Ok(())
}

/// Gigabytes take seconds, and a signal must not wait for them.
fn stop_on_signal() -> Result<(), Errno> {
    signal::check().map_err(|_| Errno::EINTR)
}

/// The digest of a directory: that of the lines `sha256:… path`, a line for each regular file below it, `path`
/// relative to it, the lines sorted by their bytes, each with a line feed. In a shell:
///
/// `find . -type f -printf '%P\0' | xargs -0 sha256sum | sed -E 's/^([0-9a-f]+)  /sha256:\1 /' | LC_ALL=C sort | sha256sum`
///
/// Modes and times do not count; symbolic links and other special files are an error, since no line can say them.
pub fn of_tree(root: &Path) -> Result<Digest> {
    let mut lines = vec![];
    for entry in walk(root, true)?.into_iter().skip(1) {
        if entry.file_type().is_dir() {
            continue;
        }
        let relative = entry.path().strip_prefix(root).ok().and_then(Path::to_str);
        let Some(relative) = relative.filter(|p| entry.file_type().is_file() && !p.contains('\n')) else {
            let message = format!("{} is not a regular file with a UTF-8 name", entry.path().display());
            return Err(Error::new(Code::BadInput, message));
        };
        lines.push(format!("{} {relative}\n", of_file(entry.path())?));
    }
    lines.sort_unstable();
    Ok(of_bytes(lines.concat().as_bytes()))
}

/// A writer that passes everything on and knows its digest in the end.
pub struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    length: u64,
}

impl<W: Write> Hashing<W> {
    /// Wraps `inner`.
    pub fn new(inner: W) -> Self {
        Hashing { inner, hasher: Sha256::new(), length: 0 }
    }

    /// The inner writer, the digest of what it was given, and how many bytes that was.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest::from_sha256(&self.hasher.finalize()), self.length)
    }

    /// How many bytes were written so far.
    pub fn length(&self) -> u64 {
        self.length
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.length += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn bytes_streams_and_files_agree_with_fips_180() {
        assert_eq!(of_bytes(b"abc").as_str(), ABC);
        assert_eq!(of_reader(&mut &b"abc"[..]).unwrap(), (Digest::parse(ABC).unwrap(), 3));
        let mut hashing = Hashing::new(vec![]);
        hashing.write_all(b"a").unwrap();
        hashing.write_all(b"bc").unwrap();
        assert_eq!(hashing.finish(), (b"abc".to_vec(), Digest::parse(ABC).unwrap(), 3));
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "abc").unwrap();
        assert_eq!(of_file(&dir.path().join("f")).unwrap().as_str(), ABC);
    }

    #[test]
    fn a_tree_is_its_sorted_lines() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("b/empty")).unwrap();
        fs::write(dir.path().join("b/f"), "abc").unwrap();
        fs::write(dir.path().join("a"), "").unwrap();
        let lines = format!("{ABC} b/f\n{} a\n", of_bytes(b""));
        assert_eq!(of_tree(dir.path()).unwrap(), of_bytes(lines.as_bytes()), "`ba…` sorts before `e3…`");
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        assert_eq!(of_tree(dir.path()).unwrap_err().code(), Code::BadInput);
    }

    #[test]
    fn holes_count_as_zeros_in_a_file_and_not_at_all_in_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let (sparse, full) = (dir.path().join("sparse"), dir.path().join("full"));
        let mut contents = vec![];
        for (size, data) in [(0, &[][..]), (5 << 20, &[]), (5 << 20, &[0, 3 << 20]), ((3 << 20) + 17, &[1 << 20])] {
            let file = std::fs::File::create(&sparse).unwrap();
            file.set_len(size).unwrap();
            for at in data {
                file.write_all_at(b"data", *at).unwrap();
            }
            let whole = fs::read(&sparse).unwrap();
            fs::write(&full, &whole).unwrap();
            assert_eq!(of_file(&sparse).unwrap(), of_bytes(&whole), "{size} {data:?}");
            assert_eq!(of_content(&sparse).unwrap(), of_content(&full).unwrap(), "{size} {data:?}");
            contents.push(of_content(&sparse).unwrap());
        }
        contents.sort();
        contents.dedup();
        assert_eq!(contents.len(), 4, "another size or other data is another digest");
        assert_eq!(of_file(&dir.path().join("none")).unwrap_err().code(), Code::MissingFile);
    }
}
