//! Digests of sparse files. The digest is that of the whole file, so a hole counts as zeros, but it is not read.

use crate::doc::Digest;
use crate::error::{Code, Error, Result};
use crate::sys::{fs::for_each_extent, signal};
use nix::errno::Errno;
use sha2::{Digest as _, Sha256};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How much is read at a time, in bytes.
const CHUNK: usize = 1 << 20;

/// SHA-256 of a whole file. With the processor's SHA instructions about 1.5 GB/s, whatever of it is holes.
///
/// Errors: [`Code::MissingFile`], [`Code::Io`], or the signal that came.
pub fn of_sparse(path: &Path) -> Result<Digest> {
    let file = std::fs::File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::io("read", path, &e).with_code(Code::MissingFile),
        _ => Error::io("read", path, &e),
    })?;
    let size = file.metadata().map_err(|e| Error::io("read", path, &e))?.len();
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let zeros = vec![0; CHUNK];
    let mut done = 0;
    let walked = for_each_extent(&file, size.cast_signed(), |start, end| {
        let (start, end) = (start.cast_unsigned(), end.cast_unsigned());
        hash_zeros(&mut hasher, &zeros, start - done)?;
        done = start;
        while done < end {
            stop_on_signal()?;
            let want = usize::try_from(end - done).unwrap_or(CHUNK).min(CHUNK);
            match file.read_at(&mut buffer[..want], done) {
                Ok(0) => return Err(Errno::EIO),
                Ok(n) => {
                    hasher.update(&buffer[..n]);
                    done += n as u64;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.raw_os_error().map_or(Errno::EIO, Errno::from_raw)),
            }
        }
        Ok(())
    });
    let walked = walked.and_then(|()| hash_zeros(&mut hasher, &zeros, size - done));
    walked.map_err(|e| signal::check().err().unwrap_or_else(|| Error::io("read", path, &e.into())))?;
    Ok(Digest::from_sha256(&hasher.finalize()))
}

fn hash_zeros(hasher: &mut Sha256, zeros: &[u8], mut count: u64) -> Result<(), Errno> {
    while count > 0 {
        stop_on_signal()?;
        let n = usize::try_from(count).unwrap_or(CHUNK).min(zeros.len());
        hasher.update(&zeros[..n]);
        count -= n as u64;
    }
    Ok(())
}

/// Gigabytes take seconds, and a signal must not wait for them.
fn stop_on_signal() -> Result<(), Errno> {
    signal::check().map_err(|_| Errno::EINTR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn holes_count_as_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for (size, data) in [(0, &[][..]), (5 << 20, &[]), (5 << 20, &[0, 3 << 20]), ((3 << 20) + 17, &[1 << 20])] {
            let file = File::create(&path).unwrap();
            file.set_len(size).unwrap();
            for at in data {
                file.write_all_at(b"data", *at).unwrap();
            }
            let whole = std::fs::read(&path).unwrap();
            assert_eq!(of_sparse(&path).unwrap(), crate::build::digest::of_bytes(&whole), "{size} {data:?}");
        }
    }
}
