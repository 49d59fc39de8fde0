//! A file of records of one size, each with a lock of its own, so that many processes work in it and nobody waits for
//! anybody who works on another record. Knows no domain.
//!
//! The locks are the file description's (fcntl(2), `F_OFD_SETLK`): they are free when the file is closed or its holder
//! dies. Byte N of the lock's range stands for record N, wherever that lies. They are on a file of its own beside that of the
//! records, `NAME.lock`, which nobody else may open: whoever may read a file can lock it, and hold up those who change it.

use super::plain;
use crate::error::{Code, Error, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a lock is waited for, unless it is said. They are held for some system calls.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Between two tries, at most.
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// An open file of records of `N` bytes.
#[derive(Debug)]
pub struct Records<const N: usize> {
    file: File,
    path: PathBuf,
    locks: OnceLock<File>,
    wait: Duration,
}

/// A record that nobody else changes now.
#[derive(Debug)]
pub struct Held<'a, const N: usize> {
    records: &'a Records<N>,
    number: u32,
}

impl<const N: usize> Records<N> {
    /// Makes the file where it is missing, with `count` records of zeros. Everybody may read it, whatever the umask is. What has
    /// another size or is no file at all goes: nobody can tell what is where in it.
    pub fn create(path: &Path, count: u32) -> Result<()> {
        Self::clear_the_way(path, count)?;
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o644).custom_flags(libc::O_NOFOLLOW);
        let make = || {
            let file = options.open(path)?;
            file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
            file.set_len(Self::size(count))
        };
        make().map_err(|e| Error::io("make", path, &e))
    }

    fn clear_the_way(path: &Path, count: u32) -> Result<()> {
        match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => super::fs::remove_dir(path),
            Ok(meta) if !meta.is_file() || meta.len() != Self::size(count) => super::fs::remove_file(path),
            // What cannot be looked at cannot be made either, which is told then.
            _ => Ok(()),
        }
    }

    fn size(count: u32) -> u64 {
        u64::from(count) * N as u64
    }

    /// Removes it with its locks; one that is gone already is fine.
    pub fn remove(path: &Path) -> Result<()> {
        super::fs::remove_file(path)?;
        super::fs::remove_file(&locks_of(path))
    }

    /// Opens it with its `count` records, to read alone or to change it too.
    ///
    /// # Errors
    /// As [`plain::open`]; also [`Code::MissingFile`], and [`Code::BadInput`] for a file of another size.
    pub fn open(path: &Path, count: u32, write: bool) -> Result<Self> {
        let missing = || Error::new(Code::MissingFile, format!("{} is missing", path.display()));
        let (file, meta) = plain::open(path, write)?.ok_or_else(missing)?;
        let (is, wanted) = (meta.len(), Self::size(count));
        if is != wanted {
            let message = format!("{} is damaged: it has {is} bytes, not {wanted}", path.display());
            return Err(Error::new(Code::BadInput, message));
        }
        Ok(Records { file, path: path.to_owned(), locks: OnceLock::new(), wait: LOCK_WAIT })
    }

    /// Waits that long for a lock.
    pub fn waiting(self, wait: Duration) -> Self {
        Records { wait, ..self }
    }

    /// The file that the locks are on.
    fn locks(&self) -> Result<&File> {
        if let Some(file) = self.locks.get() {
            return Ok(file);
        }
        let path = locks_of(&self.path);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path).map_err(|e| Error::io("open", &path, &e))?;
        Ok(self.locks.get_or_init(|| file))
    }

    /// A record.
    pub fn get(&self, number: u32) -> Result<[u8; N]> {
        let mut record = [0; N];
        let read = self.file.read_exact_at(&mut record, u64::from(number) * N as u64);
        read.map_err(|e| Error::io("read", &self.path, &e))?;
        Ok(record)
    }

    /// The number of the first record of a range that is as `wanted`. Read 4 KiB at a time, into memory that is there:
    /// one that somebody changes meanwhile may be half old and half new, so look again under its lock.
    pub fn find(&self, range: Range<u32>, mut wanted: impl FnMut(u32, &[u8; N]) -> bool) -> Result<Option<u32>> {
        let mut buffer = [0; 4096];
        let mut next = range.start;
        while next < range.end {
            let count = (range.end - next).min((buffer.len() / N) as u32);
            let bytes = &mut buffer[..count as usize * N];
            let read = self.file.read_exact_at(bytes, u64::from(next) * N as u64);
            read.map_err(|e| Error::io("read", &self.path, &e))?;
            let mut numbered = (next..).zip(bytes.as_chunks().0);
            if let Some((number, _)) = numbered.find(|(number, record)| wanted(*number, record)) {
                return Ok(Some(number));
            }
            next += count;
        }
        Ok(None)
    }

    /// Changes a record without its lock, for what is only a hint.
    pub fn put(&self, number: u32, record: &[u8; N]) -> Result<()> {
        let written = self.file.write_all_at(record, u64::from(number) * N as u64);
        written.map_err(|e| Error::io("write", &self.path, &e))
    }

    /// Takes the lock of a record, if nobody has it. The record itself need not be there.
    pub fn try_lock(&self, number: u32) -> Result<Option<Held<'_, N>>> {
        self.try_take(number, libc::F_WRLCK)
    }

    /// Takes the lock of a record together with others who share it, if nobody has it alone.
    pub fn try_share(&self, number: u32) -> Result<Option<Held<'_, N>>> {
        self.try_take(number, libc::F_RDLCK)
    }

    fn try_take(&self, number: u32, kind: i32) -> Result<Option<Held<'_, N>>> {
        match fcntl(self.locks()?, FcntlArg::F_OFD_SETLK(&range_of(number, kind))) {
            Ok(_) => Ok(Some(Held { records: self, number })),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(e) => Err(Error::io("lock", &locks_of(&self.path), &e.into())),
        }
    }

    /// Takes the lock of a record, after whoever has it.
    ///
    /// # Errors
    /// [`Code::LockBusy`] where it is not free in time. The kernel does not say who has such a lock.
    pub fn lock(&self, number: u32) -> Result<Held<'_, N>> {
        let deadline = Instant::now() + self.wait;
        let mut pause = Duration::from_micros(100);
        loop {
            if let Some(held) = self.try_lock(number)? {
                return Ok(held);
            }
            super::signal::check()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let (path, wait) = (locks_of(&self.path), self.wait.as_secs_f32());
                let message = format!("another process has held the lock of record {number} for {wait} s");
                return Err(Error::new(Code::LockBusy, message)
                    .hint(format!(
                        "see who has {0} open (fuser {0}), or set BG_LOCK_WAIT to more seconds",
                        path.display()
                    ))
                    .detail("lock", path.display().to_string()));
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

fn locks_of(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

impl<const N: usize> Held<'_, N> {
    /// Which record.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The record as it is now.
    pub fn get(&self) -> Result<[u8; N]> {
        self.records.get(self.number)
    }

    /// Changes the record.
    pub fn put(&self, record: &[u8; N]) -> Result<()> {
        self.records.put(self.number, record)
    }
}

impl<const N: usize> Drop for Held<'_, N> {
    fn drop(&mut self) {
        // It cannot fail: the descriptor is open and the range is ours.
        if let Some(locks) = self.records.locks.get() {
            let _ = fcntl(locks, FcntlArg::F_OFD_SETLK(&range_of(self.number, libc::F_UNLCK)));
        }
    }
}

