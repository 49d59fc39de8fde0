//! Accepting connections, a thread each, and never more than there are slots. Where none is free, the connection that has
//! waited longest for its client makes room: slow clients keep nobody out.

use nix::sys::socket::{Shutdown, shutdown};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A connection's thread needs little; address space it does not touch costs nothing.
pub const STACK_BYTES: usize = 128 * 1024;

/// After an error such as no descriptors left. The listener stays readable meanwhile, so without it this would spin.
const BACK_OFF: Duration = Duration::from_millis(100);

/// A client has as long as this to say what it wants, before another may have its slot.
const GRACE: Duration = Duration::from_millis(20);

/// How long a connection that has to make room may take to do so.
const ROOM_WITHIN: Duration = Duration::from_secs(1);

/// A listening socket of any family.
pub trait Accept {
    /// Its connections.
    type Conn: AsFd + Send + 'static;
    /// The next connection.
    fn accept(&self) -> io::Result<Self::Conn>;
}

/// How many connections may be held at once.
pub struct Slots {
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    free: usize,
    /// The number of the last slot that was taken.
    last: u64,
    /// Who waits for a client, by their slots' numbers: who came first is first.
    waiting: BTreeMap<u64, Awaited>,
    /// Those that were told to make room and have not done so yet.
    ending: Vec<u64>,
}

/// A client that is waited for.
struct Awaited {
    socket: RawFd,
    since: Instant,
}

/// One held connection; dropping it frees the slot.
pub struct Slot {
    slots: Arc<Slots>,
    number: u64,
}

/// A connection that waits for its client, until this is dropped.
pub struct Waiting<'a>(&'a Slot);

impl Slots {
    /// `count` free slots.
    pub fn new(count: usize) -> Self {
        let state = State { free: count, last: 0, waiting: BTreeMap::new(), ending: vec![] };
        Slots { state: Mutex::new(state), freed: Condvar::new() }
    }

    /// What a thread that panicked left is whole: no code between a lock and its end can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot such that `reserve` are still free, for which connections that wait for their clients are ended; `None` where
    /// there are none of these.
    pub fn take(self: &Arc<Self>, reserve: usize) -> Option<Slot> {
        let deadline = Instant::now() + ROOM_WITHIN;
        let mut state = self.state();
        loop {
            if state.free > reserve {
                state.free -= 1;
                state.last += 1;
                return Some(Slot { slots: Arc::clone(self), number: state.last });
            }
            let now = Instant::now();
            let until = if state.free + state.ending.len() > reserve {
                deadline
            } else {
                let (&number, &Awaited { socket, since }) = state.waiting.first_key_value()?;
                let grace = since + GRACE;
                if grace <= now {
                    // It reads the end of its input, and ends. The socket is open as long as it is listed here.
                    let _ = shutdown(socket, Shutdown::Read);
                    state.waiting.pop_first();
                    state.ending.push(number);
                    continue;
                }
                grace
            };
            if now >= deadline {
                return None;
            }
            let waited = self.freed.wait_timeout(state, until.min(deadline).saturating_duration_since(now));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Slot {
    /// Says that its connection waits for its client now, and may be ended in favour of another.
    pub fn waits<'a>(&'a self, socket: BorrowedFd<'a>) -> Waiting<'a> {
        let awaited = Awaited { socket: socket.as_raw_fd(), since: Instant::now() };
        self.slots.state().waiting.insert(self.number, awaited);
        Waiting(self)
    }
}

impl Waiting<'_> {
    /// Whether it has to make room, and its input was ended for that.
    pub fn is_ended(&self) -> bool {
        self.0.slots.state().ending.contains(&self.0.number)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.slots.state().waiting.remove(&self.0.number);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.state();
        state.free += 1;
        state.ending.retain(|number| *number != self.number);
        self.slots.freed.notify_all();
    }
}

/// Hands each connection to `handle` in a thread of its own, as long as more than `reserve` slots are free or can be freed;
/// one too many goes to `refuse`, which must not wait.
pub fn serve<L: Accept>(
    listener: &L,
    (slots, reserve): (&Arc<Slots>, usize),
    refuse: impl Fn(L::Conn),
    handle: impl Fn(L::Conn, &Slot) + Send + Sync + 'static,
) -> ! {
    let handle = Arc::new(handle);
    let mut complained = false;
    loop {
        let conn = match listener.accept() {
            Ok(conn) => conn,
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => continue,
            Err(e) => {
                back_off("accept a connection", &e, &mut complained);
                continue;
            }
        };
        let Some(slot) = slots.take(reserve) else {
            refuse(conn);
            continue;
        };
        let handle = Arc::clone(&handle);
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            handle(conn, &slot);
            drop(slot);
        });
        match thread {
            Ok(_) => complained = false,
            Err(e) => back_off("start a thread", &e, &mut complained),
        }
    }
}

