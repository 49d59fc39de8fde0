//! Files and directories that are the caller's own: reached from a directory without leaving it and without a symbolic
//! link, and the caller's on every step of the way. Knows no domain.
//!
//! Source: openat2(2), `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`.

use crate::error::{Code, Error, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open as open_at_cwd, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Memory is taken for no more than this before it is needed, in bytes, whatever length a file says that it has.
const AT_ONCE: u64 = 1 << 20;

/// Whose it has to be, on every step of the way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Caller,
    /// What root has put there for everybody is fine, too.
    CallerOrRoot,
}

/// What is looked for at the end of the way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Directory,
    File,
}

/// Opens the regular file `below`, a relative path, from the directory `root`, to read it. `None` where it, or a directory
/// on the way, is missing.
///
/// # Errors
/// [`Code::Permission`] for a symbolic link, for what is another user's, for a FIFO, socket or device. None of these is
/// opened: a FIFO does not block, and a device does not notice.
pub fn open(root: &Path, below: impl AsRef<Path>) -> Result<Option<File>> {
    reach(root, below.as_ref(), (Wanted::File, Owner::Caller))?.map(reopened).transpose()
}

/// The same for what may be root's instead of the caller's, which a suite is made up of.
///
/// # Errors
/// As [`open`].
pub fn open_installed(root: &Path, below: impl AsRef<Path>) -> Result<Option<File>> {
    reach(root, below.as_ref(), (Wanted::File, Owner::CallerOrRoot))?.map(reopened).transpose()
}

/// Opens the regular file `path`, by which the configuration is given or which it names. `None` where it is missing.
///
/// # Errors
/// [`Code::Permission`] for a symbolic link, and for a file that a user other than root and the caller owns, can write to, or can
/// replace.
pub fn open_trusted(path: &Path) -> Result<Option<File>> {
    trusted(path)?.map(reopened).transpose()
}

/// Says whether the regular file `path` is there, such as a program, which need not be readable.
///
/// # Errors
/// As [`open_trusted`].
pub fn is_trusted(path: &Path) -> Result<bool> {
    Ok(trusted(path)?.is_some())
}

fn trusted(path: &Path) -> Result<Option<(OwnedFd, PathBuf)>> {
    let (dir, name) = split(path);
    let dir = match std::fs::canonicalize(dir) {
        Ok(dir) => dir,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", path, &e)),
    };
    let found = reach(&dir, Path::new(name), (Wanted::File, Owner::CallerOrRoot))?;
    // The file is open by now: a directory that is safe cannot have had another one.
    found.map(|found| is_safe_from_others(&dir).map(|()| found)).transpose()
}

/// Refuses a directory that all users share, and that a user other than root and the caller owns, can write to, or can replace.
/// It may be missing.
///
/// # Errors
/// [`Code::Permission`], also for a symbolic link.
pub fn check_shared_dir(dir: &Path) -> Result<()> {
    reach(dir, Path::new(""), (Wanted::Directory, Owner::CallerOrRoot))?;
    is_safe_from_others(dir)
}

/// What the descriptor stands for, whatever has that name by now.
fn reopened((found, path): (OwnedFd, PathBuf)) -> Result<File> {
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).map_err(|e| Error::io("read", &path, &e))
}

/// Whether the directory `below`, a relative path, is there, from the directory `root`; of an empty path `root` itself.
///
/// # Errors
/// As [`open`]; also for what is no directory.
pub fn is_dir(root: &Path, below: impl AsRef<Path>) -> Result<bool> {
    Ok(reach(root, below.as_ref(), (Wanted::Directory, Owner::Caller))?.is_some())
}

/// Whether a regular file is there: see [`open`].
///
/// # Errors
/// As [`open`].
pub fn is_file(path: &Path) -> Result<bool> {
    let (root, name) = split(path);
    Ok(reach(root, Path::new(name), (Wanted::File, Owner::Caller))?.is_some())
}

/// The content of a file whose directory is the caller's, at most `limit` bytes of it; `None` where it is missing.
///
/// # Errors
/// As [`open`], and [`Code::Io`].
pub fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let (root, name) = split(path);
    let Some(file) = open(root, name)? else { return Ok(None) };
    let io = |e: std::io::Error| Error::io("read", path, &e);
    let length = file.metadata().map_err(io)?.len().min(limit).min(AT_ONCE);
    // With room for more than is there the whole is one read, and the next finds its end.
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 64);
    file.take(limit).read_to_end(&mut bytes).map_err(io)?;
    Ok(Some(bytes))
}

/// The same of its last `limit` bytes.
///
/// # Errors
/// As [`read`].
pub fn read_end(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let (root, name) = split(path);
    let Some(mut file) = open(root, name)? else { return Ok(None) };
    let mut bytes = vec![];
    let mut read = || {
        let from = file.metadata()?.len().saturating_sub(limit);
        file.seek(SeekFrom::Start(from))?;
        file.by_ref().take(limit).read_to_end(&mut bytes)
    };
    read().map_err(|e| Error::io("read", path, &e))?;
    Ok(Some(bytes))
}

