//! File-system calls that std does not have: clones, holes, renames that never replace, durable saves.

#![allow(unsafe_code)]

use crate::error::{Code, Error, Result};
use fs_err::os::unix::fs::OpenOptionsExt;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, RenameFlags, fallocate, renameat2};
use nix::unistd::{Whence, lseek64};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

nix::ioctl_write_int_bad!(
    /// Shares all blocks of the file given by descriptor: ioctl_ficlone(2).
    ficlone,
    nix::request_code_write!(0x94, 9, std::mem::size_of::<nix::libc::c_int>())
);

/// The names of files and directories in the making, and of the locks beside them, begin with this.
pub const TEMP_PREFIX: &str = ".tmp-";

/// How a file was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// Blocks are shared until written.
    Reflink,
    /// Data was copied, holes were kept.
    Extents,
}

/// Copies `from` to the new file `to` (mode 0600): as a reflink where the file system can, else extent by extent with
/// holes kept. Never replaces; on failure `to` is removed.
pub fn clone_file(from: &Path, to: &Path) -> Result<Copied> {
    let source = open_regular(from, 0)?;
    let target = fs_err::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;

    clone_into(&source, target.file()).map_err(|e| {
        let _ = std::fs::remove_file(to);
        Error::io("copy to", to, &e.into())
    })
}

/// Opens a regular file to read it. A FIFO is not waited for, and a device does not notice. `flags`: more of open(2)'s.
fn open_regular(path: &Path, flags: i32) -> Result<File> {
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::custom_flags(options.read(true), nix::libc::O_NONBLOCK | flags);
    let file = options.open(path).map_err(|e| Error::io("read", path, &e))?;
    let meta = file.metadata().map_err(|e| Error::io("read", path, &e))?;
    if meta.is_file() {
        Ok(file)
    } else {
        Err(Error::new(Code::BadInput, format!("{} is not a regular file", path.display())))
    }
}

/// The regular file that was seen at `path`: nothing that somebody has put there since.
///
/// # Errors
/// [`Code::BadInput`] where it is another one by now, or a symbolic link.
pub fn open_seen(path: &Path, seen: &std::fs::Metadata) -> Result<File> {
    let file = open_regular(path, nix::libc::O_NOFOLLOW)?;
    let meta = file.metadata().map_err(|e| Error::io("read", path, &e))?;
    if (meta.dev(), meta.ino()) == (seen.dev(), seen.ino()) {
        return Ok(file);
    }
    Err(Error::new(Code::BadInput, format!("{} was replaced while it was read", path.display())).hint("try again"))
}

/// A hard link, or a clone where the file system has none or `to` is on another one. Never replaces.
pub fn link_or_clone(from: &Path, to: &Path) -> Result<()> {
    match std::fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::io("link to", to, &e)),
        Err(_) => clone_file(from, to).map(drop),
    }
}

/// Whether files in `dir` can share blocks. Leaves nothing there, even if it is killed: the files that it tries have no
/// names.
pub fn can_reflink(dir: &Path) -> Result<bool> {
    let (source, target) = (tempfile::tempfile_in(dir)?, tempfile::tempfile_in(dir)?);
    // SAFETY: both descriptors are open for the whole call.
    Ok(unsafe { ficlone(target.as_raw_fd(), source.as_raw_fd()) }.is_ok())
}

fn clone_into(source: &File, target: &File) -> Result<Copied, Errno> {
    // SAFETY: both descriptors are open for the whole call.
    match super::signal::restarted(|| unsafe { ficlone(target.as_raw_fd(), source.as_raw_fd()) }) {
        Ok(_) => return Ok(Copied::Reflink),
        Err(Errno::EOPNOTSUPP | Errno::EXDEV | Errno::EINVAL | Errno::ENOTTY | Errno::ENOSYS) => {}
        Err(e) => return Err(e),
    }
    let size = i64::try_from(source.metadata().map_err(errno)?.size()).map_err(|_| Errno::EFBIG)?;
    // std goes on after a signal.
    target.set_len(size.cast_unsigned()).map_err(errno)?;
    for_each_extent(source, size, |start, end| copy_range(source, target, start, end))?;
    Ok(Copied::Extents)
}

