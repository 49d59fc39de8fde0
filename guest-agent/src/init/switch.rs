//! From the initrd to the guest's own root, as switch_root(8) does it.

use super::NEW_ROOT;
use lib_common::error::{Code, Context, Error, Result};
use lib_common::sys::guest_signal;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use nix::unistd::{chdir, chroot, execv};
use std::convert::Infallible;
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// statfs(2)'s f_type of a ramfs, from the kernel's linux/magic.h.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Tried in this order, as the kernel would.
const INITS: [&str; 3] = ["/sbin/init", "/lib/systemd/systemd", "/bin/init"];

/// Whether `/` is what the kernel unpacked an initrd into.
pub fn root_is_in_memory() -> Result<bool> {
    let kind = statfs("/").context("cannot look at /")?.filesystem_type();
    Ok(kind == RAMFS_MAGIC || kind == TMPFS_MAGIC)
}

/// Deletes the initrd's files, the identity's secrets among them, and so frees their memory.
pub fn free_initrd() -> Result<()> {
    let device = fs_err::metadata("/")?.dev();
    if !root_is_in_memory()? || fs_err::metadata(NEW_ROOT)?.dev() == device {
        return Err(Error::new(Code::Internal, "cannot free the initrd: / is not one"));
    }
    remove_below(Path::new("/"), device).context("cannot free the initrd")
}

/// Deletes what is below `dir` on file system `device`; mount points and what is mounted on them stay.
fn remove_below(dir: &Path, device: u64) -> Result<()> {
    for entry in fs_err::read_dir(dir)? {
        let path = entry?.path();
        let found = fs_err::symlink_metadata(&path)?;
        if found.dev() != device {
            continue;
        }
        if found.is_dir() {
            remove_below(&path, device)?;
            fs_err::remove_dir(&path)?;
        } else {
            fs_err::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Moves the mounts, makes the new root `/`, and becomes the guest's init, with the arguments the kernel gave.
pub fn to_new_root() -> Result<Infallible> {
    for from in ["/dev", "/proc", "/sys"] {
        let to = format!("{NEW_ROOT}{from}");
        fs_err::create_dir_all(&to)?;
        mount(Some(from), to.as_str(), None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .context(format!("cannot move {from} to the new root"))?;
    }
    chdir(NEW_ROOT)
        .and_then(|()| mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>))
        .and_then(|()| chroot("."))
        .and_then(|()| chdir("/"))
        .context("cannot switch to the new root")?;
    guest_signal::default_sigpipe().context("cannot restore SIGPIPE")?;
    exec_init()
}

fn exec_init() -> Result<Infallible> {
    // An argument cannot contain a NUL byte, so none is dropped here.
    let given: Vec<CString> = std::env::args_os().skip(1).filter_map(|a| CString::new(a.into_vec()).ok()).collect();
    let mut error = Error::new(Code::MissingFile, "cannot start an init");
    for init in INITS {
        let Ok(path) = CString::new(init) else { continue };
        let mut argv = vec![path.clone()];
        argv.extend(given.iter().cloned());
        let Err(errno) = execv(&path, &argv);
        error = error.also(format!("{init}: {}", errno.desc()));
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_file_system_is_emptied() {
        let root = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(root.path().join("a/b")).unwrap();
        fs_err::write(root.path().join("a/b/c"), "").unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("link")).unwrap();
        let device = root.path().metadata().unwrap().dev();
        remove_below(root.path(), device + 1).unwrap();
        assert!(root.path().join("a/b/c").exists(), "another file system is left alone");
        remove_below(root.path(), device).unwrap();
        assert_eq!(fs_err::read_dir(root.path()).unwrap().count(), 0);
        assert!(Path::new("/etc/passwd").exists(), "a symbolic link is removed, not followed");
    }
}
