//! What the guest of a configure boot says, line by line. It runs programs from elsewhere as root, so it is not trusted: one
//! connection, bounded lines, bounded all together.

use lib_common::doc::{ConfigureBegins, ConfigureLine, Configured};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::{poll, signal};
use lib_machine::guest::live::Live;
use lib_machine::vmm::lines::Lines;
use nix::poll::PollFlags;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

/// The longest line, in bytes: a script's output where each byte is escaped, and some.
const LONGEST: usize = 64 << 10;

/// All that it may say, in bytes as they come: blanks that a line is read without count, too.
const MOST: usize = 32 << 20;

/// The longest name of a package, and of how its script ended, in bytes.
const LONGEST_WORD: usize = 256;

/// The guest's connection, once it is there.
pub(super) struct Heard<'a> {
    listener: &'a UnixListener,
    /// To poll: readable when the VM has ended.
    vm: BorrowedFd<'a>,
    stream: Option<UnixStream>,
    lines: Lines,
    /// How much was read so far.
    bytes: usize,
}

/// A stream whose bytes are counted as they are read.
struct Counted<'a> {
    stream: &'a mut UnixStream,
    bytes: &'a mut usize,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(buffer)?;
        *self.bytes += n;
        Ok(n)
    }
}

impl<'a> Heard<'a> {
    pub(super) fn new(listener: &'a UnixListener, live: &'a Live) -> Self {
        Self::of(listener, live.ends())
    }

    fn of(listener: &'a UnixListener, vm: BorrowedFd<'a>) -> Self {
        Heard { listener, vm, stream: None, lines: Lines::new(LONGEST), bytes: 0 }
    }

    /// The next line; `None` where the guest says nothing more. A guest that never pauses is interrupted all the same.
    ///
    /// # Errors
    /// [`Code::TimedOut`] at the deadline, [`Code::BadInput`] for what is no such line, a signal's.
    pub(super) fn next(&mut self, deadline: Instant) -> Result<Option<ConfigureLine>> {
        let late = || Error::new(Code::TimedOut, "the guest says nothing more");
        loop {
            signal::check()?;
            if Instant::now() >= deadline {
                return Err(late());
            }
            if let Some(line) = self.lines.next_line() {
                let line = take(&line)?;
                // A guest that is gone by now needs no answer.
                let _ = self.stream.as_ref().map(|mut stream| stream.write(b"\n"));
                return Ok(Some(line));
            }
            let from = self.stream.as_ref().map_or(self.listener.as_fd(), AsFd::as_fd);
            let ready = poll::wait(&[(from, PollFlags::POLLIN), (self.vm, PollFlags::POLLIN)], Some(deadline))?;
            match (ready[0].is_empty(), ready[1].is_empty()) {
                (true, true) => return Err(late()),
                // What it has said before it ended is read first.
                (true, false) => return Ok(None),
                (false, _) => {}
            }
            if !self.read()? {
                return Ok(None);
            }
        }
    }

    /// Accepts, or reads once; whether the stream goes on.
    fn read(&mut self) -> Result<bool> {
        let Some(stream) = &mut self.stream else {
            // One that is gone again was none.
            if let Ok((stream, _)) = self.listener.accept() {
                stream.set_nonblocking(true)?;
                self.stream = Some(stream);
            }
            return Ok(true);
        };
        let goes_on = self.lines.read(&mut Counted { stream, bytes: &mut self.bytes })?;
        if self.bytes > MOST {
            return Err(Error::new(Code::BadInput, format!("the guest says more than {MOST} bytes")));
        }
        Ok(goes_on)
    }
}

