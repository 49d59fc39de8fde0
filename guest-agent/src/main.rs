//! banger's one binary inside a guest: `/init` of the initrd, and the agent that it leaves behind.
//!
//! Started as process 1, or under a name that ends in `init`, it is the first; `guest-agent serve` is the second;
//! `guest-agent hosts` is for the host, which runs it by SSH; `booted` and `login-first` are for the units that `/init` made.

mod booted;
mod host;
mod hosts;
mod init;
mod login_first;
mod power;
mod serve;

use std::process::ExitCode;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// In the agent's directory: what `/init` could not do, what somebody should see to, and what it has done; one line each.
const PROBLEMS_FILE: &str = "problems";
const WARNINGS_FILE: &str = "warnings";
const NOTES_FILE: &str = "notes";

/// In the agent's directory: the public keys that root logs in by, one a line.
const KEYS_FILE: &str = "authorized-keys";

/// In the agent's directory: what the second disk is, by its word in the identity.
const SECOND_DISK_FILE: &str = "second-disk";

/// In the agent's directory: the loopback port to offer the package proxy on, in decimal. No file, no proxy.
const PROXY_PORT_FILE: &str = "proxy-port";

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    if std::process::id() == 1 || name.as_encoded_bytes().ends_with(b"init") {
        return init::main();
    }
    match (args.next().as_deref().and_then(|a| a.to_str()), args.next()) {
        (Some("serve"), None) => serve::main(),
        (Some("booted"), None) => booted::main(),
        (Some("login-first"), None) => login_first::main(),
        (Some("hosts"), None) => hosts::main(),
        (Some("--version"), None) => {
            println!("guest-agent {VERSION}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: guest-agent serve | booted | login-first | hosts | --version");
            ExitCode::from(64)
        }
    }
}