/// Calls `f(start, end)` for every stretch of data of a sparse file, in order.
pub fn for_each_extent(file: &File, size: i64, mut f: impl FnMut(i64, i64) -> Result<(), Errno>) -> Result<(), Errno> {
    let mut at = 0;
    while at < size {
        let start = match lseek64(file, at, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => break,
            Err(e) => return Err(e),
        };
        let end = lseek64(file, start, Whence::SeekHole)?.min(size);
        f(start, end)?;
        at = end;
    }
    Ok(())
}

fn copy_range(source: &File, target: &File, start: i64, end: i64) -> Result<(), Errno> {
    let (mut from, mut to) = (start, start);
    while from < end {
        let want = usize::try_from(end - from).unwrap_or(usize::MAX).min(1 << 30);
        match nix::fcntl::copy_file_range(source, Some(&mut from), target, Some(&mut to), want) {
            Ok(0) => return Err(Errno::EIO),
            Ok(_) => super::signal::check().map_err(|_| Errno::EINTR)?,
            Err(Errno::EINTR) => super::signal::check().map_err(|_| Errno::EINTR)?,
            Err(Errno::EXDEV | Errno::EOPNOTSUPP | Errno::ENOSYS) => return copy_by_hand(source, target, from, end),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Where the kernel cannot copy between these two file systems.
fn copy_by_hand(source: &File, target: &File, mut at: i64, end: i64) -> Result<(), Errno> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; 1 << 20];
    while at < end {
        super::signal::check().map_err(|_| Errno::EINTR)?;
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let n = source.read_at(&mut buffer[..want], at.cast_unsigned()).map_err(errno)?;
        if n == 0 {
            return Err(Errno::EIO);
        }
        target.write_all_at(&buffer[..n], at.cast_unsigned()).map_err(errno)?;
        at += i64::try_from(n).map_err(|_| Errno::EFBIG)?;
    }
    Ok(())
}

fn errno(e: std::io::Error) -> Errno {
    e.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Bytes that a file takes on its file system; 0 where it cannot be asked.
pub fn allocated_bytes(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).map_or(0, |m| m.blocks() * 512)
}

/// Takes space for `bytes` of the file at `path` now, so that later appends cannot fail for want of it. A file system that
/// cannot do so is no error.
pub fn preallocate(file: &File, path: &Path, bytes: i64) -> Result<()> {
    loop {
        match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, bytes) {
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(Error::io("take space for", path, &e.into())),
        }
    }
}

/// Renames, and fails with `Exists` where `to` is there already: the claim of a name is one system call.
pub fn rename_new(from: &Path, to: &Path) -> Result<()> {
    let cwd = nix::fcntl::AT_FDCWD;
    renameat2(cwd, from, cwd, to, RenameFlags::RENAME_NOREPLACE).map_err(|e| Error::io("rename to", to, &e.into()))
}

/// Swaps two names of one file system in one system call.
pub fn rename_exchange(a: &Path, b: &Path) -> Result<()> {
    let cwd = nix::fcntl::AT_FDCWD;
    renameat2(cwd, a, cwd, b, RenameFlags::RENAME_EXCHANGE).map_err(|e| Error::io("swap with", b, &e.into()))
}

/// What a removal of `path` gave: what is gone already is fine.
pub fn gone(removed: std::io::Result<()>, path: &Path) -> Result<()> {
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, &e)),
        _ => Ok(()),
    }
}

/// Removes a file; one that is gone already is fine.
pub fn remove_file(path: &Path) -> Result<()> {
    gone(std::fs::remove_file(path), path)
}

/// Removes a directory with all that is in it; what is gone already, or goes meanwhile, is fine.
pub fn remove_dir(path: &Path) -> Result<()> {
    gone(std::fs::remove_dir_all(path), path)
}

/// Makes what was created, renamed or removed in `dir` durable; of a file, its content.
pub fn sync_dir(dir: &Path) -> Result<()> {
    Ok(fs_err::File::open(dir)?.sync_all()?)
}

/// Makes all that was written to the file system of `dir` durable: one call, where a fsync for each of a thousand files
/// would take seconds.
pub fn sync_all(dir: &Path) -> Result<()> {
    nix::unistd::syncfs(fs_err::File::open(dir)?).map_err(|e| Error::io("sync", dir, &e.into()))
}

