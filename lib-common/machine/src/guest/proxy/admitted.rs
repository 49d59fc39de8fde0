//! Whom the guest may reach: hosts by exact name and port, and the addresses that such a name may stand for. Decides;
//! connects to nobody.

use lib_common::error::{Code, Error, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host by name or address, and a port. The name is in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// A name, or an address without brackets.
    pub host: String,
    /// A TCP port.
    pub port: u16,
}

/// How a host is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// `http://`: the proxy asks on the guest's behalf.
    Http,
    /// `https://`: a tunnel (CONNECT).
    Https,
}

/// Who named a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// The guest's package sources.
    Source,
    /// The user, or a test.
    Listed,
}

/// The hosts that a guest may reach. None at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admitted(BTreeMap<(HostPort, Scheme), Trust>);

impl Admitted {
    /// Admits the host of a package source's address, `http://HOST[:PORT]/…` or `https://…`; the ports 80 and 443 need
    /// not be said. `false` where that is no network address (`file:`, `cdrom:`) or means the guest itself
    /// (`127.0.0.1`), for which no proxy is asked.
    ///
    /// Such a name is only ever connected to at public addresses: a guest must not reach the host's own network by
    /// naming it. An address literal may be a private one too, but no loopback or link-local one.
    ///
    /// # Errors
    /// [`Code::BadValue`] for an http address whose host or port cannot be understood.
    pub fn add_source(&mut self, url: &str) -> Result<bool> {
        let Some((scheme, rest)) = split_scheme(url) else { return Ok(false) };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // A source may hold a login; apt sends it itself.
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let host = HostPort::parse(authority, Some(scheme.port())).ok_or_else(|| {
            Error::new(Code::BadValue, format!("`{}` names no host that can be admitted", url.escape_debug()))
        })?;
        if host.literal().is_some_and(|ip| reach(ip) == Reach::Local) || host.host == "localhost" {
            return Ok(false);
        }
        self.0.entry((host, scheme)).or_insert(Trust::Source);
        Ok(true)
    }

    /// Admits what the user lists: `HOST` for http on port 80 and https on port 443, `HOST:PORT` for both on that port.
    /// An address literal is connected to wherever it leads, loopback too; a name at public and private addresses,
    /// but never at loopback or link-local ones.
    ///
    /// # Errors
    /// [`Code::BadValue`] for anything else.
    pub fn add_host(&mut self, text: &str) -> Result<()> {
        for scheme in [Scheme::Http, Scheme::Https] {
            let host = HostPort::parse(text, Some(scheme.port())).ok_or_else(|| {
                Error::new(Code::BadValue, format!("`{}` is not a host", text.escape_debug()))
                    .hint("such as deb.debian.org, mirror.example:8080 or [::1]:8080")
            })?;
            self.0.insert((host, scheme), Trust::Listed);
        }
        Ok(())
    }

    /// Who named this host for this use, if anybody.
    pub fn trust(&self, host: &HostPort, scheme: Scheme) -> Option<Trust> {
        self.0.get(&(host.clone(), scheme)).copied()
    }

    /// The hosts and ports, sorted, for messages.
    pub fn list(&self) -> Vec<String> {
        let mut all: Vec<_> = self.0.keys().map(|(host, _)| host.to_string()).collect();
        all.dedup();
        all
    }
}

