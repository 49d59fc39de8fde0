//! Accepting connections, a thread each, and never more than there are slots.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A connection's thread needs little; address space it does not touch costs nothing.
pub const STACK_BYTES: usize = 128 * 1024;

/// After an error such as no descriptors left. The listener stays readable meanwhile, so without it this would spin.
const BACK_OFF: Duration = Duration::from_millis(100);

/// A listening socket of any family.
pub trait Accept {
    /// Its connections.
    type Conn: AsFd + Send + 'static;
    /// The next connection.
    fn accept(&self) -> io::Result<Self::Conn>;
}

/// How many connections may be held at once.
pub struct Slots {
    free: AtomicUsize,
}

/// One held connection; dropping it frees the slot.
pub struct Slot(Arc<Slots>);

impl Slots {
    /// `count` free slots.
    pub fn new(count: usize) -> Self {
        Slots { free: AtomicUsize::new(count) }
    }

    /// A slot, if more than `reserve` are free.
    pub fn take(self: &Arc<Self>, reserve: usize) -> Option<Slot> {
        let less = |free: usize| free.checked_sub(1).filter(|left| *left >= reserve);
        self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).ok().map(|_| Slot(Arc::clone(self)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Ordering::AcqRel);
    }
}

/// Hands each connection to `handle` in a thread of its own, as long as more than `reserve` slots are free; one too
/// many goes to `refuse`, which must not wait.
pub fn serve<L: Accept>(
    listener: &L,
    (slots, reserve): (&Arc<Slots>, usize),
    refuse: impl Fn(L::Conn),
    handle: impl Fn(L::Conn) + Send + Sync + 'static,
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
            handle(conn);
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
            serve(&listener, (&slots, 0), drop, move |_| {
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
