//! Regular files that root or the caller keeps for everybody to read: opened without waiting for anybody, whatever lies in
//! their place. Knows no domain.
//!
//! Other users' files are refused: who could write them could also say anything in them.

use super::owned;
use crate::error::{Code, Error, Result};
use nix::errno::Errno;
use nix::libc;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Opens it, to read alone or to change it too. `None` where nothing is there.
///
/// # Errors
/// [`Code::BadInput`] for what is no regular file, which is not waited for, and [`Code::Permission`] for another user's.
pub fn open(path: &Path, write: bool) -> Result<Option<(File, Metadata)>> {
    let mut options = File::options();
    options.read(true).write(write).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(e) => {
            return match Errno::from_raw(e.raw_os_error().unwrap_or(0)) {
                Errno::ENOENT => Ok(None),
                // A symbolic link; a directory; a socket.
                Errno::ELOOP | Errno::EISDIR | Errno::ENXIO => Err(not_plain(path)),
                _ => Err(Error::io("open", path, &e)),
            };
        }
    };
    let meta = file.metadata().map_err(|e| Error::io("open", path, &e))?;
    if !meta.is_file() {
        return Err(not_plain(path));
    }
    let me = nix::unistd::geteuid().as_raw();
    if meta.uid() != me && !owned::is_root(meta.uid(), path)? {
        let message = format!("{} belongs to user {}, and you are user {me}", path.display(), meta.uid());
        return Err(Error::new(Code::Permission, message));
    }
    Ok(Some((file, meta)))
}

/// Opens a regular file that the user names, to read it: a document, a list, a key, a kernel. The user chooses whose it is, and may
/// name a link.
///
/// # Errors
/// [`Code::MissingFile`]; [`Code::BadInput`] for a FIFO, a device, a socket or a directory: none of them is waited for or read.
pub fn named(path: &Path) -> Result<File> {
    let io = |e: &std::io::Error| Error::io("read", path, e);
    let file = match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(io(&e).with_code(Code::MissingFile)),
        // A socket.
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => return Err(not_plain(path)),
        Err(e) => return Err(io(&e)),
    };
    if file.metadata().map_err(|e| io(&e))?.is_file() { Ok(file) } else { Err(not_plain(path)) }
}

/// Opens a regular file that the user names, to append to it. It must be there.
///
/// # Errors
/// As [`named`].
pub fn append_named(path: &Path) -> Result<File> {
    let io = |e: &std::io::Error| Error::io("write", path, e);
    let file = match File::options().append(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(io(&e).with_code(Code::MissingFile)),
        // A socket, or a FIFO without a reader.
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => return Err(not_plain(path)),
        Err(e) => return Err(io(&e)),
    };
    if file.metadata().map_err(|e| io(&e))?.is_file() { Ok(file) } else { Err(not_plain(path)) }
}

/// Reads a regular file that the user names; more than `limit` bytes are refused.
///
/// # Errors
/// As [`named`]; [`Code::BadInput`] for a longer file.
pub fn read_named(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    let read = named(path)?.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|e| Error::io("read", path, &e))?;
    if bytes.len() as u64 > limit {
        let limit = crate::size::bytes(limit);
        return Err(Error::new(Code::BadInput, format!("{} is larger than {limit}", path.display())));
    }
    Ok(bytes)
}

/// Its content as text, at most `limit` bytes of it.
///
/// # Errors
/// As [`open`], and [`Code::Io`].
pub fn read_text(path: &Path, limit: u64) -> Result<Option<String>> {
    let Some((file, _)) = open(path, false)? else { return Ok(None) };
    let mut bytes = vec![];
    file.take(limit).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, &e))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn not_plain(path: &Path) -> Error {
    Error::new(Code::BadInput, format!("{} is not a regular file", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_is_opened_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "content").unwrap();
        assert_eq!(read_text(&at("file"), 4).unwrap().as_deref(), Some("cont"));
        assert!(read_text(&at("none"), 4).unwrap().is_none());
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        std::fs::create_dir(at("dir")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for name in ["link", "dir", "fifo", "socket"] {
            for write in [false, true] {
                let e = open(&at(name), write).unwrap_err();
                assert!(e.code() == Code::BadInput && e.message().contains(name), "{name}: {e}");
            }
        }
        assert_eq!(read_named(&at("link"), 7).unwrap(), b"content", "the user may name a link");
        for (name, code) in
            [("dir", Code::BadInput), ("fifo", Code::BadInput), ("socket", Code::BadInput), ("none", Code::MissingFile)]
        {
            assert_eq!(named(&at(name)).unwrap_err().code(), code, "{name}");
        }
        for name in ["fifo", "socket", "none", "dir"] {
            assert!(append_named(&at(name)).is_err(), "{name}");
        }
        assert_eq!(named(Path::new("/dev/zero")).unwrap_err().code(), Code::BadInput);
        assert_eq!(read_named(&at("file"), 6).unwrap_err().code(), Code::BadInput);
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(at("file"), Some(12345), None).unwrap();
            assert_eq!(open(&at("file"), false).unwrap_err().code(), Code::Permission);
        }
    }
}
