//! Whether the guest's sshd answers.

use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Where sshd listens.
pub const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 22));

/// The least time for the connection and the banner together, which is also the time where the asker says none.
pub const LEAST_WITHIN: Duration = Duration::from_secs(1);

/// The most, whatever the asker says.
pub const MOST_WITHIN: Duration = Duration::from_secs(300);

/// sshd logs every connection that ends without a login, so a good result is asked for no more often than this.
const GOOD_FOR: Duration = Duration::from_secs(2);

/// What every SSH server sends first (RFC 4253, section 4.2).
const BANNER: &[u8] = b"SSH-";

/// sshd is on this machine: it is there at once or not at all.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);

/// Slots that its relay leaves to the HTTP server. A client that vanishes can leave its relay behind (vhost-device-vsock
/// 0.3.0 does not report a reset on the host's socket), and health and shutdown must stay within reach all the same.
pub const RESERVED_SLOTS: usize = 8;

/// A connection to it.
pub fn connect() -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&ADDRESS, CONNECTS_WITHIN)?;
    // Keystrokes must not wait for each other; without it they are slower, no more.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// A check of sshd that runs at most once at a time and keeps a good result for a while.
pub struct Probe {
    address: SocketAddr,
    last: Mutex<Option<Answer>>,
}

/// What a check has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The banner of an SSH server.
    Banner,
    /// A server that took the connection and sent nothing wrong, and no whole banner in this time.
    Slow(Duration),
    /// No server, or one that is not sshd.
    Nothing,
}

#[derive(Clone, Copy)]
struct Answer {
    at: Instant,
    within: Duration,
    seen: Seen,
}

impl Probe {
    /// A check of the server at `address`.
    pub fn new(address: SocketAddr) -> Self {
        Probe { address, last: Mutex::new(None) }
    }

    /// Looks for sshd's banner, which has to come `within`. A check that is under way is waited for first; its result is
    /// shared by all who waited for it, but for a bad one that came in less time than this.
    pub fn look(&self, within: Duration) -> Seen {
        let asked = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(answer) = *last
            && match answer.seen {
                Seen::Banner => answer.at >= asked || answer.at.elapsed() < GOOD_FOR,
                _ => answer.at >= asked && answer.within >= within,
            }
        {
            return answer.seen;
        }
        let seen = look(self.address, within);
        *last = Some(Answer { at: Instant::now(), within, seen });
        seen
    }
}

fn look(address: SocketAddr, within: Duration) -> Seen {
    let deadline = Instant::now() + within;
    let Ok(mut stream) = TcpStream::connect_timeout(&address, within) else {
        return Seen::Nothing;
    };
    let mut banner = [0; BANNER.len()];
    let mut filled = 0;
    while filled < banner.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Seen::Slow(within);
        }
        if stream.set_read_timeout(Some(left)).is_err() {
            return Seen::Nothing;
        }
        match stream.read(&mut banner[filled..]) {
            Ok(n @ 1..) => filled += n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Ok(_) | Err(_) => return Seen::Nothing,
        }
        if !BANNER.starts_with(&banner[..filled]) {
            return Seen::Nothing;
        }
    }
    Seen::Banner
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A server that sends `banner` to everyone, and how often it was connected to.
    fn server(banner: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&count);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = stream.unwrap().write_all(banner);
            }
        });
        (address, count)
    }

    #[test]
    fn only_an_ssh_banner_counts() {
        for (banner, seen) in [
            (&b"SSH-2.0-OpenSSH_9\r\n"[..], Seen::Banner),
            (b"SSH-", Seen::Banner),
            (b"220 mail\r\n", Seen::Nothing),
            (b"SS", Seen::Nothing),
            (b"", Seen::Nothing),
        ] {
            assert_eq!(look(server(banner).0, Duration::from_secs(10)), seen, "{banner:?}");
        }
    }

    #[test]
    fn a_silent_or_absent_server_does_not_answer() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let short = Duration::from_millis(20);
        assert_eq!(look(address, short), Seen::Slow(short));
        drop(silent);
        assert_eq!(look(address, Duration::from_secs(10)), Seen::Nothing);
    }

    #[test]
    fn a_slow_server_answers_whoever_gives_it_the_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let probe = Probe::new(listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::park_timeout(Duration::from_millis(1500));
                let _ = stream.unwrap().write_all(b"SSH-2.0-slow\r\n");
            }
        });
        assert_eq!(probe.look(LEAST_WITHIN), Seen::Slow(LEAST_WITHIN));
        assert_eq!(probe.look(Duration::from_secs(60)), Seen::Banner);
        assert_eq!(probe.look(LEAST_WITHIN), Seen::Banner, "a good answer is kept");
    }

    #[test]
    fn a_good_answer_is_kept_and_a_bad_one_is_not() {
        let (address, count) = server(b"SSH-2.0-x\r\n");
        let probe = Arc::new(Probe::new(address));
        let askers: Vec<_> =
            (0..8).map(|_| Arc::clone(&probe)).map(|p| std::thread::spawn(move || p.look(LEAST_WITHIN))).collect();
        assert!(askers.into_iter().all(|asker| asker.join().unwrap() == Seen::Banner));
        assert_eq!(count.load(Ordering::SeqCst), 1);
        let (address, count) = server(b"no");
        let probe = Probe::new(address);
        assert_eq!([probe.look(LEAST_WITHIN), probe.look(LEAST_WITHIN)], [Seen::Nothing; 2]);
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }
}
