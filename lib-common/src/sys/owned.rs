//! Files and directories that are the caller's own: reached from a directory without leaving it and without a symbolic
//! link, and the caller's on every step of the way. Knows no domain.
//!
//! Source: openat2(2), `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`.

use crate::error::{Code, Error, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open as open_at_cwd, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Memory is taken for no more than this before it is needed, in bytes, whatever length a file says that it has.
const AT_ONCE: u64 = 1 << 20;

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
    let Some((found, path)) = reach(root, below.as_ref(), Wanted::File)? else { return Ok(None) };
    // What the descriptor stands for, whatever has that name by now.
    let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd()));
    file.map(Some).map_err(|e| Error::io("read", &path, &e))
}

/// Whether the directory `below`, a relative path, is there, from the directory `root`; of an empty path `root` itself.
///
/// # Errors
/// As [`open`]; also for what is no directory.
pub fn is_dir(root: &Path, below: impl AsRef<Path>) -> Result<bool> {
    Ok(reach(root, below.as_ref(), Wanted::Directory)?.is_some())
}

/// Whether a regular file is there: see [`open`].
///
/// # Errors
/// As [`open`].
pub fn is_file(path: &Path) -> Result<bool> {
    let (root, name) = split(path);
    Ok(reach(root, Path::new(name), Wanted::File)?.is_some())
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
fn reach(root: &Path, below: &Path, wanted: Wanted) -> Result<Option<(OwnedFd, PathBuf)>> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let mut path = root.to_owned();
    let mut steps = below.components().peekable();
    let wanted_now = |last: bool| if last { wanted } else { Wanted::Directory };
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
fn own(opened: nix::Result<OwnedFd>, path: &Path, wanted: Wanted) -> Result<Option<OwnedFd>> {
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
    if stat.st_uid != me {
        return Err(refused(path, &format!("belongs to user {}, and you are user {me}", stat.st_uid)));
    }
    Ok(Some(fd))
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
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn refusal(path: &Path) -> String {
        let e = read(path, 100).unwrap_err();
        assert_eq!((e.code(), e.get_hint().is_some()), (Code::Permission, true), "{e}");
        e.message().rsplit_once("/ours/").unwrap().1.to_owned()
    }

    #[test]
    fn only_plain_files_in_plain_directories_are_read() {
        let temp = tempfile::tempdir().unwrap();
        let (ours, theirs) = (temp.path().join("ours"), temp.path().join("theirs"));
        for dir in [&ours, &theirs] {
            std::fs::create_dir(dir).unwrap();
            std::fs::write(dir.join("file"), "content").unwrap();
        }
        assert_eq!(read(&ours.join("file"), 4).unwrap().unwrap(), b"cont");
        assert!(read(&ours.join("none"), 4).unwrap().is_none() && !is_dir(&ours, "none/file").unwrap());
        assert!(is_file(&ours.join("file")).unwrap() && is_dir(&ours, "").unwrap());
        symlink(theirs.join("file"), ours.join("link")).unwrap();
        symlink(&theirs, ours.join("dir")).unwrap();
        symlink("/nowhere", ours.join("dangling")).unwrap();
        nix::unistd::mkfifo(&ours.join("fifo"), Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(ours.join("socket")).unwrap();
        for (name, said) in [
            ("link", "link is a symbolic link, not a regular file"),
            ("dangling", "dangling is a symbolic link, not a regular file"),
            ("fifo", "fifo is a FIFO, not a regular file"),
            ("socket", "socket is a socket, not a regular file"),
            ("dir/file", "dir is a symbolic link, not a directory"),
        ] {
            assert_eq!(refusal(&ours.join(name)), said);
        }
        for below in ["dir/file", "dir", "../theirs", "file/x"] {
            assert_eq!(is_dir(&ours, below).unwrap_err().code(), Code::Permission, "{below}");
        }
    }

    #[test]
    fn what_is_another_users_is_refused() {
        let root = nix::unistd::geteuid().is_root();
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("ours");
        std::fs::create_dir(&dir).unwrap();
        if root {
            std::os::unix::fs::chown(&dir, Some(12345), None).unwrap();
            let e = is_dir(temp.path(), "ours").unwrap_err();
            assert!(e.message().ends_with("belongs to user 12345, and you are user 0"), "{e}");
        } else {
            assert!(is_dir(Path::new("/"), "etc").unwrap_err().message().contains("belongs to user 0"));
        }
    }
}
