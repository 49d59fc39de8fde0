//! Random bytes from the kernel.

use crate::error::Result;
use std::io::Read;

/// 32 random hexadecimal digits: the id of a VM or of a staging directory.
pub fn random_id() -> Result<String> {
    use std::fmt::Write;
    let mut bytes = [0; 16];
    fs_err::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    }))
}

/// A random number.
pub fn random_number() -> Result<u64> {
    let mut bytes = [0; 8];
    fs_err::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
