//! What is in a raw cpio archive, and where, by its headers alone: nothing of the files' content is read. Knows nothing
//! of what an initrd has to have.
//!
//! Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst ("newc").

use super::elf::ReadAt;
use super::unpack;
use lib_common::error::{Code, Error, Result};

/// An entry's header, in bytes: the magic and 13 numbers of 8 hexadecimal digits.
const HEADER: u64 = 110;
/// `PATH_MAX`: the longest name.
const MAX_NAME: u64 = 4096;
/// The name of the last entry.
const TRAILER: &str = "TRAILER!!!";

/// A file, directory or device of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root, as it stands there.
    pub name: String,
    /// Where its content begins, in bytes.
    pub offset: u64,
    /// Its content's length in bytes.
    pub size: u64,
}

impl Entry {
    /// Its content. `source`: the archive.
    pub fn read<R: ReadAt + ?Sized>(&self, source: &R) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.size).unwrap_or(usize::MAX)];
        source.read_at(&mut bytes, self.offset)?;
        Ok(bytes)
    }
}

/// The entries of the first archive in `source`.
///
/// Errors: [`Code::BadInput`] that says what it is instead (an lz4 stream), or after which entry it was cut off.
pub fn entries<R: ReadAt + ?Sized>(source: &R) -> Result<Vec<Entry>> {
    let (length, mut at, mut found) = (source.length()?, 0_u64, vec![]);
    loop {
        let Some(header) = piece(source, at, HEADER, length)? else {
            return Err(cut(&found, source, length));
        };
        if !header.starts_with(b"070701") {
            return Err(other(&found, &header));
        }
        let (Some(size), Some(name_size)) = (number(&header, 54), number(&header, 94)) else {
            return Err(other(&found, &header));
        };
        if name_size > MAX_NAME {
            return Err(other(&found, &header));
        }
        let Some(mut name) = piece(source, at + HEADER, name_size, length)? else {
            return Err(cut(&found, source, length));
        };
        // Its length counts the NUL at its end.
        name.pop();
        let offset = (at + HEADER + name_size).next_multiple_of(4);
        if name == TRAILER.as_bytes() {
            return Ok(found);
        }
        if offset + size > length {
            return Err(cut(&found, source, length));
        }
        found.push(Entry { name: String::from_utf8_lossy(&name).into_owned(), offset, size });
        at = (offset + size).next_multiple_of(4);
    }
}

/// `None` where the source ends before.
fn piece<R: ReadAt + ?Sized>(source: &R, at: u64, size: u64, length: u64) -> Result<Option<Vec<u8>>> {
    if at + size > length {
        return Ok(None);
    }
    let mut bytes = vec![0; size as usize];
    source.read_at(&mut bytes, at)?;
    Ok(Some(bytes))
}

/// The number of 8 hexadecimal digits at `at`.
fn number(header: &[u8], at: usize) -> Option<u64> {
    let digits = std::str::from_utf8(header.get(at..at + 8)?).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

fn cut<R: ReadAt + ?Sized>(found: &[Entry], source: &R, length: u64) -> Error {
    let mut start = vec![0; length.min(8) as usize];
    let is_short = source.read_at(&mut start, 0).is_ok() && !start.starts_with(b"070701");
    match found.last() {
        None if is_short => other(found, &start),
        None => bad("it is cut off in its first entry".into()),
        Some(last) => bad(format!("it is cut off after {}", last.name)),
    }
}

fn other(found: &[Entry], header: &[u8]) -> Error {
    match found.last() {
        None => bad(format!("it is not a raw cpio archive but {}", unpack::describe(header))),
        Some(last) => bad(format!("it is damaged after {}", last.name)),
    }
}

fn bad(message: String) -> Error {
    Error::new(Code::BadInput, message)
}

#[cfg(test)]
mod tests {
    use super::super::initrd::{Module, write_base};
    use super::*;
    use proptest::prelude::*;

    fn archive() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let agent = dir.path().join("agent");
        std::fs::write(&agent, b"agent!!").unwrap();
        let mut out = vec![];
        write_base(&mut out, &agent, &[Module { file: "a.ko".into(), bytes: b"one".to_vec() }]).unwrap();
        out
    }

    #[test]
    fn what_was_written_is_found() {
        let bytes = archive();
        let found = entries(&bytes[..]).unwrap();
        let content = |name: &str| found.iter().find(|e| e.name == name).unwrap().read(&bytes[..]).unwrap();
        assert_eq!(content("init"), b"agent!!");
        assert_eq!(content("banger/modules/a.ko"), b"one");
        assert_eq!(content("banger/modules/list"), b"a.ko\n");
        assert_eq!(found.iter().map(|e| e.name.as_str()).next(), Some("banger"));
    }

    #[test]
    fn other_files_and_damaged_ones_are_named() {
        let bytes = archive();
        for (bytes, says) in [
            (vec![], "an empty file"),
            (b"\x02\x21\x4c\x18".repeat(50), "an LZ4 legacy stream"),
            (b"\x04\x22\x4d\x18".repeat(50), "an LZ4 stream"),
            (b"\x1f\x8b".to_vec(), "a gzip stream"),
            (b"070701".to_vec(), "cut off in its first entry"),
            (bytes[..200].to_vec(), "cut off after banger"),
            (bytes[..bytes.len() - 200].to_vec(), "cut off after"),
            (bytes.iter().copied().take(120).chain(*b"xxxxxx").chain([0; 200]).collect(), "after banger"),
        ] {
            let e = entries(&bytes[..]).unwrap_err();
            assert_eq!(e.code(), Code::BadInput);
            assert!(e.message().contains(says), "{says}: {e}");
        }
    }

    proptest! {
        #[test]
        fn damage_never_panics(flips in proptest::collection::vec((0usize..2000, any::<u8>()), 1..8), keep in 0usize..2000) {
            let mut bytes = archive();
            for (at, value) in &flips {
                let at = at % bytes.len();
                bytes[at] = *value;
            }
            bytes.truncate(keep);
            let _ = entries(&bytes[..]);
        }
    }
}