/// The same as text; what is no UTF-8 is replaced, and fails to parse then.
///
/// # Errors
/// As [`read`].
pub fn read_text(path: &Path, limit: u64) -> Result<Option<String>> {
    Ok(read(path, limit)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn split(path: &Path) -> (&Path, &std::ffi::OsStr) {
    (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default())
}

/// A descriptor that only names it (`O_PATH`), and its path.
fn reach(root: &Path, below: &Path, (wanted, owner): (Wanted, Owner)) -> Result<Option<(OwnedFd, PathBuf)>> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let mut path = root.to_owned();
    let mut steps = below.components().peekable();
    let wanted_now = |last: bool| (if last { wanted } else { Wanted::Directory }, owner);
    let Some(mut at) =
        own(uninterrupted(|| open_at_cwd(root, flags, Mode::empty())), &path, wanted_now(steps.peek().is_none()))?
    else {
        return Ok(None);
    };
    while let Some(step) = steps.next() {
        path.push(step);
        let opened = uninterrupted(|| openat2(&at, step.as_os_str(), how));
        match own(opened, &path, wanted_now(steps.peek().is_none()))? {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    Ok(Some((at, path)))
}

/// Makes a call again that a signal has interrupted, as std does.
fn uninterrupted(call: impl Fn() -> nix::Result<OwnedFd>) -> nix::Result<OwnedFd> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// What was opened, if it is of the kind that is wanted, and the caller's.
fn own(opened: nix::Result<OwnedFd>, path: &Path, (wanted, owner): (Wanted, Owner)) -> Result<Option<OwnedFd>> {
    let fd = match opened {
        Ok(fd) => fd,
        Err(Errno::ENOENT) => return Ok(None),
        Err(Errno::ELOOP | Errno::EXDEV) => return Err(refused(path, "is a symbolic link")),
        Err(e) => return Err(Error::io("open", path, &e.into())),
    };
    let stat = fstat(&fd).map_err(|e| Error::io("open", path, &e.into()))?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let fits = if wanted == Wanted::File { kind == SFlag::S_IFREG } else { kind == SFlag::S_IFDIR };
    if !fits {
        let wanted = if wanted == Wanted::File { "a regular file" } else { "a directory" };
        return Err(refused(path, &format!("is {}, not {wanted}", in_words(kind))));
    }
    let me = nix::unistd::geteuid().as_raw();
    if stat.st_uid != me && (owner == Owner::Caller || !is_root(stat.st_uid, path)?) {
        return Err(refused(path, &format!("belongs to user {}, and you are user {me}", stat.st_uid)));
    }
    // A file of the caller's alone lies in a directory that is the caller's alone.
    if owner == Owner::CallerOrRoot && wanted == Wanted::File && others_may_write(stat.st_mode, stat.st_gid) {
        return Err(refused(path, "can be written to by others").hint(format!("chmod go-w {}", path.display())));
    }
    Ok(Some(fd))
}

/// True for root's uid. Where the namespace has no name for root, as for an ordinary user's own network, root is who owns `/`.
pub(super) fn is_root(uid: u32, path: &Path) -> Result<bool> {
    let root = || std::fs::symlink_metadata("/").map_err(|e| Error::io("open", path, &e));
    Ok(uid == 0 || uid == root()?.uid())
}

/// True if a group other than the caller's and root's, or everybody, may write.
fn others_may_write(mode: u32, gid: u32) -> bool {
    mode & 0o002 != 0 || mode & 0o020 != 0 && ![nix::unistd::getegid().as_raw(), 0].contains(&gid)
}

/// Refuses a directory that somebody else could replace, or change what is in: on the way to it, and it itself, each belongs
/// to root or the caller, and nobody else may write there. In a directory with the sticky bit, such as /tmp, everybody's things
/// are safe. What is missing is made by the caller, in a directory that has to be root's or the caller's. Links on the way are
/// followed as the kernel does.
///
/// The caller's own group counts as the caller: there are systems on which each user has a group for himself, and files are
/// writable for it.
///
/// # Errors
/// [`Code::Permission`] names the directory.
pub fn is_safe_from_others(dir: &Path) -> Result<()> {
    let mut there = dir;
    let real = loop {
        match std::fs::canonicalize(there) {
            Ok(real) => break real,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => match there.parent() {
                Some(parent) => there = parent,
                None => return Ok(()),
            },
            Err(e) => return Err(Error::io("read", there, &e)),
        }
    };
    let me = nix::unistd::geteuid().as_raw();
    let look = |at: &Path| std::fs::symlink_metadata(at).map_err(|e| Error::io("read", at, &e));
    // Where the namespace has no name for root, as for an ordinary user's own network, it is who has this.
    let root = look(Path::new("/"))?;
    for at in real.ancestors() {
        let meta = look(at)?;
        let (mode, owner) = (meta.mode(), meta.uid());
        // Whose the directory itself is, is asked where it is reached.
        if (at != real || there != dir) && owner != me && owner != 0 && owner != root.uid() {
            return Err(refused(at, &format!("belongs to user {owner}, who can replace what is in it")));
        }
        let others = others_may_write(mode, meta.gid()) && (mode & 0o002 != 0 || meta.gid() != root.gid());
        let sticky = mode & 0o1000 != 0;
        if others && !sticky {
            let mend = format!("chmod go-w {}", at.display());
            return Err(refused(at, "can be written to by others")
                .hint(format!("{mend}; or choose another directory: BG_STATE_DIR, BG_RUNTIME_DIR, BG_CACHE_DIR")));
        }
    }
    Ok(())
}

fn in_words(kind: SFlag) -> &'static str {
    match kind {
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFDIR => "a directory",
        SFlag::S_IFREG => "a regular file",
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFSOCK => "a socket",
        _ => "a device",
    }
}

fn refused(path: &Path, what: &str) -> Error {
    let path = path.display();
    Error::new(Code::Permission, format!("{path} {what}"))
        .hint(format!(
            "see who put it there (ls -ld {path}), and move it away; BG_STATE_DIR, BG_RUNTIME_DIR and BG_CACHE_DIR \
             choose other directories"
        ))
        .detail("path", path.to_string())
}

#[cfg(test)]
mod tests;
