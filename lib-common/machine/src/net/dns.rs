//! The host's name servers, as far as guests can reach them.
//!
//! Format: resolv.conf(5).

use std::net::Ipv4Addr;
use std::path::Path;

/// Where the host says whom it asks: for itself, and where that is systemd-resolved(8), whom that asks.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// The C library looks at no more.
const MOST: usize = 3;

/// Those of the host that are not on its loopback interface, where guests do not get to.
pub fn resolvers() -> Vec<Ipv4Addr> {
    let read = |file: &&str| std::fs::read_to_string(Path::new(file)).unwrap_or_default();
    let found = FILES.iter().map(read).map(|text| parse(&text));
    found.into_iter().find(|servers| !servers.is_empty()).unwrap_or_default()
}

/// The IPv4 servers that a file names, without loopback addresses.
fn parse(text: &str) -> Vec<Ipv4Addr> {
    let server = |line: &str| line.strip_prefix("nameserver")?.split_whitespace().next()?.parse::<Ipv4Addr>().ok();
    let servers = text.lines().filter_map(server).filter(|a| !a.is_loopback() && !a.is_unspecified());
    servers.take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_guests_cannot_reach_are_none() {
        for (text, servers) in [
            (
                "# nameserver 9.9.9.9\nsearch a.example\nnameserver 192.0.2.1\nnameserver\t192.0.2.2 # two\n",
                "192.0.2.1 192.0.2.2",
            ),
            ("nameserver 127.0.0.53\noptions edns0\n", ""),
            ("nameserver ::1\nnameserver 127.0.0.1\nnameserver 192.0.2.3\n", "192.0.2.3"),
            ("nameserver a\nnameserver\nnameserver 0.0.0.0", ""),
            (
                "nameserver 1.0.0.1\nnameserver 1.0.0.2\nnameserver 1.0.0.3\nnameserver 1.0.0.4\n",
                "1.0.0.1 1.0.0.2 1.0.0.3",
            ),
        ] {
            let found: Vec<String> = parse(text).iter().map(Ipv4Addr::to_string).collect();
            assert_eq!(found.join(" "), servers, "{text}");
        }
    }
}
