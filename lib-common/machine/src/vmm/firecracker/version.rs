//! Which Firecracker a program is, and what the versions differ in.

use lib_common::error::{Code, Context, Error, Result};
use lib_common::sys::cmd::{Cmd, Stream, Streams};
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// The oldest one that the configuration is written for.
pub const LEAST: Version = Version { minor: 10, patch: 0 };

/// The first whose metrics can have the VM's id in each line (`Metrics.emit_id`).
const EMITS_ID: Version = Version { minor: 17, patch: 0 };

/// How long `firecracker --version` may take. Usually it takes 5 ms.
const WITHIN: Duration = Duration::from_secs(10);

/// So much of what it prints is read, in bytes.
const MOST: u64 = 4096;

/// A version of Firecracker 1: `1.10.1`. What may follow (`-dev`, `-12-gabcdef`) does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    minor: u32,
    patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}.{}", self.minor, self.patch)
    }
}

impl Version {
    /// Asks a program.
    ///
    /// # Errors
    /// [`Code::MissingProgram`]; [`Code::VmmFailed`] for one that says no version within 10 s, or one that is not supported.
    pub fn of(program: &Path) -> Result<Self> {
        let said = ask(program).map_err(|e| match e.code() {
            Code::MissingProgram | Code::Interrupted | Code::Terminated => e,
            _ => e.with_code(Code::VmmFailed).within(format!("cannot learn the version of {}", program.display())),
        })?;
        // The first line; a list of versions of snapshots follows.
        let line = said.lines().next().unwrap_or_default();
        let Some(text) = line.strip_prefix("Firecracker ") else {
            let message = format!("{} is no Firecracker: it says `{}`", program.display(), line.escape_debug());
            return Err(Error::new(Code::VmmFailed, message));
        };
        Version::parse(text).context(format!("{} cannot be used", program.display()))
    }

    /// Reads `1.10.1` or `v1.10.1`, with or without more after it.
    ///
    /// # Errors
    /// [`Code::VmmFailed`] for another text, and for a version that is not supported: before [`LEAST`], or not of
    /// Firecracker 1.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let bare = text.strip_prefix('v').unwrap_or(text);
        let numbers = bare.split(['-', '+', ' ']).next().unwrap_or_default();
        let numbers: Option<Vec<u32>> = numbers.split('.').map(|n| n.parse().ok()).collect();
        let unsupported = |what: String| {
            let hint = format!("versions from {LEAST} on and before 2 are supported");
            Err(Error::new(Code::VmmFailed, what).hint(hint))
        };
        match numbers.as_deref() {
            Some([1, minor, patch]) if (Version { minor: *minor, patch: *patch }) >= LEAST => {
                Ok(Version { minor: *minor, patch: *patch })
            }
            Some([major, _, _]) if *major > 1 => unsupported(format!("Firecracker {bare} is too new")),
            Some([_, _, _]) => unsupported(format!("Firecracker {bare} is too old")),
            _ => unsupported(format!("`{}` is not a version of Firecracker", text.escape_debug())),
        }
    }

    /// Whether its metrics can have the VM's id in each line.
    pub(super) fn emits_id(self) -> bool {
        self >= EMITS_ID
    }
}

fn ask(program: &Path) -> Result<String> {
    let streams = Streams { stdout: Stream::Pipe, ..Streams::default() };
    let mut child = Cmd::new(program).arg("--version").only_env().env("LC_ALL", "C").spawn(streams)?;
    if !child.pidfd().wait(WITHIN)? {
        return Err(Error::new(Code::TimedOut, format!("it did not say it within {} s", WITHIN.as_secs())));
    }
    let mut said = vec![];
    if let Some(pipe) = child.stdout()? {
        pipe.take(MOST).read_to_end(&mut said)?;
    }
    child.finish()?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn versions_from_the_least_on_are_taken() {
        for (text, version) in [
            ("1.10.0", "1.10.0"),
            ("v1.10.1\n", "1.10.1"),
            ("v1.17.0-dev", "1.17.0"),
            ("1.13.2-4-gdeadbeef-dirty", "1.13.2"),
        ] {
            assert_eq!(Version::parse(text).unwrap().to_string(), version);
        }
        for (text, why) in [
            ("1.9.9", "too old"),
            ("v0.25.2", "too old"),
            ("2.0.0", "too new"),
            ("1.10", "not a version"),
            ("", "not a version"),
            ("latest\u{1b}", "`latest\\u{1b}`"),
        ] {
            let e = Version::parse(text).unwrap_err();
            assert!(e.code() == Code::VmmFailed && e.message().contains(why), "{text}: {e}");
            assert!(e.get_hint().unwrap().contains("1.10.0"), "{e:?}");
        }
        assert!(!LEAST.emits_id() && Version::parse("1.17.0").unwrap().emits_id());
    }

    #[test]
    fn a_program_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("firecracker");
        let version = |script: &str| {
            std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
            Version::of(&program)
        };
        let said = version("echo Firecracker v1.12.3; echo; echo Supported snapshot data format versions: 1").unwrap();
        assert_eq!(said.to_string(), "1.12.3");
        for (script, why) in [
            ("echo QEMU emulator version 10.0.2", "is no Firecracker"),
            ("echo Firecracker v1.1.0", "cannot be used"),
            ("exit 3", "cannot learn the version"),
            ("", "is no Firecracker"),
        ] {
            let e = version(script).unwrap_err();
            assert!(e.code() == Code::VmmFailed && e.message().contains(why), "{script}: {e}");
        }
        assert_eq!(Version::of(Path::new("/nowhere/firecracker")).unwrap_err().code(), Code::MissingProgram);
    }
}
