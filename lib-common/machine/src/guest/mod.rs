//! Clients of a running guest: its vsock, the agent's HTTP, its sshd; and the one server that it has, the package proxy.
//! Asks and relays; keeps no state but the keys and the proxy's downloads, and starts no process.
//!
//! The guest is hostile: whatever it sends is bounded in size and time and parsed strictly, and its text carries no
//! control characters from here on.

pub mod card;
pub mod http;
pub mod live;
pub mod proxy;
pub mod ssh;
mod timed;
pub mod vsock;

use lib_common::error::{Code, Error};

/// The error of every guest that does not answer as it should.
pub fn unreachable(message: impl Into<String>) -> Error {
    Error::new(Code::GuestUnreachable, message)
}

#[cfg(any(test, feature = "testing"))]
pub mod fake;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