/// Replaces `path` by `bytes` so that after a crash it is the old or the new content, never a part: a unique temporary
/// file in the same directory, fsync, rename, fsync of the directory.
pub fn save(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    write_beside(path, bytes, mode, File::sync_all)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Replaces `path` by `bytes` in one step, and syncs nothing: for what does not outlive the host's boot.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    write_beside(path, bytes, mode, |_| Ok(()))
}

fn write_beside(path: &Path, bytes: &[u8], mode: u32, sync: fn(&File) -> std::io::Result<()>) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let io = |e: &std::io::Error| Error::io("save", path, e);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tmp-").permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    let mut temp = builder.tempfile_in(dir).map_err(|e| io(&e))?;
    // By this the audit knows that somebody is at it.
    super::lock::hold(temp.as_file());
    if mode & 0o077 != 0 {
        // What others are to read they read, whatever the umask is.
        let opened = temp.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
        opened.map_err(|e| io(&e))?;
    }
    temp.write_all(bytes).and_then(|()| sync(temp.as_file())).map_err(|e| io(&e))?;
    temp.persist(path).map(drop).map_err(|e| io(&e.error))
}

/// A file without a name that has these bytes, to be read from its beginning: another program's input.
///
/// # Errors
/// Those of the directory for temporary files, which they name.
pub fn unnamed(bytes: &[u8]) -> Result<File> {
    let write = || {
        let mut file = tempfile::tempfile()?;
        file.write_all(bytes)?;
        file.rewind()?;
        Ok(file)
    };
    write().map_err(|e| Error::io("write a temporary file in", &std::env::temp_dir(), &e))
}

/// Makes a directory of mode 0700 with its parents; one that is there must be the caller's own and no symlink.
pub fn private_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| Error::io("make", path, &e))?;
    super::owned::is_dir(path, "").map(drop)
}

/// Free bytes for this user on the file system of `path`.
pub fn free_bytes(path: &Path) -> Result<u64> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

/// Free bytes on the file system of `path` that this process may use: for root also the reserved ones.
pub fn usable_bytes(path: &Path) -> Result<u64> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    let blocks = if super::host::caller_is_root() { stat.blocks_free() } else { stat.blocks_available() };
    Ok(blocks * stat.fragment_size())
}

/// Whether nobody can write to the file system of `path`.
pub fn is_read_only(path: &Path) -> bool {
    nix::sys::statvfs::statvfs(path).is_ok_and(|stat| stat.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_clone_has_the_content_and_the_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let file = File::create(&a).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(b"middle", 30 << 20).unwrap();
        clone_file(&a, &b).unwrap();
        assert!(std::fs::read(&a).unwrap() == std::fs::read(&b).unwrap());
        assert!(allocated_bytes(&b) < 1 << 20, "holes were filled: {}", allocated_bytes(&b));
        assert_eq!(clone_file(&a, &b).unwrap_err().code(), crate::Code::Exists);
        assert!(b.exists(), "a clone that fails because the target exists leaves it alone");
    }

    #[test]
    fn only_the_regular_file_that_was_seen_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, link, fifo) =
            (dir.path().join("a"), dir.path().join("b"), dir.path().join("l"), dir.path().join("f"));
        std::fs::write(&a, "a").unwrap();
        std::fs::write(&b, "b").unwrap();
        std::os::unix::fs::symlink(&a, &link).unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let seen = a.metadata().unwrap();
        open_seen(&a, &seen).unwrap();
        for (path, code) in [(&b, Code::BadInput), (&link, Code::Io), (&fifo, Code::BadInput)] {
            assert_eq!(open_seen(path, &seen).unwrap_err().code(), code, "{}", path.display());
        }
        // Nobody has it open to write.
        assert_eq!(clone_file(&fifo, &dir.path().join("c")).unwrap_err().code(), Code::BadInput);
    }

    #[test]
    fn a_rename_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, "a").unwrap();
        std::fs::write(&b, "b").unwrap();
        assert_eq!(rename_new(&a, &b).unwrap_err().code(), crate::Code::Exists);
        assert_eq!(std::fs::read(&b).unwrap(), b"b");
    }
}
