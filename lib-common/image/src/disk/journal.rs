//! Whether a journal that has to be replayed is one file of blocks of its own, as mke2fs lays it out. What reads a journal
//! keeps a list that grows with each of its blocks: a journal that had the same block again and again, of which a guest can
//! make one with a few bytes, would fill the host's memory.

use super::layout::Layout;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The journal's inode: always this one.
const INODE: u32 = 8;
/// The largest journal that mke2fs makes unasked, in bytes.
const MAX_SIZE: u64 = 1 << 30;
/// `i_flags`: blocks are listed as extents.
const FLAG_EXTENTS: u32 = 0x80000;
/// The first two bytes of a node of extents.
const MAGIC: u16 = 0xf30a;
/// The bytes of a node's header, and of each of its entries.
const ENTRY: usize = 12;
/// The longest extent whose blocks were written, in blocks.
const MAX_EXTENT: u64 = 32768;

/// Looks at the journal, where there is one to be replayed.
///
/// Errors: what is out of bounds, as the end of a sentence.
pub(super) fn check(file: &File, layout: &Layout) -> Result<(), String> {
    match layout.journal {
        None => Ok(()),
        Some(INODE) => blocks_are_its_own(&extents(file, layout)?, layout.blocks),
        Some(other) => Err(format!("its journal is the inode {other} and has to be {INODE}")),
    }
}

/// Blocks in a row.
#[derive(Clone, Copy)]
struct Extent {
    start: u64,
    length: u64,
}

/// The journal's extents, which cover all of it without a hole.
fn extents(file: &File, layout: &Layout) -> Result<Vec<Extent>, String> {
    let inode = inode(file, layout)?;
    if word(&inode, 0x20) & FLAG_EXTENTS == 0 {
        return Err("its journal has no extents".into());
    }
    let size = u64::from(word(&inode, 0x6c)) << 32 | u64::from(word(&inode, 0x4));
    if size > MAX_SIZE {
        return Err(format!("its journal has {size} bytes and may have {MAX_SIZE}"));
    }
    let mut all = vec![];
    let root = &inode[0x28..0x64];
    match half(root, 6) {
        0 => leaf(root, &mut all)?,
        1 => {
            for entry in entries(root, 1)? {
                let at = u64::from(half(entry, 8)) << 32 | u64::from(word(entry, 4));
                leaf(&block(file, layout, at)?, &mut all)?;
            }
        }
        depth => return Err(format!("its journal's extents are {depth} levels deep")),
    }
    if all.iter().map(|extent| extent.length).sum::<u64>() < size.div_ceil(layout.block_size) {
        return Err("its journal has holes".into());
    }
    Ok(all)
}

/// The inode, without what its larger sizes have. Its table is in the first group, whose descriptor is the first one.
fn inode(file: &File, layout: &Layout) -> Result<[u8; 128], String> {
    let first = if layout.block_size == 1024 { 2 } else { 1 };
    let mut descriptor = [0; 64];
    read(file, &mut descriptor, first * layout.block_size)?;
    let high = if layout.wide { word(&descriptor, 0x28) } else { 0 };
    let table = u64::from(high) << 32 | u64::from(word(&descriptor, 0x8));
    let mut inode = [0; 128];
    let at = place(layout, table)?.checked_add(u64::from(INODE - 1) * layout.inode_size);
    read(file, &mut inode, at.ok_or("its journal's inode is nowhere")?)?;
    Ok(inode)
}

/// Adds the extents of a node without nodes below it.
fn leaf(node: &[u8], all: &mut Vec<Extent>) -> Result<(), String> {
    let mut next: u64 = all.iter().map(|extent| extent.length).sum();
    for entry in entries(node, 0)? {
        let (begin, length) = (u64::from(word(entry, 0)), u64::from(half(entry, 4)));
        let start = u64::from(half(entry, 6)) << 32 | u64::from(word(entry, 8));
        if begin != next || !(1..=MAX_EXTENT).contains(&length) {
            return Err("its journal has holes".into());
        }
        next += length;
        all.push(Extent { start, length });
    }
    Ok(())
}

/// A node's entries.
fn entries(node: &[u8], depth: u16) -> Result<impl Iterator<Item = &[u8]>, String> {
    let count = usize::from(half(node, 2));
    if half(node, 0) != MAGIC || half(node, 6) != depth || (count + 1) * ENTRY > node.len() {
        return Err("its journal's extents are damaged".into());
    }
    Ok(node[ENTRY..(count + 1) * ENTRY].chunks_exact(ENTRY))
}

/// Whether all blocks are the file system's, and no two of them are the same.
fn blocks_are_its_own(extents: &[Extent], blocks: u64) -> Result<(), String> {
    let mut sorted = extents.to_vec();
    sorted.sort_by_key(|extent| extent.start);
    let mut free = 1;
    for extent in sorted {
        if extent.start < free || extent.start + extent.length > blocks {
            return Err("its journal has blocks twice, or that are not there".into());
        }
        free = extent.start + extent.length;
    }
    Ok(())
}

fn block(file: &File, layout: &Layout, number: u64) -> Result<Vec<u8>, String> {
    // At most 4 KiB.
    let mut bytes = vec![0; usize::try_from(layout.block_size).unwrap_or(1024)];
    read(file, &mut bytes, place(layout, number)?)?;
    Ok(bytes)
}

/// Where a block is in the file.
fn place(layout: &Layout, block: u64) -> Result<u64, String> {
    let there = (1..layout.blocks).contains(&block);
    there.then(|| block * layout.block_size).ok_or_else(|| format!("there is no block {block} for its journal"))
}

fn read(file: &File, bytes: &mut [u8], at: u64) -> Result<(), String> {
    file.read_exact_at(bytes, at).map_err(|e| format!("its journal cannot be read: {e}"))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