/// What a line says. The words that are shown to people are short and plain: no terminal is told anything by them.
fn take(line: &[u8]) -> Result<ConfigureLine> {
    let strange = || Error::new(Code::BadInput, "the guest says what is no script's end");
    let line = serde_json::from_slice(line).map_err(|e| strange().because(&e))?;
    let words = match &line {
        ConfigureLine::Begins(ConfigureBegins { begins, .. }) => vec![begins],
        ConfigureLine::Script(Configured { package, version, ended, .. }) => vec![package, version, ended],
        ConfigureLine::Done(_) => vec![],
    };
    let plain = |word: &&String| word.len() <= LONGEST_WORD && !word.contains(char::is_control);
    if words.iter().all(plain) { Ok(line) } else { Err(strange()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lib_common::doc::ConfigureDone;
    use std::net::Shutdown;
    use std::time::Duration;

    const SCRIPT: &str = r#"{"package":"a","version":"1_1","status":0,"ended":"exit 0","ms":1,"output":"x\n"}"#;

    /// What is heard of a guest that sends these bytes and closes; the VM ends as soon as it has.
    fn heard(bytes: &[u8]) -> (Vec<ConfigureLine>, Result<()>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v_53");
        let listener = lib_machine::guest::vsock::listen_at(&path).unwrap();
        let (vm, shim) = UnixStream::pair().unwrap();
        let guest = {
            let (path, bytes) = (path.clone(), bytes.to_vec());
            std::thread::spawn(move || {
                let mut host = UnixStream::connect(path).unwrap();
                let _ = host.write_all(&bytes).and_then(|()| host.shutdown(Shutdown::Write));
                let mut answers = String::new();
                let _ = host.read_to_string(&mut answers);
                drop(shim);
                answers.len()
            })
        };
        let mut heard = Heard::of(&listener, vm.as_fd());
        let mut lines = vec![];
        let end = loop {
            match heard.next(Instant::now() + Duration::from_secs(20)) {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        drop(heard);
        drop(listener);
        // An answer can be lost only where the rest of what the guest sent was not read.
        assert!(guest.join().unwrap() == lines.len() || end.is_err());
        (lines, end)
    }

    #[test]
    fn lines_are_heard_to_the_last_one() {
        let (lines, end) = heard(format!("{SCRIPT}\n{SCRIPT}\n{{\"done\":true}}\n").as_bytes());
        end.unwrap();
        assert_eq!(lines.len(), 3);
        assert!(matches!(&lines[0], ConfigureLine::Script(script) if script.package == "a" && script.is_success()));
        assert_eq!(lines[2], ConfigureLine::Done(ConfigureDone { done: true }));
        let (lines, end) = heard(format!("{SCRIPT}\n{{\"done\":").as_bytes());
        end.unwrap();
        assert_eq!(lines.len(), 1, "half a line is none");
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let long = format!("{}\n", "x".repeat(LONGEST + 5000));
        let more = SCRIPT.replace("\"ms\"", "\"more\":1,\"ms\"") + "\n";
        for bad in ["garbage\n", "\n", "{}\n", "{\"done\":1}\n", &more, &long, "\u{0}\n"] {
            assert_eq!(heard(bad.as_bytes()).1.unwrap_err().code(), Code::BadInput, "{:.40}", bad);
        }
        assert_eq!(heard(b"\xff\xfe\n").1.unwrap_err().code(), Code::BadInput);
        let large = SCRIPT.replace("x\\n", &"x".repeat(60_000));
        let (lines, end) = heard(format!("{large}\n").repeat(MOST / large.len() + 1).as_bytes());
        assert_eq!((lines.len(), end.unwrap_err().code()), (MOST / large.len(), Code::BadInput));
    }

    #[test]
    fn words_that_are_shown_are_short_and_plain() {
        let fits = "p".repeat(LONGEST_WORD);
        for word in ["\"a\"", "\"1_1\"", "\"exit 0\""] {
            let with = |text: &str| heard(format!("{}\n", SCRIPT.replace(word, &format!("\"{text}\""))).as_bytes());
            assert_eq!(with(&fits).0.len(), 1, "{word}");
            for bad in [r"\u001b[2J", r"a\nb", r"\u009b2J", r"\u007f", &*format!("{fits}p")] {
                assert_eq!(with(bad).1.unwrap_err().code(), Code::BadInput, "{word} {bad}");
            }
        }
    }

    #[test]
    fn blanks_count_as_much_as_words() {
        let line = format!("{SCRIPT}{}\n", " ".repeat(LONGEST - SCRIPT.len()));
        let (lines, end) = heard(line.repeat(MOST / line.len() + 100).as_bytes());
        assert_eq!((lines.len(), end.unwrap_err().code()), (MOST / line.len(), Code::BadInput));
    }

    #[test]
    fn a_guest_that_always_has_more_to_say_is_heard_until_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v_53");
        let listener = lib_machine::guest::vsock::listen_at(&path).unwrap();
        let (vm, _shim) = UnixStream::pair().unwrap();
        let mut guest = UnixStream::connect(path).unwrap();
        guest.write_all(format!("{SCRIPT}\n{SCRIPT}\n").as_bytes()).unwrap();
        let mut heard = Heard::of(&listener, vm.as_fd());
        assert!(heard.next(Instant::now() + Duration::from_secs(20)).unwrap().is_some());
        // The second line has been read by now; at the deadline it is too late for it all the same.
        assert_eq!(heard.next(Instant::now()).unwrap_err().code(), Code::TimedOut);
        assert!(heard.next(Instant::now() + Duration::from_secs(20)).unwrap().is_some());
        guest.write_all(b" ").unwrap();
        assert_eq!(heard.next(Instant::now()).unwrap_err().code(), Code::TimedOut, "nor for what could be read");
    }

    #[test]
    fn nobody_is_waited_for_longer_than_told_or_after_the_vms_end() {
        let dir = tempfile::tempdir().unwrap();
        let listener = lib_machine::guest::vsock::listen_at(&dir.path().join("v_53")).unwrap();
        let (vm, shim) = UnixStream::pair().unwrap();
        let mut heard = Heard::of(&listener, vm.as_fd());
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(heard.next(soon).unwrap_err().code(), Code::TimedOut);
        drop(shim);
        assert_eq!(heard.next(Instant::now() + Duration::from_secs(20)).unwrap(), None);
    }
}
