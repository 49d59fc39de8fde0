//! The files that the starter wrote for the shim: strict, and of this VM.

use lib_common::doc::Launch;
use lib_common::error::{Code, Context, Error, Result};
use std::path::Path;

/// Refuses to remove a directory, at the end, that is not this VM's.
pub(super) fn check(launch: &Launch) -> Result<()> {
    let id = &launch.machine_id;
    let fine = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if fine && launch.runtime_dir.file_name().is_some_and(|name| name == &id[..12]) {
        return Ok(());
    }
    let message = format!("{} is not the runtime directory of the VM `{}`", launch.runtime_dir, id.escape_debug());
    Err(Error::new(Code::BadDocument, message))
}

pub(super) fn read_strict<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    // It may hold the guest's host key.
    let text = zeroize::Zeroizing::new(fs_err::read_to_string(path)?);
    lib_common::doc::strict(&text).context(format!("{} is not as it should be", path.display()))
}
