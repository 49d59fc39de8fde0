//! The few fields of an ext4 superblock that decide what may be done with a file system. Reads, and never writes. Format:
//! the kernel's Documentation/filesystems/ext4/super.rst.

use lib_common::error::{Code, Error, Result};
use lib_common::sys::plain;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where it begins, and its size, in bytes.
const OFFSET: u64 = 1024;
const SIZE: usize = 1024;

/// `s_magic`.
pub(super) const MAGIC: u16 = 0xef53;
/// `s_state`: cleanly unmounted, no errors found.
const STATE_VALID: u16 = 0x1;
const STATE_ERRORS: u16 = 0x2;
/// `s_feature_compat`.
const COMPAT_HAS_JOURNAL: u32 = 0x4;
/// `s_feature_incompat`: the journal has to be replayed.
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_64BIT: u32 = 0x80;

/// What a superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The size of the file system.
    pub size_bytes: u64,
    /// Whether it was unmounted cleanly and no error was found since the last check.
    pub clean: bool,
    /// Whether its journal has to be replayed first, as after a crash.
    pub needs_recovery: bool,
    /// Whether it was mounted since it was made or checked last; then `resize2fs` asks for a check.
    pub mounted_since_check: bool,
    /// When it was made, in seconds since 1970.
    pub made_at: u32,
    /// Its UUID.
    pub uuid: [u8; 16],
}

impl Superblock {
    /// Reads it from a file system in a file.
    ///
    /// Errors: [`Code::MissingFile`] for a file that is not there, [`Code::BadInput`] for one that is no ext4.
    pub fn read(path: &Path) -> Result<Self> {
        let file = plain::named(path)?;
        let no_ext4 = || {
            Error::new(Code::BadInput, format!("{} is not an ext4 file system", path.display()))
                .detail("path", path.display().to_string())
        };
        match Fields::read(&file) {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(no_ext4()),
            Err(e) => Err(Error::io("read", path, &e)),
            Ok(fields) => Self::parse(&fields).ok_or_else(no_ext4),
        }
    }

    fn parse(fields: &Fields) -> Option<Self> {
        let (log_block_size, incompat, state) = (fields.word(0x18), fields.word(0x60), fields.half(0x3a));
        if fields.half(0x38) != MAGIC || log_block_size > 6 {
            return None;
        }
        let (mounted, checked) = (fields.word(0x2c), fields.word(0x40));
        Some(Superblock {
            size_bytes: fields.blocks().checked_mul(1024 << log_block_size)?,
            clean: state & (STATE_VALID | STATE_ERRORS) == STATE_VALID,
            needs_recovery: incompat & INCOMPAT_RECOVER != 0,
            mounted_since_check: mounted > checked,
            made_at: fields.word(0x108),
            uuid: fields.0[0x68..0x78].try_into().ok()?,
        })
    }
}

/// Its bytes. All that is in them was written by whoever had the disk last.
pub(super) struct Fields([u8; SIZE]);

impl Fields {
    /// Those of the file system in `file`.
    pub(super) fn read(file: &File) -> io::Result<Self> {
        let mut bytes = [0; SIZE];
        file.read_exact_at(&mut bytes, OFFSET)?;
        Ok(Fields(bytes))
    }

    /// The two bytes at an offset.
    pub(super) fn half(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    /// The four bytes at an offset.
    pub(super) fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    /// Whether its numbers of blocks have 64 bits.
    pub(super) fn is_wide(&self) -> bool {
        self.word(0x60) & INCOMPAT_64BIT != 0
    }

    /// How many blocks the file system has.
    pub(super) fn blocks(&self) -> u64 {
        let high = if self.is_wide() { self.word(0x150) } else { 0 };
        u64::from(high) << 32 | u64::from(self.word(0x4))
    }

    /// Whether there is a journal that has to be replayed.
    pub(super) fn has_pending_journal(&self) -> bool {
        self.word(0x5c) & COMPAT_HAS_JOURNAL != 0 && self.word(0x60) & INCOMPAT_RECOVER != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_not_taken_for_ext4() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert_eq!(Superblock::read(&path).unwrap_err().code(), Code::MissingFile);
        for content in [&b""[..], &[0; 4096]] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(Superblock::read(&path).unwrap_err().code(), Code::BadInput);
        }
    }
}
