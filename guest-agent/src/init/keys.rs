//! Root's `authorized_keys` on the work disk: the keys of the identity are there, and the user's stay.
//!
//! The work disk is the user's, so no symbolic link on it is followed: every step goes by directory descriptor.

use super::NEW_ROOT;
use lib_common::error::{Code, Context, Error, Result};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::Path;

const FILE: &str = "authorized_keys";
const NEW_FILE: &str = ".authorized_keys.banger-new";

/// No sane file of keys is larger; a larger one is left alone.
const MAX_BYTES: u64 = 1 << 20;

/// Adds each key that is missing from `/root/.ssh/authorized_keys`.
///
/// # Errors
/// `.ssh` or the file is a symbolic link or something else that it should not be, or the disk is full or read-only.
pub fn authorize(keys: &[String]) -> Result<()> {
    authorize_in(&Path::new(NEW_ROOT).join("root"), keys).context("cannot authorize the SSH keys")
}

fn authorize_in(home: &Path, keys: &[String]) -> Result<()> {
    let dir = open_ssh_dir(home).context("/root/.ssh is not a directory of its own")?;
    let old = read_keys(&dir).context("/root/.ssh/authorized_keys is not a file of its own")?;
    match with_keys(&old, keys) {
        Some(new) => replace(&dir, &new).context("cannot write /root/.ssh/authorized_keys"),
        None => Ok(()),
    }
}

/// `.ssh`, made if need be, owned by root and closed to others: sshd insists on both.
fn open_ssh_dir(home: &Path) -> Result<File> {
    let directory = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
    let home = fs_err::File::open(home)?;
    mend_home(home.file()).context("cannot mend the owner and mode of /root")?;
    match mkdirat(&home, ".ssh", Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let dir = File::from(openat(&home, ".ssh", directory, Mode::empty())?);
    let found = fstat(&dir)?;
    if found.st_mode & 0o7777 != 0o700 {
        dir.set_permissions(Permissions::from_mode(0o700))?;
    }
    if (found.st_uid, found.st_gid) != (0, 0) {
        own(&dir)?;
    }
    Ok(dir)
}

/// root's home, closed to what other users write: sshd insists on that, too. What they may read stays.
fn mend_home(home: &File) -> Result<()> {
    let found = fstat(home)?;
    if found.st_uid != 0 {
        own(home)?;
    }
    if found.st_mode & 0o022 != 0 {
        home.set_permissions(Permissions::from_mode(found.st_mode & 0o7755))?;
    }
    Ok(())
}

/// The file's bytes, none where there is no file. Mode and owner are mended.
fn read_keys(dir: &File) -> Result<Vec<u8>> {
    match fstatat(dir, FILE, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => return Ok(vec![]),
        Err(errno) => return Err(errno.into()),
        // Opening a pipe would wait for a writer.
        Ok(s) if s.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() => {
            return Err(Error::new(Code::BadInput, "it is not a regular file"));
        }
        Ok(_) => {}
    }
    let file = File::from(openat(dir, FILE, OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?);
    if fstat(&file)?.st_mode & 0o7777 != 0o600 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    own(&file)?;
    let mut bytes = vec![];
    (&file).take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::new(Code::BadInput, "it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// `old` and every key that it lacks; `None` where it has them all.
fn with_keys(old: &[u8], keys: &[String]) -> Option<Vec<u8>> {
    let has = |text: &[u8], key: &str| text.split(|b| *b == b'\n').any(|line| line.trim_ascii() == key.as_bytes());
    let mut new = old.to_vec();
    for key in keys.iter().map(|key| key.trim()).filter(|key| !key.is_empty()) {
        if has(&new, key) {
            continue;
        }
        if new.last().is_some_and(|b| *b != b'\n') {
            new.push(b'\n');
        }
        new.extend_from_slice(key.as_bytes());
        new.push(b'\n');
    }
    (new != old).then_some(new)
}

/// Synced before the rename: a crash must not cost the user the keys that were there.
fn replace(dir: &File, bytes: &[u8]) -> Result<()> {
    match unlinkat(dir, NEW_FILE, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(dir, NEW_FILE, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    own(&file)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    renameat(dir, NEW_FILE, dir, FILE)?;
    Ok(())
}

/// Owned by root; whoever is not root himself (a test) owns what he makes.
fn own(file: &File) -> Result<()> {
    if nix::unistd::geteuid().is_root() { Ok(fchown(file, Some(0), Some(0))?) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn key(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    #[test]
    fn missing_keys_are_added_and_the_users_lines_stay() {
        let cases: [(&str, &[&str], Option<&str>); 5] = [
            ("", &["k1 a"], Some("k1 a\n")),
            ("k1 a\n", &["k1 a"], None),
            ("# mine\nk0", &["k1 a"], Some("# mine\nk0\nk1 a\n")),
            ("k0\n  k1 a \n", &["k1 a", "k2"], Some("k0\n  k1 a \nk2\n")),
            ("k0\n", &["", "k1", "k1"], Some("k0\nk1\n")),
        ];
        for (old, keys, new) in cases {
            let keys: Vec<String> = keys.iter().map(|k| (*k).to_owned()).collect();
            assert_eq!(with_keys(old.as_bytes(), &keys).as_deref(), new.map(str::as_bytes), "{old:?}");
        }
    }

    #[test]
    fn the_directory_and_the_file_are_made_private() {
        let home = tempfile::tempdir().unwrap();
        let mode = |path: &str| home.path().join(path).metadata().unwrap().permissions().mode() & 0o7777;
        authorize_in(home.path(), &key("k1")).unwrap();
        assert_eq!((mode(".ssh"), mode(".ssh/authorized_keys")), (0o700, 0o600));
        fs_err::set_permissions(home.path().join(".ssh/authorized_keys"), Permissions::from_mode(0o666)).unwrap();
        authorize_in(home.path(), &key("k1")).unwrap();
        assert_eq!(mode(".ssh/authorized_keys"), 0o600);
    }

    #[test]
    fn a_home_that_others_can_write_to_is_closed_to_them_and_stays_readable() {
        let home = tempfile::tempdir().unwrap();
        let mode = || home.path().metadata().unwrap().permissions().mode() & 0o7777;
        for (before, after) in [(0o777, 0o755), (0o1770, 0o1750), (0o700, 0o700), (0o755, 0o755)] {
            fs_err::set_permissions(home.path(), Permissions::from_mode(before)).unwrap();
            authorize_in(home.path(), &key("k1")).unwrap();
            assert_eq!(mode(), after, "{before:o}");
        }
    }

    #[test]
    fn symbolic_links_are_never_followed() {
        let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(other.path(), home.path().join(".ssh")).unwrap();
        authorize_in(home.path(), &key("k1")).unwrap_err();
        fs_err::remove_file(home.path().join(".ssh")).unwrap();
        fs_err::create_dir(home.path().join(".ssh")).unwrap();
        symlink(other.path().join("passwd"), home.path().join(".ssh/authorized_keys")).unwrap();
        authorize_in(home.path(), &key("k1")).unwrap_err();
        assert_eq!(fs_err::read_dir(other.path()).unwrap().count(), 0);
    }
}
