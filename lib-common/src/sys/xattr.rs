//! Extended attributes, for which nix has no call. Knows no domain.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc;
use std::fs::File;
use std::os::fd::AsRawFd;

/// Whether an open file has any extended attribute; an access control list is one too.
///
/// # Errors
/// flistxattr(2)'s; a file system that knows none has none.
pub fn has_any(file: &File) -> Result<bool, Errno> {
    // SAFETY: the descriptor is open; with a size of 0 the call returns a length and writes nothing.
    match Errno::result(unsafe { libc::flistxattr(file.as_raw_fd(), std::ptr::null_mut(), 0) }) {
        Ok(bytes) => Ok(bytes > 0),
        Err(Errno::ENOTSUP) => Ok(false),
        Err(errno) => Err(errno),
    }
}
