//! SHA-256 of bytes, streams, files and trees, as [`Digest`]s. Owns how a tree becomes one digest; knows nothing of
//! what is digested.

use crate::doc::Digest;
use crate::error::{Code, Error, Result};
use fs_err as fs;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read, Write};
use std::path::Path;

/// How much is read at a time, in bytes: SHA-256 is faster than a read of a page, and slower than this.
const CHUNK: usize = 256 << 10;

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

/// The digest of a whole file, its holes as zeros.
pub fn of_file(path: &Path) -> Result<Digest> {
    let mut file = fs::File::open(path)?;
    Ok(of_reader(&mut file)?.0)
}

/// The digest of a directory: that of the lines `sha256:… path`, a line for each regular file below it, `path`
/// relative to it, the lines sorted by their bytes, each with a line feed. In a shell:
///
/// `find . -type f -printf '%P\0' | xargs -0 sha256sum | sed -E 's/^([0-9a-f]+)  /sha256:\1 /' | LC_ALL=C sort | sha256sum`
///
/// Modes and times do not count; symbolic links and other special files are an error, since no line can say them.
pub fn of_tree(root: &Path) -> Result<Digest> {
    let mut lines = vec![];
    for entry in walkdir::WalkDir::new(root).min_depth(1) {
        let entry = entry.map_err(io::Error::from)?;
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
}
