//! Locks: `flock` on a file, with a deadline, and the holder's name in the message.
//!
//! The kernel frees a lock when its holder dies, so there are no stale ones to break.

#![allow(unsafe_code)]

use super::fs::is_read_only;
use crate::error::{Code, Error, Result, sound};
use nix::errno::Errno;
use nix::libc::{LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, c_int};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two tries of [`take_until_closed`].
const PAUSE: Duration = Duration::from_millis(5);

/// A held lock; dropped, it is free. Children do not inherit it (close-on-exec).
#[derive(Debug)]
pub struct Lock {
    file: Locked,
    path: PathBuf,
}

impl Lock {
    /// Makes the lock file where it is missing and takes the lock, waiting at most `wait`. The directory must exist.
    pub fn take(path: &Path, wait: Duration) -> Result<Self> {
        let deadline = Instant::now() + wait;
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(lock) = Self::try_take(path)? {
                return Ok(lock);
            }
            super::signal::check()?;
            if Instant::now() >= deadline {
                return Err(busy(path, wait));
            }
            std::thread::sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// The lock, if nobody holds it now.
    pub fn try_take(path: &Path) -> Result<Option<Self>> {
        let mut lock = Self::try_once(path)?;
        lock.as_mut().map_or(Ok(()), Self::sign)?;
        Ok(lock)
    }

    /// The lock if nobody holds it.
    fn try_once(path: &Path) -> Result<Option<Self>> {
        let file = match Locked::take(open(path)?, LOCK_EX) {
            Ok(file) => file,
            Err(Errno::EWOULDBLOCK) => return Ok(None),
            Err(e) => return Err(Error::io("lock", path, &e.into())),
        };
        // Whoever held it may have removed the file (with the VM it belonged to): then this is a lock on nothing.
        let ours = file.0.metadata()?;
        let same = std::fs::metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (ours.dev(), ours.ino()));
        Ok(same.then(|| Lock { file, path: path.to_owned() }))
    }

    /// Writes who holds it, for the message of others.
    fn sign(&mut self) -> Result<()> {
        let tool = std::env::args_os().next().map(PathBuf::from);
        let tool = tool.as_deref().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
        let text = format!("{} {}\n", std::process::id(), tool.unwrap_or_default());
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(text.as_bytes())
        };
        // A disk that is full or read-only must not stop anybody from locking; the message of others is poorer then.
        match write(&mut self.file.0) {
            Err(e) if matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => Ok(()),
            Err(_) if is_read_only(&self.path) => Ok(()),
            other => other.map_err(|e| Error::io("write the lock", &self.path, &e)),
        }
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says that the lock file was renamed with its directory.
    pub fn moved_to(&mut self, path: PathBuf) {
        self.path = path;
    }
}

/// An open file with a lock on it. Dropped, the lock is free at once, even where somebody else has the descriptor too.
#[derive(Debug)]
struct Locked(File);

impl Locked {
    /// Never waits.
    fn take(file: File, how: c_int) -> nix::Result<Self> {
        flock(&file, how | LOCK_NB).map(|()| Locked(file))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // What else may go wrong the close makes good.
        let _ = flock(&self.0, LOCK_UN);
    }
}

/// Opens a lock file, which is made where it is missing, for its owner alone.
fn open(path: &Path) -> Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC);
    let file = options.open(path).or_else(|e| match e.kind() {
        // What may be done there, such as to end a VM, needs its lock all the same.
        ErrorKind::ReadOnlyFilesystem => options.write(false).create(false).open(path),
        _ => Err(e),
    });
    file.map_err(|e| Error::io("open the lock", path, &e))
}

/// Takes a lock that no one lets go: it is held until the file and every copy of it that a child inherited are closed. `None` if
/// another process holds it for longer than `wait`.
///
/// # Errors
/// What keeps the file from being opened or locked; a signal's.
pub fn take_until_closed(path: &Path, wait: Duration) -> Result<Option<File>> {
    let (file, deadline) = (open(path)?, Instant::now() + wait);
    loop {
        match flock(&file, LOCK_EX | LOCK_NB) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::EWOULDBLOCK) if Instant::now() >= deadline => return Ok(None),
            Err(Errno::EWOULDBLOCK) => {}
            Err(e) => return Err(Error::io("lock", path, &e.into())),
        }
        super::signal::check()?;
        std::thread::sleep(PAUSE);
    }
}