fn range_of(number: u32, kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: i64::from(number),
        l_len: 1,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_record_is_nobody_elses_and_its_neighbour_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        Records::<4>::create(&path, 3).unwrap();
        let (a, b) = (Records::<4>::open(&path, 3, true).unwrap(), Records::<4>::open(&path, 3, true).unwrap());
        let held = a.try_lock(1).unwrap().unwrap();
        held.put(b"abcd").unwrap();
        assert!(b.try_lock(1).unwrap().is_none());
        assert!(b.try_lock(2).unwrap().is_some() && b.try_lock(0).unwrap().is_some());
        assert!(b.try_share(1).unwrap().is_none());
        drop(held);
        let both = (a.try_share(1).unwrap(), b.try_share(1).unwrap());
        assert!(
            both.0.is_some()
                && both.1.is_some()
                && Records::<4>::open(&path, 3, true).unwrap().try_lock(1).unwrap().is_none()
        );
        drop(both);
        assert_eq!(b.try_lock(1).unwrap().unwrap().get().unwrap(), *b"abcd");
        assert_eq!(b.find(0..3, |_, record| record == b"abcd").unwrap(), Some(1));
        assert_eq!(b.find(2..3, |_, record| record == b"abcd").unwrap(), None);
        Records::<4>::create(&path, 3).unwrap();
        assert_eq!(a.get(1).unwrap(), *b"abcd", "what is there is kept");
        let held = a.lock(2).unwrap();
        let e = b.waiting(Duration::from_millis(3)).lock(2).unwrap_err();
        assert!(e.code() == Code::LockBusy && e.message().contains("record 2 for 0.003 s"), "{e}");
        drop(held);
    }

    #[test]
    fn what_is_no_file_of_so_many_records_is_said_and_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        let opened = || Records::<4>::open(&path, 3, true).map(|records| records.get(2).unwrap());
        assert_eq!(opened().unwrap_err().code(), Code::MissingFile);
        let target = dir.path().join("target");
        std::fs::write(&target, [1; 12]).unwrap();
        let damages: [&dyn Fn(); 5] = [
            &|| std::fs::write(&path, [1; 11]).unwrap(),
            &|| std::fs::write(&path, [1; 13]).unwrap(),
            &|| std::fs::create_dir_all(path.join("below")).unwrap(),
            &|| nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            &|| std::os::unix::fs::symlink(&target, &path).unwrap(),
        ];
        for damage in damages {
            damage();
            let e = opened().unwrap_err();
            assert!(e.code() == Code::BadInput && e.message().contains("/records is "), "{e}");
            Records::<4>::create(&path, 3).unwrap();
            assert_eq!(opened().unwrap(), [0; 4]);
            std::fs::remove_file(&path).unwrap();
        }
        assert_eq!(std::fs::read(target).unwrap(), [1; 12], "what a link leads to is left alone");
    }

    #[test]
    fn who_may_only_read_the_records_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        Records::<4>::create(&path, 3).unwrap();
        let records = Records::<4>::open(&path, 3, true).unwrap();
        drop(records.try_lock(1).unwrap().unwrap());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&locks_of(&path))), (0o644, 0o600));
        // As far as another user gets: read locks on all of what may be read.
        let reader = File::open(&path).unwrap();
        let all = libc::flock { l_len: 0, ..range_of(0, libc::F_RDLCK) };
        fcntl(&reader, FcntlArg::F_OFD_SETLK(&all)).unwrap();
        assert!(records.try_lock(1).unwrap().is_some());
    }
}
