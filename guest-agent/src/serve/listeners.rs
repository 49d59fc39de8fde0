//! What listens in this guest: `/listeners`. Whatever cannot be read or understood is left out, never an error.
//!
//! Source of the format: proc(5), /proc/net/tcp and /proc/net/udp; net/ipv4/tcp_ipv4.c and net/ipv6/tcp_ipv6.c of the
//! kernel, which print an address as its 32-bit words in the machine's byte order.

use lib_common::doc::{Listener, Listeners, Protocol};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// So many listeners are told of; the answer stays under the 64 KiB that the host takes.
const MAX_LISTENERS: usize = 256;

/// No table is read further, in bytes; a kernel's lists those that listen before those that are connected.
const MAX_TABLE_BYTES: u64 = 4 << 20;

/// So many descriptors of processes are looked at for the owners of sockets.
const MAX_DESCRIPTORS: usize = 100_000;

/// A name from /proc/PID/comm has 15 bytes, unless a kernel says otherwise.
const MAX_NAME_CHARS: usize = 16;

/// TCP_LISTEN, and what UDP calls a socket without a peer: TCP_CLOSE (include/net/tcp_states.h).
const LISTENS: u8 = 0x0a;
const HAS_NO_PEER: u8 = 0x07;

/// What listens now, without this process.
pub fn gather() -> Listeners {
    let tables = [
        ("/proc/net/tcp", Protocol::Tcp),
        ("/proc/net/tcp6", Protocol::Tcp),
        ("/proc/net/udp", Protocol::Udp),
        ("/proc/net/udp6", Protocol::Udp),
    ];
    let mut sockets = vec![];
    for (path, protocol) in tables {
        if let Ok(file) = File::open(path) {
            sockets.extend(listening(BufReader::new(file.take(MAX_TABLE_BYTES)), protocol));
        }
    }
    let owners = owners(&sockets);
    bounded(sockets, &owners, std::process::id())
}

/// A line of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Socket {
    protocol: Protocol,
    port: u16,
    address: IpAddr,
    inode: u64,
}

/// Who has a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    pid: u32,
    name: String,
}

/// The sockets of a table that take connections or datagrams from anybody.
fn listening(table: impl BufRead, protocol: Protocol) -> Vec<Socket> {
    // A line that is no text ends the table: the kernel writes none.
    table.lines().map_while(Result::ok).filter_map(|line| socket(&line, protocol)).collect()
}

/// A line: `sl: local remote state queues timer retransmits uid timeout inode …`; addresses as `HEX:PORT`.
fn socket(line: &str, protocol: Protocol) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (address, port) = endpoint(fields.next()?)?;
    let (_, peer) = endpoint(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let inode = fields.nth(5)?.parse().ok()?;
    let wanted = if protocol == Protocol::Tcp { LISTENS } else { HAS_NO_PEER };
    (state == wanted && peer == 0 && port != 0).then_some(Socket { protocol, port, address, inode })
}

fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    if !address.bytes().chain(port.bytes()).all(|b| b.is_ascii_hexdigit()) || port.len() != 4 {
        return None;
    }
    let word = |digits: &str| u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes);
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(address)?)),
        32 => {
            let mut bytes = [0; 16];
            for (place, at) in bytes.chunks_mut(4).zip((0..32).step_by(8)) {
                place.copy_from_slice(&word(&address[at..at + 8])?);
            }
            // A socket of both families may be bound to an address of IPv4.
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

/// Which processes have these sockets, by the sockets' inodes. Of several the one that is seen first.
fn owners(sockets: &[Socket]) -> BTreeMap<u64, Owner> {
    let mut wanted: BTreeMap<u64, Option<Owner>> = sockets.iter().map(|s| (s.inode, None)).collect();
    let mut left = MAX_DESCRIPTORS;
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        for fd in std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten().take(left) {
            left -= 1;
            let Some(inode) = std::fs::read_link(fd.path()).ok().as_deref().and_then(inode_of) else { continue };
            if let Some(owner @ None) = wanted.get_mut(&inode) {
                let name = super::health::line(&format!("/proc/{pid}/comm"));
                *owner = Some(Owner { pid, name: name.chars().take(MAX_NAME_CHARS).collect() });
            }
        }
    }
    wanted.into_iter().filter_map(|(inode, owner)| Some((inode, owner?))).collect()
}

