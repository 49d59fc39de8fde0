//! Log files that cannot fill a disk: the serial console's and the shim's. Owns the rotation; knows no VMM.
//!
//! A log is two files of at most half the cap each: `console.log`, and before it `console.log.1`. When the first is
//! full it is copied to the second and emptied in place, so both `tail -f` (which says "file truncated") and `tail -F`
//! go on with the new lines, and whoever else appends to it (the shim's stderr) still does.

use lib_common::error::{Error, Result};
use lib_common::sys::fs::clone_file;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The least cap, in bytes: below it a boot's last words would not fit.
const LEAST: u64 = 8 << 10;

/// A log that is appended to.
#[derive(Debug)]
pub(super) struct Capped {
    path: PathBuf,
    file: File,
    half: u64,
}

impl Capped {
    /// Opens it (mode 0600), keeping what is there. `cap`: bytes that both files together may have, at least 8 KiB.
    pub(super) fn open(path: &Path, cap: u64) -> Result<Self> {
        let file = append_to(path)?;
        Ok(Capped { path: path.to_owned(), file, half: cap.max(LEAST) / 2 })
    }

    /// Appends. What cannot be written (a full disk) is lost: a VM does not end for want of a log.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        let keep = usize::try_from(self.half).unwrap_or(usize::MAX);
        let bytes = &bytes[bytes.len().saturating_sub(keep)..];
        // Asked each time, since others may append or truncate.
        let size = self.file.metadata().map_or(0, |m| m.len());
        if size > 0 && size + bytes.len() as u64 > self.half {
            self.rotate();
        }
        let _ = self.file.write_all(bytes);
    }

    fn rotate(&mut self) {
        let previous = previous(&self.path);
        let _ = std::fs::remove_file(&previous);
        // Without a copy the older half is lost; the cap is a promise all the same.
        let _ = clone_file(&self.path, &previous);
        let _ = self.file.set_len(0);
    }
}

/// Opens a file to append to it, mode 0600, never through a symlink; a FIFO that nobody reads is an error, and no wait.
pub(super) fn append_to(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK;
    options.append(true).create(true).mode(0o600).custom_flags(flags);
    options.open(path).map_err(|e| Error::io("open", path, &e))
}

/// Where the older half of the log at `path` is, if there is one: `console.log.1`.
pub fn previous(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_output_stays_under_the_cap_and_its_end_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        std::fs::write(&path, "an earlier run\n").unwrap();
        let mut log = Capped::open(&path, 64 << 10).unwrap();
        let lines = |range: std::ops::Range<u32>| range.map(|n| format!("line {n}\n")).collect::<String>();
        for n in 0..200 {
            log.write(lines(n * 100..n * 100 + 100).as_bytes());
            let sizes = [&path, &previous(&path)].map(|p| std::fs::metadata(p).map_or(0, |m| m.len()));
            assert!(sizes.iter().sum::<u64>() <= 64 << 10, "{sizes:?}");
        }
        let kept = [previous(&path), path].map(|p| std::fs::read_to_string(p).unwrap()).concat();
        assert!(kept.len() > 32 << 10, "at least half of the cap is there: {}", kept.len());
        assert!(lines(0..20_000).ends_with(&kept), "it is the end, whole and in order");
    }

    #[test]
    fn the_file_that_is_followed_stays_the_same_one() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Capped::open(&path, 0).unwrap();
        let inode = |p: &Path| std::fs::metadata(p).unwrap().ino();
        let before = inode(&path);
        log.write(&[b'x'; 4000]);
        log.write(&[b'y'; 100_000]);
        assert_eq!(inode(&path), before);
        assert_eq!(std::fs::read(&path).unwrap(), [b'y'; 4096], "of one huge write the end is kept");
        assert_eq!(std::fs::read(previous(&path)).unwrap(), [b'x'; 4000]);
    }
}