impl Scheme {
    /// Its default port.
    pub const fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// The scheme, and what follows its `//`.
fn split_scheme(url: &str) -> Option<(Scheme, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    match scheme.to_ascii_lowercase().as_str() {
        "http" => Some((Scheme::Http, rest)),
        "https" => Some((Scheme::Https, rest)),
        _ => None,
    }
}

impl HostPort {
    /// `HOST[:PORT]`, an IPv6 address in brackets (RFC 3986, section 3.2); no user, no escapes, no empty port. `None`
    /// for anything else, and without a port where there is no default for it.
    pub fn parse(text: &str, default_port: Option<u16>) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                (address.parse::<Ipv6Addr>().ok()?.to_string(), port)
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                let host = &text[..end];
                let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
                if !(1..=253).contains(&host.len()) || !host.bytes().all(allowed) {
                    return None;
                }
                (host.to_ascii_lowercase(), &text[end..])
            }
        };
        let port = match port.strip_prefix(':') {
            Some(digits) if digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
            None if port.is_empty() => default_port?,
            _ => return None,
        };
        (port != 0).then_some(HostPort { host, port })
    }

    /// The address, where the host is written as one. `127.1` and the like are not: they are looked up as names, and
    /// what they give is judged as that of any name.
    pub fn literal(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether a resolver may take the name for an address or for this machine without asking anybody: what inet_aton(3)
    /// understands, such as `127.1` and `0x7f000001`, and `localhost` with all below it (RFC 6761, section 6.3).
    pub fn is_disguised(&self) -> bool {
        if self.literal().is_some() {
            return false;
        }
        let last = self.host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        last == "localhost" || last.starts_with("0x") || last.bytes().all(|b| b.is_ascii_digit())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostPort { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Whether an admitted host may be connected to at `ip`. Whoever answers for a name chooses its addresses, so a name is
/// not enough (DNS rebinding).
pub fn may_connect(trust: Trust, host: &HostPort, ip: IpAddr) -> bool {
    match (trust, host.literal().is_some(), reach(ip)) {
        (_, _, Reach::Never) => false,
        (_, _, Reach::Public) | (Trust::Listed, true, _) => true,
        (_, _, Reach::Local) => false,
        (_, _, Reach::Private) => trust == Trust::Listed || host.literal().is_some(),
    }
}

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Public,
    /// An organisation's own network (RFC 1918, RFC 4193, RFC 6598, RFC 3879).
    Private,
    /// This machine or this link; cloud metadata services are link-local.
    Local,
    /// No single host's.
    Never,
}

fn reach(ip: IpAddr) -> Reach {
    match ip {
        IpAddr::V4(ip) => reach_v4(ip),
        IpAddr::V6(ip) => reach_v6(ip),
    }
}

fn reach_v4(ip: Ipv4Addr) -> Reach {
    let [a, b, c, _] = ip.octets();
    match (a, b, c) {
        _ if ip.is_multicast() || a >= 240 => Reach::Never,
        (0 | 127, ..) | (169, 254, _) => Reach::Local,
        // RFC 6890: protocol assignments; RFC 2544: benchmarks.
        (10, ..) | (100, 64..=127, _) | (172, 16..=31, _) | (192, 168, _) | (192, 0, 0) | (198, 18 | 19, _) => {
            Reach::Private
        }
        _ => Reach::Public,
    }
}

fn reach_v6(ip: Ipv6Addr) -> Reach {
    let s = ip.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        reach_v4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        // IPv4 in another dress: mapped and compatible (RFC 4291), NAT64 (RFC 6052), 6to4 (RFC 3056).
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Reach::Local,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        [0xff00..=0xffff, ..] => Reach::Never,
        [0xfe80..=0xfebf, ..] => Reach::Local,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] | [0x64, 0xff9b, ..] => Reach::Private,
        _ => Reach::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostPort {
        HostPort::parse(text, Some(80)).unwrap()
    }

    #[test]
    fn an_authority_is_read_strictly() {
        for (text, host, port) in [
            ("deb.debian.org", "deb.debian.org", 80),
            ("DEB.Debian.org:443", "deb.debian.org", 443),
            ("127.0.0.1:8080", "127.0.0.1", 8080),
            ("[::1]:8080", "::1", 8080),
            ("[0:0::1]", "::1", 80),
        ] {
            assert_eq!(HostPort::parse(text, Some(80)), Some(HostPort { host: host.into(), port }), "{text}");
        }
        for text in [
            "", ":80", "h:", "h:0", "h:65536", "h:+1", "h:80:90", "u@h", "u:p@h", "h h", "h%2eorg", "h\\@x", "h/",
            "[::1", "::1", "[h]", "[::1]x", "[::1]:", "h\u{e9}", "h\n", "h:8 0", "h,x",
        ] {
            assert_eq!(HostPort::parse(text, Some(80)), None, "{text:?}");
        }
        assert_eq!(HostPort::parse("h", None), None);
        assert_eq!(HostPort::parse(&"h".repeat(254), Some(80)), None);
    }

    #[test]
    fn a_source_admits_its_host_and_port_and_scheme_and_nothing_else() {
        let mut admitted = Admitted::default();
        assert!(admitted.add_source("http://Deb.Debian.org/debian").unwrap());
        assert!(admitted.add_source("https://user:secret@repo.example:8443/x?y").unwrap());
        for (text, scheme, trust) in [
            ("deb.debian.org:80", Scheme::Http, Some(Trust::Source)),
            ("deb.debian.org:80", Scheme::Https, None),
            ("deb.debian.org:443", Scheme::Https, None),
            ("deb.debian.org:8080", Scheme::Http, None),
            ("repo.example:8443", Scheme::Https, Some(Trust::Source)),
            ("x.deb.debian.org:80", Scheme::Http, None),
            ("deb.debian.org.:80", Scheme::Http, None),
            ("debian.org:80", Scheme::Http, None),
        ] {
            assert_eq!(admitted.trust(&host(text), scheme), trust, "{text} {scheme:?}");
        }
        assert_eq!(admitted.list(), ["deb.debian.org:80", "repo.example:8443"]);
        for url in [
            "file:///x",
            "cdrom:x",
            "http://127.0.0.1:99/",
            "http://[::1]/",
            "http://localhost/",
            "http://169.254.169.254/",
        ] {
            assert!(!admitted.add_source(url).unwrap(), "{url}");
        }
        assert!(admitted.add_source("http://10.0.0.1/debian").unwrap());
        for url in ["http:///x", "http://h:x/", "http://h h/"] {
            assert_eq!(admitted.add_source(url).unwrap_err().code(), Code::BadValue, "{url}");
        }
    }

    #[test]
    fn what_the_user_lists_is_admitted_both_ways() {
        let mut admitted = Admitted::default();
        admitted.add_host("mirror.example").unwrap();
        admitted.add_host("127.0.0.1:99").unwrap();
        for text in ["mirror.example:80", "127.0.0.1:99"] {
            assert_eq!(admitted.trust(&host(text), Scheme::Http), Some(Trust::Listed));
        }
        for text in ["mirror.example:443", "127.0.0.1:99"] {
            assert_eq!(admitted.trust(&host(text), Scheme::Https), Some(Trust::Listed));
        }
        assert_eq!(admitted.add_host("http://x/").unwrap_err().code(), Code::BadValue);
        assert!(admitted.add_source("http://mirror.example/").unwrap());
        assert_eq!(admitted.trust(&host("mirror.example"), Scheme::Http), Some(Trust::Listed), "no less than before");
    }

    #[test]
    fn a_name_never_leads_to_this_machine_and_a_sources_name_never_into_its_network() {
        use Trust::{Listed, Source};
        // The address; whether it may be reached by a source's name, a listed name, a source's literal, a listed one.
        for (ip, expected) in [
            ("151.101.2.132", [true, true, true, true]),
            ("203.0.113.80", [true, true, true, true]),
            ("2a04:4e42::644", [true, true, true, true]),
            ("10.1.2.3", [false, true, true, true]),
            ("172.31.0.1", [false, true, true, true]),
            ("172.32.0.1", [true, true, true, true]),
            ("192.168.1.1", [false, true, true, true]),
            ("100.100.100.200", [false, true, true, true]),
            ("fd00::1", [false, true, true, true]),
            ("127.0.0.1", [false, false, false, true]),
            ("127.9.9.9", [false, false, false, true]),
            ("0.0.0.0", [false, false, false, true]),
            ("169.254.169.254", [false, false, false, true]),
            ("::1", [false, false, false, true]),
            ("::", [false, false, false, true]),
            ("fe80::1", [false, false, false, true]),
            ("::ffff:127.0.0.1", [false, false, false, true]),
            ("::ffff:10.0.0.1", [false, true, true, true]),
            ("::ffff:151.101.2.132", [true, true, true, true]),
            ("64:ff9b::7f00:1", [false, false, false, true]),
            ("2002:7f00:1::", [false, false, false, true]),
            ("::7f00:1", [false, false, false, true]),
            ("224.0.0.1", [false, false, false, false]),
            ("255.255.255.255", [false, false, false, false]),
            ("ff02::1", [false, false, false, false]),
        ] {
            let address: IpAddr = ip.parse().unwrap();
            let literal = HostPort { host: address.to_string(), port: 80 };
            let name = host("mirror.example");
            let found = [(Source, &name), (Listed, &name), (Source, &literal), (Listed, &literal)]
                .map(|(trust, host)| may_connect(trust, host, address));
            assert_eq!(found, expected, "{ip}");
        }
        assert_eq!(host("127.1").literal(), None, "an address in disguise is a name");
        for (name, expected) in [
            ("127.1", true),
            ("127.0.0.1.", true),
            ("127.0.0.01", true),
            ("2130706433", true),
            ("0x7f000001", true),
            ("127.0.0.0X1", true),
            ("017700000001", true),
            ("localhost", true),
            ("a.LocalHost.", true),
            (".", true),
            ("127.0.0.1", false),
            ("[::1]", false),
            ("1.example", false),
            ("localhost.example", false),
            ("notlocalhost", false),
            ("mirror0x1", false),
        ] {
            assert_eq!(host(name).is_disguised(), expected, "{name}");
        }
        assert!(!may_connect(Listed, &host("0x7f.1"), Ipv4Addr::LOCALHOST.into()));
    }
}
