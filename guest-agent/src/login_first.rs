//! `guest-agent login-first`: while somebody is just logging in, what of the boot nobody waits for waits.
//!
//! Reads the kernel's lists of TCP sockets (proc(5), `/proc/net/tcp`); over vsock a login comes through the agent's relay
//! and so is one of those, too.

use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Who waits for sshd connects within this.
const COMES_WITHIN: Duration = Duration::from_secs(1);
/// The boot waits no longer, however long the session lasts.
const MOST: Duration = Duration::from_secs(4);
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// What goes on at port 22.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Port {
    Closed,
    Listening,
    Connected,
}

/// Ends when nobody logs in or the login is over, and at the latest after [`MOST`].
pub fn main() -> ExitCode {
    let begun = Instant::now();
    let mut came = false;
    while begun.elapsed() < MOST {
        match look() {
            Port::Connected => came = true,
            Port::Listening if !came && begun.elapsed() < COMES_WITHIN => {}
            Port::Listening | Port::Closed => break,
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    ExitCode::SUCCESS
}

fn look() -> Port {
    let of_file = |path| port_22(&std::fs::read_to_string(path).unwrap_or_default());
    of_file("/proc/net/tcp").max(of_file("/proc/net/tcp6"))
}

/// The lines are `sl local_address rem_address st …`, an address being hexadecimal with `:PORT` behind it; 01 is an
/// established connection, 0A a listener.
fn port_22(table: &str) -> Port {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let ours = words.next().is_some_and(|local| local.ends_with(":0016"));
        match words.nth(1) {
            Some("01") if ours => Port::Connected,
            Some("0A") if ours => Port::Listening,
            _ => Port::Closed,
        }
    };
    table.lines().map(of_line).max().unwrap_or(Port::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_to_port_22_is_seen_and_one_from_it_elsewhere_is_not() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue\n";
        let listens = "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000\n";
        let other = "   1: 0100007F:1F90 0100007F:0016 01 00000000:00000000 00:00000000\n";
        let connected = "   2: 0100007F:0016 0100007F:1F90 01 00000000:00000000 00:00000000\n";
        assert_eq!(port_22(""), Port::Closed);
        assert_eq!(port_22(&format!("{head}{other}")), Port::Closed);
        assert_eq!(port_22(&format!("{head}{listens}{other}")), Port::Listening);
        assert_eq!(port_22(&format!("{head}{connected}{listens}{other}")), Port::Connected);
        assert_eq!(port_22("garbage\n: : :\n"), Port::Closed);
    }
}
