//! Directories by descriptor: never a path of more than one component, never through a symbolic link, names as bytes.

use lib_common::error::{Error, Result};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use nix::{NixPath, Result as NixResult};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::path::Path;

/// The longest name, in bytes.
const NAME_MAX: usize = 255;

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Opens the directory `name` of `dir`; ELOOP or ENOTDIR where it is none itself.
pub fn open_dir<P: ?Sized + NixPath>(dir: &File, name: &P) -> NixResult<File> {
    openat(dir, name, DIRECTORY, Mode::empty()).map(File::from)
}

/// Opens a directory by its path.
pub fn open_top(path: &Path) -> Result<File> {
    let at = nix::fcntl::open(path, DIRECTORY, Mode::empty());
    at.map(File::from).map_err(|e| Error::io("open", path, &e.into()))
}

/// What `name` is in `dir`; `None` where nothing has this name.
pub fn status<P: ?Sized + NixPath>(dir: &File, name: &P) -> NixResult<Option<FileStat>> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether the file is of this type.
pub fn is(file: &FileStat, kind: SFlag) -> bool {
    file.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

/// Calls `visit` with each name in the directory, as it is read. `visit` may move and remove what has that name.
pub fn each_name(dir: &File, mut visit: impl FnMut(&CStr)) -> NixResult<()> {
    let mut entries = Dir::openat(dir, ".", DIRECTORY, Mode::empty())?;
    for entry in entries.iter() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            visit(entry.file_name());
        }
    }
    Ok(())
}

/// `name`, then `name.1`, `name.2` and so on, cut where it would be too long for a name.
pub fn numbered(name: &CStr) -> impl Iterator<Item = CString> {
    (0..10_000).map(move |n: u32| {
        let suffix = if n == 0 { String::new() } else { format!(".{n}") };
        let kept = name.to_bytes().len().min(NAME_MAX - suffix.len());
        let bytes = [&name.to_bytes()[..kept], suffix.as_bytes()].concat();
        // A name has no NUL byte to be cut at.
        CString::new(bytes).unwrap_or_else(|_| name.to_owned())
    })
}

/// The names as one path, for people: whatever is not plain ASCII is escaped, and a long one ends in `...`.
pub fn shown<'a>(names: impl Iterator<Item = &'a CStr>) -> String {
    /// The agent cuts a line after 256 characters.
    const MAX: usize = 160;
    let joined = names.map(CStr::to_bytes).collect::<Vec<_>>().join(&b'/');
    let text = joined.escape_ascii().to_string();
    // Escaped, it is ASCII.
    if text.len() > MAX { format!("{}...", &text[..MAX]) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_fits_in_a_name() {
        let long = CString::new(vec![0xffu8; NAME_MAX]).unwrap();
        for (name, nth, expected) in [(c"a", 0, c"a".to_owned()), (c"a", 12, c"a.12".to_owned())] {
            assert_eq!(numbered(name).nth(nth), Some(expected));
        }
        let last = numbered(&long).last().unwrap();
        assert!(last.to_bytes().len() == NAME_MAX && last.to_bytes().ends_with(b"\xff.9999"));
        assert_eq!(numbered(&long).next().as_ref(), Some(&long));
    }

    #[test]
    fn a_path_is_shown_on_one_line_of_ascii() {
        assert_eq!(shown([c"a b", c"-n\n\xff\x1b\\"].into_iter()), "a b/-n\\n\\xff\\x1b\\\\");
        assert_eq!(shown(std::iter::repeat_n(c"\n", 200)).len(), 163);
    }
}
