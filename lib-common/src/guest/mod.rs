//! Clients of a running guest: its vsock, the agent's HTTP, its sshd. Asks and relays; keeps no state but the keys,
//! and starts no process.
//!
//! The guest is hostile: whatever it sends is bounded in size and time and parsed strictly, and its text carries no
//! control characters from here on.

pub mod http;
pub mod live;
pub mod ssh;
mod timed;
pub mod vsock;

use crate::error::{Code, Error};

/// The error of every guest that does not answer as it should.
fn unreachable(message: impl Into<String>) -> Error {
    Error::new(Code::GuestUnreachable, message)
}

#[cfg(test)]
pub(crate) mod fake;