/// `socket:[INODE]`.
fn inode_of(link: &std::path::Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// As the answer has it: in order, each once (several sockets may share a port), without what this process has itself,
/// and not too many.
fn bounded(mut sockets: Vec<Socket>, owners: &BTreeMap<u64, Owner>, own: u32) -> Listeners {
    sockets.retain(|socket| owners.get(&socket.inode).is_none_or(|owner| owner.pid != own));
    sockets.sort();
    sockets.dedup_by_key(|s| (s.protocol, s.port, s.address));
    let omitted = sockets.len().saturating_sub(MAX_LISTENERS) as u64;
    let listener = |socket: &Socket| {
        let owner = owners.get(&socket.inode);
        Listener {
            protocol: socket.protocol,
            address: socket.address,
            port: socket.port,
            process: owner.map(|o| o.name.clone()).filter(|name| !name.is_empty()),
            pid: owner.map(|o| o.pid),
        }
    };
    Listeners { listeners: sockets.iter().take(MAX_LISTENERS).map(listener).collect(), omitted }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 11 1 ffff8 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 ffff8 100 0 0 10 0
   2: 0100007F:0016 0100007F:9C40 01 00000000:00000000 02:000A 00000000     0        0 13 2 ffff8 20 4 30 10 -1
";
    const TCP6: &str = "\
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 14 1
   1: 00000000000000000000000001000000:0277 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 15 1
   2: 0000000000000000FFFF00000100007F:0278 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 16 1
";
    const UDP: &str = "\
 1: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 17 2 ffff8 0
 2: 0100007F:A001 3500007F:0035 01 00000000:00000000 00:00000000 00000000     0        0 18 2 ffff8 0
";

    fn read(table: &str, protocol: Protocol) -> Vec<(String, u16, u64)> {
        listening(table.as_bytes(), protocol).into_iter().map(|s| (s.address.to_string(), s.port, s.inode)).collect()
    }

    #[test]
    fn the_kernels_tables_are_read() {
        let line = |address: &str, port, inode| (address.to_owned(), port, inode);
        assert_eq!(read(TCP, Protocol::Tcp), [line("127.0.0.1", 8080, 11), line("0.0.0.0", 22, 12)]);
        let v6 = [line("::", 80, 14), line("::1", 631, 15), line("127.0.0.1", 632, 16)];
        assert_eq!(read(TCP6, Protocol::Tcp), v6);
        assert_eq!(read(UDP, Protocol::Udp), [line("0.0.0.0", 68, 17)]);
    }

    #[test]
    fn odd_lines_are_left_out() {
        let good = TCP.lines().nth(1).unwrap();
        for (from, to) in [
            ("0100007F", "0100007"),
            ("0100007F", "+100007F"),
            ("0100007F", "0100007F00"),
            ("0100007F:1F90", "é100007:1F90"),
            (":1F90", ":1F900"),
            (":1F90", ""),
            (":1F90", ":0000"),
            (" 0A ", " "),
            (" 11 ", " -1 "),
            (" 11 ", " 99999999999999999999999 "),
            (good, ""),
            (good, "0:"),
        ] {
            assert_eq!(socket(&good.replacen(from, to, 1), Protocol::Tcp), None, "{from} as {to}");
        }
        for end in 0..good.find(" 11 ").unwrap() {
            assert_eq!(socket(&good[..end], Protocol::Tcp), None, "{}", &good[..end]);
        }
        assert_eq!(listening(&b"\xff\xfe\n"[..], Protocol::Tcp), []);
        for link in ["socket:[12", "socket:[x]", "pipe:[12]", "/dev/null"] {
            assert_eq!(inode_of(link.as_ref()), None);
        }
    }

    #[test]
    fn many_are_cut_off_and_doubles_and_our_own_are_not_told() {
        let socket = |n: u16, inode| Socket { protocol: Protocol::Tcp, port: n, address: [10, 0, 0, 1].into(), inode };
        let owner = |pid, name: &str| Owner { pid, name: name.into() };
        let owners = BTreeMap::from([(1, owner(7, "agent")), (2, owner(8, "web")), (3, owner(9, ""))]);
        let found = bounded(vec![socket(4, 4), socket(3, 3), socket(2, 22), socket(2, 2), socket(1, 1)], &owners, 7);
        let names: Vec<_> = found.listeners.iter().map(|l| (l.port, l.process.as_deref(), l.pid)).collect();
        assert_eq!(names, [(2, Some("web"), Some(8)), (3, None, Some(9)), (4, None, None)]);
        assert_eq!(found.omitted, 0);
        let nasty = "\u{1}".repeat(MAX_NAME_CHARS);
        let address = IpAddr::V6(Ipv6Addr::from([0xff; 16]));
        let all: Vec<Socket> = (1..=1000).map(|n| Socket { address, ..socket(50_000 + n, 2) }).collect();
        let found = bounded(all, &BTreeMap::from([(2, owner(u32::MAX, &nasty))]), 7);
        assert_eq!((found.listeners.len(), found.omitted), (MAX_LISTENERS, 744));
        assert!(serde_json::to_string(&found).unwrap().len() < 64 << 10);
    }

    #[test]
    fn real_sockets_are_found_with_their_process() {
        let tcp = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let udp = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let sockets = |path: &str, protocol| listening(BufReader::new(File::open(path).unwrap()), protocol);
        let mut all = sockets("/proc/net/tcp", Protocol::Tcp);
        all.extend(sockets("/proc/net/udp", Protocol::Udp));
        let owners = owners(&all);
        for port in [tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port()] {
            let socket = all.iter().find(|s| s.port == port).unwrap();
            assert_eq!(owners[&socket.inode].pid, std::process::id());
        }
        let told = gather();
        assert!(told.listeners.iter().all(|l| l.pid != Some(std::process::id())), "not of itself: {told:?}");
    }
}
