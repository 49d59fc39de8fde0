//! Writing the guest's files: whole or not at all, and only where they differ.

use fs_err::os::unix::fs::OpenOptionsExt;
use lib_common::error::{Code, Error, Result};
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Makes `path` a file of these bytes and this mode, by a temporary file and a rename; one that is so already is
/// left alone. Nothing is synced: after a crash the next boot finds the difference and writes it again.
pub fn write_if_different(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    if is_already(path, bytes, mode) {
        return Ok(());
    }
    let parent = path.parent().ok_or_else(|| Error::new(Code::Internal, "a file without a directory"))?;
    fs_err::create_dir_all(parent)?;
    let temp = temp_name(path);
    // Only an interrupted boot leaves one, and nothing else runs now.
    if temp.symlink_metadata().is_ok() {
        fs_err::remove_file(&temp)?;
    }
    let mut file = fs_err::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temp)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    fs_err::rename(&temp, path)?;
    Ok(())
}

/// Writes one line each; no lines, no file.
pub fn write_lines(path: &str, lines: &[String]) -> Result<()> {
    if !lines.is_empty() {
        fs_err::write(path, lines.join("\n") + "\n")?;
    }
    Ok(())
}

fn is_already(path: &Path, bytes: &[u8], mode: u32) -> bool {
    let regular = path.symlink_metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o7777 == mode);
    regular && fs_err::read(path).is_ok_and(|found| found == bytes)
}

fn temp_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.banger-new"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_file_is_replaced_whole_and_only_if_it_differs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/hostname");
        write_if_different(&path, b"dev\n", 0o644).unwrap();
        let first = path.metadata().unwrap().ino();
        write_if_different(&path, b"dev\n", 0o644).unwrap();
        assert_eq!(path.metadata().unwrap().ino(), first, "an unchanged file is left alone");
        write_if_different(&path, b"dev\n", 0o600).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600, "a wrong mode is mended");
        fs_err::write(temp_name(&path), "left over").unwrap();
        write_if_different(&path, b"other\n", 0o600).unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"other\n");
        assert!(!temp_name(&path).exists());
    }

    #[test]
    fn a_symbolic_link_is_replaced_and_its_target_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("machine-id"), dir.path().join("target"));
        fs_err::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_if_different(&link, b"new\n", 0o444).unwrap();
        assert!(link.symlink_metadata().unwrap().is_file());
        assert_eq!(fs_err::read(&target).unwrap(), b"kept");
    }
}
