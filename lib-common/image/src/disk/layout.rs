//! Whether a file system has the layout of those that mke2fs makes for us. A guest writes what it likes to its disk, and what
//! reads it allocates and multiplies by what the superblock says: what is out of bounds here is not read at all.

use super::superblock::{Fields, MAGIC};
use std::fs::File;

/// The most groups of blocks: those of 64 TiB.
const MAX_GROUPS: u64 = 1 << 19;
/// The fewest blocks of a group that mke2fs makes.
const MIN_GROUP: u64 = 256;
/// The fewest bytes of an inode.
const MIN_INODE: u64 = 128;

/// What a superblock that is within all bounds says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// 1, 2 or 4 KiB, in bytes.
    pub(super) block_size: u64,
    /// All of them are in the file.
    pub(super) blocks: u64,
    /// A power of two, at most a block, in bytes.
    pub(super) inode_size: u64,
    /// Whether numbers of blocks have 64 bits.
    pub(super) wide: bool,
    /// The inode of a journal that has to be replayed.
    pub(super) journal: Option<u32>,
}

impl Layout {
    /// Reads it from the file system in `file`.
    ///
    /// Errors: what is out of bounds, as the end of a sentence.
    pub(super) fn read(file: &File) -> Result<Self, String> {
        let length = file.metadata().map_err(|e| e.to_string())?.len();
        let fields = Fields::read(file).map_err(|e| format!("its superblock cannot be read: {e}"))?;
        Self::parse(&fields, length)
    }

    fn parse(fields: &Fields, length: u64) -> Result<Self, String> {
        let word = |at| u64::from(fields.word(at));
        if fields.half(0x38) != MAGIC {
            return Err("it is not an ext4 file system".into());
        }
        let log_block_size = within("the logarithm of its block size", word(0x18), 0, 2)?;
        let (block_size, blocks) = (1024 << log_block_size, fields.blocks());
        within("its number of blocks", blocks, 1, length / block_size)?;
        let first = u64::from(block_size == 1024);
        within("its first data block", word(0x14), first, first)?;
        let group = within("its blocks in a group", word(0x20), MIN_GROUP, 8 * block_size)?;
        let groups = within("its number of groups", (blocks - first).div_ceil(group), 1, MAX_GROUPS)?;
        let inode_size = within("its inode size", fields.half(0x58).into(), MIN_INODE, block_size)?;
        if !inode_size.is_power_of_two() {
            return Err(format!("its inode size is {inode_size}, which is no power of two"));
        }
        within("its inodes in a group", word(0x28), block_size / inode_size, 8 * block_size)?;
        let wide = fields.is_wide();
        let descriptor = if wide { within("its descriptor size", fields.half(0xfe).into(), 64, 64)? } else { 32 };
        // Descriptors begin with the block after the superblock's.
        within("the end of its descriptors", (first + 1) * block_size + groups * descriptor, 0, blocks * block_size)?;
        let journal = fields.has_pending_journal().then(|| fields.word(0xe0));
        Ok(Layout { block_size, blocks, inode_size, wide, journal })
    }
}

/// `value`, if it is in its bounds, which count as in them.
fn within(what: &str, value: u64, least: u64, most: u64) -> Result<u64, String> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(if least == most {
        format!("{what} is {value} and has to be {least}")
    } else {
        format!("{what} is {value} and has to be from {least} to {most}")
    })
}
