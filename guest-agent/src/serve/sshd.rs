//! Whether the guest's sshd answers.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Where sshd listens.
pub const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 22));

/// For the connection and the banner together.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

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

#[derive(Clone, Copy)]
struct Answer {
    at: Instant,
    good: bool,
}

impl Probe {
    /// A check of the server at `address`.
    pub fn new(address: SocketAddr) -> Self {
        Probe { address, last: Mutex::new(None) }
    }

    /// Whether sshd sends its banner. Takes at most two seconds: one for a check under way, whose result is shared by all
    /// who waited for it, and one for a check of its own.
    pub fn answers(&self) -> bool {
        let asked = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(answer) = *last
            && (answer.at >= asked || (answer.good && answer.at.elapsed() < GOOD_FOR))
        {
            return answer.good;
        }
        let good = has_banner(self.address, ANSWERS_WITHIN);
        *last = Some(Answer { at: Instant::now(), good });
        good
    }
}

fn has_banner(address: SocketAddr, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    let Ok(mut stream) = TcpStream::connect_timeout(&address, within) else {
        return false;
    };
    let mut banner = [0; BANNER.len()];
    let mut filled = 0;
    while filled < banner.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return false;
        }
        match stream.read(&mut banner[filled..]) {
            Ok(0) | Err(_) => return false,
            Ok(n) => filled += n,
        }
    }
    banner == BANNER
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
        for (banner, good) in [
            (&b"SSH-2.0-OpenSSH_9\r\n"[..], true),
            (b"SSH-", true),
            (b"220 mail\r\n", false),
            (b"SS", false),
            (b"", false),
        ] {
            assert_eq!(has_banner(server(banner).0, Duration::from_secs(10)), good, "{banner:?}");
        }
    }

    #[test]
    fn a_silent_or_absent_server_does_not_answer() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        assert!(!has_banner(address, Duration::from_millis(20)));
        drop(silent);
        assert!(!has_banner(address, Duration::from_secs(10)));
    }

    #[test]
    fn a_good_answer_is_kept_and_a_bad_one_is_not() {
        let (address, count) = server(b"SSH-2.0-x\r\n");
        let probe = Arc::new(Probe::new(address));
        let askers: Vec<_> =
            (0..8).map(|_| Arc::clone(&probe)).map(|p| std::thread::spawn(move || p.answers())).collect();
        assert!(askers.into_iter().all(|asker| asker.join().unwrap()));
        assert_eq!(count.load(Ordering::SeqCst), 1);
        let (address, count) = server(b"no");
        let probe = Probe::new(address);
        assert!(!probe.answers() && !probe.answers());
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }
}
