//! The lock file: exactly which packages a root file system is made of, one `PKGVER ARCH SHA256` a line, sorted; `#` begins
//! a comment. With it a build is repeated, on another day and without a network.

use super::pkgver::PkgVer;
use super::resolve::Chosen;
use lib_common::doc::Digest;
use lib_common::error::{Code, Context, Error, Result};
use lib_common::sys::plain;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// So much a lock file may have, in bytes: ten times all of Void's packages.
const MAX_BYTES: u64 = 16 << 20;

const HEADER: &str =
    "# The packages of a root file system, for bg-rootfs(1): package-version, architecture, SHA-256.\n";

/// A package of a lock file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Its name and version.
    pub pkgver: PkgVer,
    /// As its file's name has it.
    pub arch: String,
    /// Of its file.
    pub sha256: Digest,
}

/// A lock file's content, by the packages' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock(BTreeMap<String, Locked>);

impl Lock {
    /// Of what was chosen.
    pub fn of<'a>(chosen: impl Iterator<Item = &'a Chosen>) -> Self {
        let locked = |one: &Chosen| {
            let (props, sha256) = (&one.entry.props, one.entry.sha256.clone());
            let (pkgver, arch) = (props.pkgver.clone(), props.architecture.clone());
            (pkgver.name().to_owned(), Locked { pkgver, arch, sha256 })
        };
        Lock(chosen.map(locked).collect())
    }

    /// The one in a file; `None` where there is no file.
    ///
    /// # Errors
    /// [`Code::BadDocument`] with the number of a line that is none.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let bytes = match plain::read_named(path, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(e) if e.code() == Code::MissingFile => return Ok(None),
            Err(e) if e.code() == Code::BadInput => return Err(e.with_code(Code::BadDocument)),
            Err(e) => return Err(e),
        };
        let text = String::from_utf8(bytes).map_err(|e| Error::new(Code::BadDocument, "it is not UTF-8").because(&e));
        text.and_then(|text| Lock::parse(&text)).map(Some).context(format!("{} is not a lock file", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut all = BTreeMap::new();
        for (n, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            let wrong = || Error::new(Code::BadDocument, format!("line {} is no package of a lock", n + 1));
            let locked = match words[..] {
                [] => continue,
                [pkgver, arch, sha256] => Locked {
                    pkgver: PkgVer::parse(pkgver).map_err(|_| wrong())?,
                    arch: Some(arch).filter(|arch| is_arch(arch)).ok_or_else(wrong)?.to_owned(),
                    sha256: Digest::parse(&format!("sha256:{sha256}")).map_err(|_| wrong())?,
                },
                _ => return Err(wrong()),
            };
            if let Some(other) = all.insert(locked.pkgver.name().to_owned(), locked) {
                return Err(wrong().also(format!("`{}` is there already", other.pkgver.name())));
            }
        }
        Ok(Lock(all))
    }

    /// As the file has it.
    pub fn render(&self) -> String {
        let mut text = HEADER.to_owned();
        for Locked { pkgver, arch, sha256 } in self.0.values() {
            let _ = writeln!(text, "{pkgver} {arch} {}", sha256.hex());
        }
        text
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// What keeps it from being written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let path = std::path::absolute(path).map_err(|e| Error::io("write", path, &e))?;
        let fail = |e: &std::io::Error| Error::io("write the lock file", &path, e);
        let dir = path.parent().unwrap_or(Path::new("/"));
        let mut temp = tempfile::Builder::new().prefix(".lock-").tempfile_in(dir).map_err(|e| fail(&e))?;
        temp.write_all(self.render().as_bytes()).map_err(|e| fail(&e))?;
        temp.as_file().sync_all().map_err(|e| fail(&e))?;
        // It is meant to be committed and read by others; a temporary file is nobody else's.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        temp.as_file().set_permissions(mode).map_err(|e| fail(&e))?;
        temp.persist(&path).map_err(|e| fail(&e.error))?;
        Ok(())
    }

    /// Its packages.
    pub fn packages(&self) -> impl Iterator<Item = &Locked> {
        self.0.values()
    }

    /// What is another in `new`, a line each, by name.
    pub fn changes(&self, new: &Lock) -> Vec<String> {
        let mut lines = BTreeMap::new();
        for (name, old) in &self.0 {
            match new.0.get(name) {
                None => lines.insert(name, format!("removed {}", old.pkgver)),
                Some(now) if now.pkgver != old.pkgver || now.arch != old.arch => {
                    lines.insert(name, format!("changed {} to {}", old.pkgver, now.pkgver))
                }
                Some(now) if now.sha256 != old.sha256 => lines.insert(name, format!("rebuilt {}", now.pkgver)),
                Some(_) => None,
            };
        }
        for (name, now) in new.0.iter().filter(|(name, _)| !self.0.contains_key(*name)) {
            lines.insert(name, format!("added   {}", now.pkgver));
        }
        lines.into_values().collect()
    }
}

fn is_arch(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(package: &str, digit: char) -> String {
        format!("{package} noarch {}\n", digit.to_string().repeat(64))
    }

    fn lock(lines: &[(&str, char)]) -> Lock {
        Lock::parse(&lines.iter().map(|(package, digit)| line(package, *digit)).collect::<String>()).unwrap()
    }

    #[test]
    fn a_lock_reads_as_it_is_written_whatever_its_order_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(Lock::read(&path).unwrap(), None);
        let one = lock(&[("b-1_1", '1'), ("a-2_1", '2')]);
        one.write(&path).unwrap();
        assert_eq!(Lock::read(&path).unwrap(), Some(one.clone()));
        assert_eq!(one.render(), format!("{HEADER}{}{}", line("a-2_1", '2'), line("b-1_1", '1')));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_line_that_is_none_is_told_by_its_number() {
        let good = line("a-1_1", '1');
        for bad in ["a-1_1 noarch", "a noarch 11", "a-1_1 no/arch x", &line("a-1_1", 'g'), &good, &format!("x {good}")]
        {
            let e = Lock::parse(&format!("# one\n{good}{bad}\n")).unwrap_err();
            assert!(e.code() == Code::BadDocument && e.message().contains("line 3"), "{bad}: {e}");
        }
    }

    #[test]
    fn what_changed_is_told_by_name() {
        let old = lock(&[("gone-1_1", '1'), ("same-1_1", '1'), ("other-1_1", '1'), ("again-1_1", '1')]);
        let new = lock(&[("same-1_1", '1'), ("other-1_2", '1'), ("again-1_1", '2'), ("new-1_1", '1')]);
        assert_eq!(
            old.changes(&new),
            ["rebuilt again-1_1", "removed gone-1_1", "added   new-1_1", "changed other-1_1 to other-1_2"]
        );
        assert_eq!(old.changes(&old), [] as [String; 0]);
    }
}
