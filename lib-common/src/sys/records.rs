//! A file of records of one size, each with a lock of its own, so that many processes work in it and nobody waits for
//! anybody who works on another record. Knows no domain.
//!
//! The locks are the file description's (fcntl(2), `F_OFD_SETLK`): they are free when the file is closed or its holder
//! dies. Byte N of the lock's range stands for record N, wherever that lies.

use crate::error::{Error, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An open file of records of `N` bytes.
#[derive(Debug)]
pub struct Records<const N: usize> {
    file: File,
    path: PathBuf,
}

/// A record that nobody else changes now.
#[derive(Debug)]
pub struct Held<'a, const N: usize> {
    records: &'a Records<N>,
    number: u32,
}

impl<const N: usize> Records<N> {
    /// Makes the file where it is missing, with `count` records of zeros.
    pub fn create(path: &Path, count: u32) -> Result<()> {
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o644).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(path).map_err(|e| Error::io("make", path, &e))?;
        file.set_len(u64::from(count) * N as u64).map_err(|e| Error::io("make", path, &e))
    }

    /// Opens it, to read alone or to change it too.
    pub fn open(path: &Path, write: bool) -> Result<Self> {
        let file = File::options().read(true).write(write).open(path).map_err(|e| Error::io("open", path, &e))?;
        Ok(Records { file, path: path.to_owned() })
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
        match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&range_of(number, kind))) {
            Ok(_) => Ok(Some(Held { records: self, number })),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(e) => Err(Error::io("lock", &self.path, &e.into())),
        }
    }

    /// Takes the lock of a record, after whoever has it.
    pub fn lock(&self, number: u32) -> Result<Held<'_, N>> {
        loop {
            match fcntl(&self.file, FcntlArg::F_OFD_SETLKW(&range_of(number, libc::F_WRLCK))) {
                Ok(_) => return Ok(Held { records: self, number }),
                Err(Errno::EINTR) => super::signal::check()?,
                Err(e) => return Err(Error::io("lock", &self.path, &e.into())),
            }
        }
    }
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
        let _ = fcntl(&self.records.file, FcntlArg::F_OFD_SETLK(&range_of(self.number, libc::F_UNLCK)));
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
        let (a, b) = (Records::<4>::open(&path, true).unwrap(), Records::<4>::open(&path, true).unwrap());
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
                && Records::<4>::open(&path, true).unwrap().try_lock(1).unwrap().is_none()
        );
        drop(both);
        assert_eq!(b.try_lock(1).unwrap().unwrap().get().unwrap(), *b"abcd");
        assert_eq!(b.find(0..3, |_, record| record == b"abcd").unwrap(), Some(1));
        assert_eq!(b.find(2..3, |_, record| record == b"abcd").unwrap(), None);
        Records::<4>::create(&path, 3).unwrap();
        assert_eq!(a.get(1).unwrap(), *b"abcd", "what is there is kept");
    }
}
