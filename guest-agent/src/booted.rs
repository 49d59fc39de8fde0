//! `guest-agent booted`: what is left to do when the guest's boot is over.

use lib_common::error::{Code, Error, Result};
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

const CPUS: &str = "/sys/devices/system/cpu";
const MASKED_GENERATORS: &str = "/run/systemd/system-generators";

/// Switches on the processors that the boot did without, and lets all generators run at the next reload.
pub fn main() -> ExitCode {
    let mut status = ExitCode::SUCCESS;
    for done in [every_cpu(Path::new(CPUS)), unmask(Path::new(MASKED_GENERATORS))] {
        if let Err(e) = done {
            eprintln!("guest-agent: {}", e.with_causes());
            status = ExitCode::FAILURE;
        }
    }
    status
}

/// Switches every processor on; one that cannot be switched has no file `online`.
fn every_cpu(dir: &Path) -> Result<()> {
    for entry in fs_err::read_dir(dir)? {
        let online = entry?.path().join("online");
        if std::fs::read_to_string(&online).is_ok_and(|on| on.trim() == "0") {
            fs_err::write(&online, "1")?;
        }
    }
    Ok(())
}

/// Removes the links that kept generators from running, and nothing else.
fn unmask(dir: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("list", dir, &e).with_code(Code::Io)),
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
    fn processors_that_are_off_are_switched_on() {
        let dir = tempfile::tempdir().unwrap();
        for (cpu, on) in [("cpu0", None), ("cpu1", Some("0\n")), ("cpu2", Some("1\n"))] {
            fs_err::create_dir(dir.path().join(cpu)).unwrap();
            if let Some(on) = on {
                fs_err::write(dir.path().join(cpu).join("online"), on).unwrap();
            }
        }
        every_cpu(dir.path()).unwrap();
        let read = |cpu: &str| fs_err::read_to_string(dir.path().join(cpu).join("online")).ok();
        assert_eq!((read("cpu0"), read("cpu1").as_deref(), read("cpu2").as_deref()), (None, Some("1"), Some("1\n")));
    }

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
