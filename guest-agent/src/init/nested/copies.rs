//! Which nested entry is only another copy of the one above it, so that nothing is lost with it. Reads, and never writes.

use super::changes::Place;
use super::dirs::is;
use lib_common::sys::xattr;
use nix::Result;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag};
use std::fs::File;
use std::io::Read;

/// Larger files are not compared: the boot waits for this. In bytes.
const MAX_BYTES: i64 = 1 << 20;

/// Whether the two are one and the same, or alike in content, mode and owner. What cannot be read is no copy.
pub fn is_copy(nested: (Place<'_>, &FileStat), above: (Place<'_>, &FileStat)) -> bool {
    let ((nested, mine), (above, theirs)) = (nested, above);
    if is(mine, SFlag::S_IFDIR) {
        return false;
    }
    if (mine.st_dev, mine.st_ino) == (theirs.st_dev, theirs.st_ino) {
        return true;
    }
    let like = |s: &FileStat| (s.st_mode, s.st_uid, s.st_gid, s.st_size);
    if like(mine) != like(theirs) {
        return false;
    }
    if is(mine, SFlag::S_IFLNK) {
        return same_target(nested, above).unwrap_or(false);
    }
    is(mine, SFlag::S_IFREG) && mine.st_size <= MAX_BYTES && same_content(nested, above).unwrap_or(false)
}

fn same_target(one: Place<'_>, other: Place<'_>) -> Result<bool> {
    Ok(readlinkat(one.0, one.1)? == readlinkat(other.0, other.1)?)
}

/// Attributes are not compared: a file that has any is kept.
fn same_content(nested: Place<'_>, above: Place<'_>) -> std::io::Result<bool> {
    let nested = open(nested)?;
    if xattr::has_any(&nested)? {
        return Ok(false);
    }
    Ok(content(&nested)? == content(&open(above)?)?)
}

fn open((dir, name): Place<'_>) -> Result<File> {
    openat(dir, name, OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty()).map(File::from)
}

fn content(mut file: &File) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![];
    file.by_ref().take(MAX_BYTES.unsigned_abs() + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
