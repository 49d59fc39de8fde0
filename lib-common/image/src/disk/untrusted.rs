//! Reads file systems that a guest could have written. Whatever is in them, it takes bounded time and memory, ends when a
//! signal comes, and ends this thread at most.

use super::ext4;
use super::journal;
use super::layout::Layout;
use ext4_view::{Ext4, Ext4Error, Ext4Read};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::{plain, signal};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How a block of a journal begins that names blocks which are not to be replayed, and how many of those are read: what
/// reads a journal keeps all their content.
const REVOCATION: [u8; 8] = [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 5];
const MAX_REVOCATIONS: u32 = 4096;

/// How often a thread that waits asks for signals.
const ASK: Duration = Duration::from_millis(20);

/// The thread that reads.
const THREAD: &str = "untrusted";

/// Why a file system was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is out of the bounds within which it is read.
    Refused(Error),
    /// The signal that came.
    Signal(Error),
    /// It is damaged, of a format that is not known, or not there.
    Fs(Ext4Error),
}

impl Unread {
    /// As the error of whoever wanted to do `what`.
    pub(super) fn error(self, what: String) -> Error {
        match self {
            Unread::Refused(e) => e.within(what),
            Unread::Signal(e) => e,
            Unread::Fs(e) => Error::new(Code::BadInput, what).because(&e),
        }
    }

    /// Refused, since `why`.
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Unread::Refused(Error::new(Code::BadInput, why))
    }
}

impl From<Ext4Error> for Unread {
    fn from(e: Ext4Error) -> Self {
        match e {
            Ext4Error::Io(inner) => match inner.downcast::<Error>() {
                Ok(own) => Self::from(*own),
                Err(other) => Unread::Fs(Ext4Error::Io(other)),
            },
            e => Unread::Fs(e),
        }
    }
}

impl From<Error> for Unread {
    fn from(e: Error) -> Self {
        let signal = matches!(e.code(), Code::Interrupted | Code::Terminated);
        if signal { Unread::Signal(e) } else { Unread::Refused(e) }
    }
}

/// How long a file system may be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    within: Duration,
    until: Instant,
}

impl Patience {
    /// From now on.
    pub(super) fn new(within: Duration) -> Self {
        Patience { within, until: Instant::now() + within }
    }

    /// To be asked again and again.
    ///
    /// Errors: [`Code::TimedOut`], or the signal that came.
    pub(super) fn check(&self) -> Result<()> {
        signal::check()?;
        if Instant::now() < self.until { Ok(()) } else { Err(self.over()) }
    }

    fn over(&self) -> Error {
        Error::new(Code::TimedOut, format!("it cannot be read in {:?}", self.within))
            .hint("try again; if that does not help, e2fsck says what is wrong with the disk")
    }
}

/// Opens the file system in the file `path`, of which at most `bytes` are read.
pub(super) fn open(path: &Path, patience: Patience, bytes: u64) -> Result<Ext4, Unread> {
    let file = File::open(path).map_err(|e| Unread::Fs(Ext4Error::Io(Box::new(e))))?;
    let layout = sane(&file, path)?;
    let block_size = usize::try_from(layout.block_size).unwrap_or(1024);
    Ok(Ext4::load(Box::new(Reader { file, patience, left: bytes, block_size, revocations: 0 }))?)
}

/// Whether a file system that nobody looks into further, since its journal comes first, can be one of ours.
///
/// Errors: [`Code::BadInput`] for one that cannot.
pub(super) fn ensure_sane(path: &Path) -> Result<()> {
    sane(&plain::named(path)?, path).map(drop)
}

fn sane(file: &File, path: &Path) -> Result<Layout> {
    let read = Layout::read(file).and_then(|layout| journal::check(file, &layout).map(|()| layout));
    read.map_err(|why| Error::new(Code::BadInput, why).hint(ext4::mend_command(path)))
}

/// A disk's bytes, for as long as there is patience with it.
struct Reader {
    file: File,
    patience: Patience,
    left: u64,
    block_size: usize,
    revocations: u32,
}

impl Ext4Read for Reader {
    fn read(&mut self, start: u64, bytes: &mut [u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.patience.check()?;
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left =
            left.ok_or_else(|| Error::new(Code::BadInput, "more of it would have to be read than is allowed"))?;
        self.file.read_exact_at(bytes, start)?;
        let revocations = bytes.chunks(self.block_size).filter(|block| block.starts_with(&REVOCATION)).count();
        self.revocations = self.revocations.saturating_add(u32::try_from(revocations).unwrap_or(u32::MAX));
        if self.revocations > MAX_REVOCATIONS {
            return Err(Error::new(Code::BadInput, "its journal revokes more blocks than is allowed").into());
        }
        Ok(())
    }
}

/// Reads in a thread of its own, and waits no longer than there is patience: a file system can be made so that finding a
/// block of it takes years without another byte being read. Such a thread ends with the process, and a panic in it is no
/// bug of ours but a file system that cannot be.
pub(super) fn apart<T: Send + 'static>(
    patience: Patience,
    read: impl FnOnce() -> Result<T, Unread> + Send + 'static,
) -> Result<T, Unread> {
    keep_its_panics_quiet();
    let (sender, answer) = channel();
    let reading = move || {
        let read = catch_unwind(AssertUnwindSafe(read));
        // Nobody waits for it any more where this fails.
        let _ = sender.send(read.unwrap_or_else(|_| Err(Unread::refused("its structure contradicts itself"))));
    };
    std::thread::Builder::new().name(THREAD.into()).spawn(reading).map_err(Error::from)?;
    loop {
        match answer.recv_timeout(ASK.min(patience.until.saturating_duration_since(Instant::now()))) {
            Ok(read) => return read,
            Err(RecvTimeoutError::Timeout) => patience.check()?,
            Err(RecvTimeoutError::Disconnected) => return Err(Unread::refused("its structure contradicts itself")),
        }
    }
}

/// Nothing on stderr for what a guest did to its disk.
fn keep_its_panics_quiet() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() != Some(THREAD) {
                others(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests;
