//! `guest-agent booted`: what is left to do when the guest's boot is over.

use lib_common::error::{Error, Result};
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

const MASKED_GENERATORS: &str = "/run/systemd/system-generators";

/// Lets all generators run at the next `systemctl daemon-reload`.
pub fn main() -> ExitCode {
    match unmask(Path::new(MASKED_GENERATORS)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("guest-agent: {}", e.with_causes());
            ExitCode::FAILURE
        }
    }
}

/// Removes the links that kept generators from running, and nothing else.
fn unmask(dir: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("list", dir, &e)),
    };
    for entry in entries {
        let path = entry?.path();
        if std::fs::read_link(&path).is_ok_and(|target| target == Path::new("/dev/null")) {
            fs_err::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_masks_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        unmask(&dir.path().join("none")).unwrap();
        symlink("/dev/null", dir.path().join("masked")).unwrap();
        symlink("/bin/true", dir.path().join("link")).unwrap();
        fs_err::write(dir.path().join("generator"), "").unwrap();
        unmask(dir.path()).unwrap();
        let mut left: Vec<_> = fs_err::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["generator", "link"]);
    }
}
