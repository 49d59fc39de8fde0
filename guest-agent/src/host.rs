//! Connections to the host, on ports of CID 2.

use std::io::{Error, Result};
use std::time::{Duration, Instant};
use vsock::{VMADDR_CID_HOST, VsockStream};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// Connects to `port`, and `within` that time again after each error of which `again` says so.
///
/// # Errors
/// connect(2)'s last one.
pub fn connect(port: u32, within: Duration, again: impl Fn(&Error) -> bool) -> Result<VsockStream> {
    let deadline = Instant::now() + within;
    loop {
        match VsockStream::connect_with_cid_port(VMADDR_CID_HOST, port) {
            Err(e) if again(&e) && Instant::now() < deadline => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
}