/// Complains once for a row of errors, not once each.
fn back_off(what: &str, error: &io::Error, complained: &mut bool) {
    if !*complained {
        eprintln!("guest-agent: cannot {what}: {error}");
        *complained = true;
    }
    std::thread::sleep(BACK_OFF);
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::{Mutex, mpsc};

    impl Accept for UnixListener {
        type Conn = UnixStream;
        fn accept(&self) -> io::Result<UnixStream> {
            UnixListener::accept(self).map(|(stream, _)| stream)
        }
    }

    #[test]
    fn slots_run_out_and_come_back() {
        let slots = Arc::new(Slots::new(2));
        let (first, second) = (slots.take(0), slots.take(0));
        assert!(first.is_some() && second.is_some() && slots.take(0).is_none());
        drop(first);
        assert!(slots.take(1).is_none(), "the last one is reserved");
        assert!(slots.take(0).is_some());
    }

    #[test]
    fn who_waits_longest_for_its_client_makes_room() {
        let slots = Arc::new(Slots::new(2));
        let (ended, ends) = mpsc::channel();
        let clients: Vec<UnixStream> = [(1, "first"), (2, "second")]
            .into_iter()
            .map(|(n, name)| {
                let (client, conn) = UnixStream::pair().unwrap();
                let (slot, ended) = (slots.take(0).unwrap(), ended.clone());
                std::thread::spawn(move || {
                    let waiting = slot.waits(conn.as_fd());
                    let read = io::Read::read(&mut &conn, &mut [0]).unwrap();
                    ended.send((name, read, waiting.is_ended())).unwrap();
                });
                // In that order.
                let waits = || slots.state().waiting.len();
                while waits() < n {
                    std::thread::yield_now();
                }
                client
            })
            .collect();
        let third = slots.take(0);
        assert!(third.is_some());
        assert_eq!(ends.recv_timeout(Duration::from_secs(10)).unwrap(), ("first", 0, true));
        // The second one has its slot still, and its client's end is its own.
        drop(clients);
        assert_eq!(ends.recv_timeout(Duration::from_secs(10)).unwrap(), ("second", 0, false));
    }

    /// Fails as a socket does without descriptors, then yields its connections, then waits for good.
    struct Failing(Mutex<VecDeque<io::Result<UnixStream>>>);

    impl Accept for Failing {
        type Conn = UnixStream;
        fn accept(&self) -> io::Result<UnixStream> {
            let next = self.0.lock().unwrap().pop_front();
            next.unwrap_or_else(|| {
                loop {
                    std::thread::park()
                }
            })
        }
    }

    #[test]
    fn errors_and_panics_do_not_end_the_server() {
        let conn = || Ok(UnixStream::pair().unwrap().0);
        let exhausted = Err(io::Error::from_raw_os_error(nix::errno::Errno::EMFILE as i32));
        let listener = Failing(Mutex::new(VecDeque::from([exhausted, conn(), conn()])));
        let slots = Arc::new(Slots::new(64));
        let (sender, served) = mpsc::channel();
        let mut turns = VecDeque::from([true, false]);
        let turns = Mutex::new(std::mem::take(&mut turns));
        std::thread::spawn(move || {
            serve(&listener, (&slots, 0), drop, move |_, _| {
                sender.send(()).unwrap();
                let panics = turns.lock().unwrap().pop_front() == Some(true);
                assert!(!panics, "a bug in one connection");
            })
        });
        for _ in 0..2 {
            served.recv_timeout(Duration::from_secs(10)).unwrap();
        }
    }
}