/// Calls flock(2), again where a signal has interrupted it: an interrupted call says nothing of the lock.
fn flock(file: &File, how: c_int) -> nix::Result<()> {
    loop {
        // SAFETY: a system call on a descriptor that is open for the whole call.
        match Errno::result(unsafe { nix::libc::flock(file.as_raw_fd(), how) }) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Takes the lock of an open file that is being written, until it is closed: whoever is killed has let it go. A file system
/// that has no locks is no error.
pub fn hold(file: &File) {
    let _ = flock(file, LOCK_EX | LOCK_NB);
}

/// Whether somebody holds the lock now.
///
/// # Errors
/// As [`glance`].
pub fn is_held(path: &Path) -> Result<bool> {
    Ok(glance(path)?.is_none())
}

/// A look at what a lock guards: until it is dropped nobody takes the lock. It needs no right to write.
#[derive(Debug)]
pub struct Glance(#[allow(dead_code, reason = "held, not read")] Option<Locked>);

/// A look at what a lock guards; `None` while somebody holds the lock. Without a lock file nobody is kept out.
///
/// # Errors
/// Who cannot look, since the disk is broken or no descriptor is left, does not know that nobody holds it.
pub fn glance(path: &Path) -> Result<Option<Glance>> {
    // A link or FIFO of that name is nobody's lock, and nobody waits for whoever writes to it.
    let mut options = File::options();
    options.read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(e)
            if matches!(
                Errno::from_raw(e.raw_os_error().unwrap_or(0)),
                Errno::EMFILE | Errno::ENFILE | Errno::EIO | Errno::ENOMEM
            ) =>
        {
            return Err(Error::io("look at the lock", path, &e));
        }
        Err(_) => return Ok(Some(Glance(None))),
    };
    match Locked::take(file, LOCK_SH) {
        Ok(lock) => Ok(Some(Glance(Some(lock)))),
        Err(Errno::EWOULDBLOCK) => Ok(None),
        Err(e) => Err(Error::io("look at the lock", path, &e.into())),
    }
}

/// The process that last took a lock, as it says itself; `None` where it does not.
///
/// # Errors
/// What keeps that from being read.
pub fn signer(path: &Path) -> Result<Option<i32>> {
    let text = sound(super::owned::read_text(path, 100))?;
    Ok(text.and_then(|text| text.split_whitespace().next()?.parse().ok()))
}

fn busy(path: &Path, wait: Duration) -> Error {
    let mut text = String::new();
    let _ = File::open(path).and_then(|f| f.take(100).read_to_string(&mut text));
    let holder = match text.split_whitespace().collect::<Vec<_>>()[..] {
        [pid, tool] => format!("{tool} (pid {pid})"),
        _ => "another process".into(),
    };
    Error::new(Code::LockBusy, format!("{holder} has held the lock for {} s", wait.as_secs_f32()))
        .hint("wait for it to end, or set BG_LOCK_WAIT to more seconds")
        .detail("lock", path.display().to_string())
        .detail("holder", text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_waits_names_the_first_and_gets_it_after() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::take(&path, Duration::ZERO).unwrap();
        assert!(is_held(&path).unwrap());
        let e = Lock::take(&path, Duration::from_millis(5)).unwrap_err();
        assert_eq!(e.code(), Code::LockBusy);
        assert!(e.message().contains(&format!("pid {}", std::process::id())), "{e}");
        assert!(glance(&path).unwrap().is_none() && Lock::try_take(&path).unwrap().is_none());
        drop(first);
        let look = glance(&path).unwrap().unwrap();
        assert!(!is_held(&path).unwrap(), "two may look at once");
        assert!(Lock::try_take(&path).unwrap().is_none(), "nobody begins while somebody looks");
        drop(look);
        Lock::take(&path, Duration::ZERO).unwrap();
    }

    #[test]
    fn a_lock_on_a_removed_file_is_taken_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::take(&path, Duration::ZERO).unwrap();
        std::fs::remove_file(&path).unwrap();
        Lock::take(&path, Duration::ZERO).unwrap();
        drop(first);
    }
}
