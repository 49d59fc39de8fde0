//! What is left of a program that has ended: its status in words, and the end of what it printed.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// `exit 1` or `signal 9`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown end".into(),
    }
}

/// Reads a pipe to its end and keeps the last `keep` bytes of what came.
pub(super) fn tail(mut pipe: impl Read, keep: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = pipe.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..n]);
        if kept.len() > keep {
            kept.drain(..kept.len() - keep);
        }
    }
    kept
}
