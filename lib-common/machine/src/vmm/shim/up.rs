//! The guest says that it is up, and of what its boot consisted: a connection, and on it a line that may come or not. The
//! guest is not trusted: nothing waits for the line, and one that is not as it should be is none.

use crate::store::boot::GUEST;
use crate::vmm::lines::Lines;
use lib_common::doc::{Boot, BootClock, Timing, strict};
use lib_common::error::{Error, Result};
use lib_common::timing::{millis, monotonic_ms};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// The line's most bytes.
const LONGEST: usize = 256;

/// How long the line is waited for once the guest has connected. It is sent at once; a guest has just begun to work then.
const LINE_WITHIN: Duration = Duration::from_secs(2);

/// Where a guest says it, in one boot.
pub(super) struct Up {
    listener: UnixListener,
    /// When its processors began to run.
    ran: Option<Instant>,
    /// When it first said that it is up.
    came: Option<Instant>,
    line: Line,
}

enum Line {
    /// What is still to come, on this connection.
    Awaited(UnixStream, Lines),
    /// All that came.
    Come(Option<BootClock>),
    /// Told already.
    Told,
}

impl Up {
    /// Listens at `path`, where nothing is.
    pub(super) fn listen(path: &Path) -> Result<Self> {
        let listener = UnixListener::bind(path).and_then(|up| up.set_nonblocking(true).map(|()| up));
        let listener = listener.map_err(|e| Error::io("listen on", path, &e))?;
        Ok(Up { listener, ran: None, came: None, line: Line::Come(None) })
    }

    /// The guest's processors run from now on.
    pub(super) fn runs(&mut self) {
        self.ran = Some(Instant::now());
    }

    /// Whether the guest is up.
    pub(super) fn has_come(&self) -> bool {
        self.came.is_some()
    }

    /// To poll: who wants to say so.
    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// To poll: who says something.
    pub(super) fn speaker(&self) -> Option<BorrowedFd<'_>> {
        match &self.line {
            Line::Awaited(stream, _) => Some(stream.as_fd()),
            _ => None,
        }
    }

    /// Until when the line is waited for, if it is.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.speaker().and(self.came).map(|came| came + LINE_WITHIN)
    }

    /// Accepts; gives whether anybody was there. Who comes later is an agent that was started again: its clock says nothing
    /// of the boot.
    pub(super) fn accept(&mut self) -> bool {
        let Ok((stream, _)) = self.listener.accept() else { return false };
        if self.came.is_none() {
            self.came = Some(Instant::now());
            if stream.set_nonblocking(true).is_ok() {
                self.line = Line::Awaited(stream, Lines::new(LONGEST));
            }
        }
        true
    }

    /// Reads once.
    pub(super) fn hear(&mut self) {
        let Line::Awaited(stream, lines) = &mut self.line else { return };
        let read = lines.read(stream);
        let line = lines.next_line();
        if line.is_some() || !matches!(read, Ok(true)) {
            self.line = Line::Come(line.and_then(|line| clock(&line)));
        }
    }

    /// What is known of the boot, once: when all has come that will.
    pub(super) fn take(&mut self, reboots: u32, now: Instant) -> Option<Boot> {
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            self.line = Line::Come(None);
        }
        let (Line::Come(clock), Some(ran), Some(came)) = (&self.line, self.ran, self.came) else { return None };
        let timings = split(came.saturating_duration_since(ran), *clock);
        self.line = Line::Told;
        // A VMM may say that it runs the guest when that is up already.
        let up = came.max(ran);
        Some(Boot { reboots, up_at_ms: monotonic_ms() - millis(up.elapsed()), timings })
    }
}

fn clock(line: &[u8]) -> Option<BootClock> {
    let clock: BootClock = strict(std::str::from_utf8(line).ok()?).ok()?;
    (clock.init_us <= clock.handover_us && clock.handover_us <= clock.agent_us).then_some(clock)
}

/// The stages of the `total` that the host has measured, in the guest's proportions: what comes before `/init` begins is the
/// kernel's, also what is not on its clock. A guest whose clock has run too fast gets no more than there is.
fn split(total: Duration, clock: Option<BootClock>) -> Vec<Timing> {
    let stage = |(stage, time): (&str, Duration)| Timing { tool: GUEST.into(), stage: stage.into(), ms: millis(time) };
    let Some(BootClock { init_us, handover_us, agent_us }) = clock else {
        return vec![stage(("boot", total))];
    };
    let after_kernel = Duration::from_micros(agent_us - init_us).min(total);
    let init = Duration::from_micros(handover_us - init_us).min(after_kernel);
    [("kernel", total - after_kernel), ("init", init), ("agent", after_kernel - init)].map(stage).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn parts(total_ms: u64, clock: Option<(u64, u64, u64)>) -> Vec<(String, f64)> {
        let clock = clock.map(|(init_us, handover_us, agent_us)| BootClock { init_us, handover_us, agent_us });
        split(Duration::from_millis(total_ms), clock).into_iter().map(|t| (t.stage, t.ms)).collect()
    }

    #[test]
    fn the_parts_are_the_whole_and_none_is_negative() {
        for (clock, expected) in [
            ((1_500_000, 1_600_000, 3_600_000), [2900.0, 100.0, 2000.0]),
            // No time at all, and all of it.
            ((9, 9, 9), [5000.0, 0.0, 0.0]),
            ((0, 5_000_000, 5_000_000), [0.0, 5000.0, 0.0]),
            // A clock that has run too fast.
            ((0, 1_000_000, 9_000_000), [0.0, 1000.0, 4000.0]),
            ((0, u64::MAX, u64::MAX), [0.0, 5000.0, 0.0]),
        ] {
            let got = parts(5000, Some(clock));
            assert_eq!(got.iter().map(|(_, ms)| *ms).collect::<Vec<_>>(), expected, "{clock:?}");
            assert_eq!(got.iter().map(|(stage, _)| stage.as_str()).collect::<Vec<_>>(), ["kernel", "init", "agent"]);
        }
        assert_eq!(parts(5000, None), [("boot".to_owned(), 5000.0)]);
        assert_eq!(parts(0, Some((1, 2, 3))).iter().map(|(_, ms)| ms).sum::<f64>(), 0.0);
    }

    /// What comes of a guest that connects, sends these bytes, and closes or not.
    fn heard(bytes: &[u8], closes: bool) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("up");
        let mut up = Up::listen(&path).unwrap();
        up.runs();
        assert!(!up.accept() && up.take(0, Instant::now()).is_none());
        let mut guest = Some(UnixStream::connect(&path).unwrap());
        guest.as_ref().unwrap().set_nonblocking(true).unwrap();
        assert!(up.accept() && up.has_come());
        let _ = guest.as_mut().unwrap().write(bytes);
        guest.take_if(|_| closes);
        for _ in 0..100 {
            up.hear();
        }
        let now = Instant::now();
        let late = up.deadline().map_or(now, |deadline| deadline.max(now));
        assert_eq!(up.speaker().is_some(), up.take(0, now).is_none(), "it is told as soon as nothing more can come");
        let boot = up.take(1, late);
        assert!(up.take(1, late).is_none(), "once");
        drop(guest);
        boot.map_or(vec!["told".into()], |boot| boot.timings.into_iter().map(|t| t.stage).collect())
    }

    #[test]
    fn a_line_that_is_not_as_it_should_be_is_none() {
        let up = |bytes: &[u8]| {
            let dir = tempfile::tempdir().unwrap();
            let mut up = Up::listen(&dir.path().join("up")).unwrap();
            up.runs();
            let mut guest = UnixStream::connect(dir.path().join("up")).unwrap();
            assert!(up.accept());
            let _ = guest.write_all(bytes);
            drop(guest);
            (0..1000).for_each(|_| up.hear());
            up.take(3, Instant::now()).unwrap()
        };
        let good = br#"{"init_us":1,"handover_us":2,"agent_us":3}"#;
        let boot = up(&[&good[..], b"\nmore\n"].concat());
        assert_eq!((boot.reboots, boot.timings.len()), (3, 3));
        for bad in [
            &b""[..],
            b"\n",
            good,
            b"\xff\xfe\n",
            br#"{"init_us":3,"handover_us":2,"agent_us":1}
"#,
            br#"{"init_us":-1,"handover_us":2,"agent_us":3}
"#,
            br#"{"init_us":NaN,"handover_us":2,"agent_us":3}
"#,
            br#"{"init_us":1e3,"handover_us":2e3,"agent_us":3e3}
"#,
            br#"{"init_us":1,"handover_us":2,"agent_us":99999999999999999999}
"#,
            br#"{"init_us":1,"handover_us":2,"agent_us":3,"more":4}
"#,
            br#"{"init_us":1,"init_us":1,"handover_us":2,"agent_us":3}
"#,
            br#"{"init_us":1}
"#,
            &[b'['; 200],
            &[b'x'; 100_000],
        ] {
            let boot = up(bad);
            assert_eq!(boot.timings.iter().map(|t| t.stage.as_str()).collect::<Vec<_>>(), ["boot"], "{bad:?}");
        }
    }

    #[test]
    fn a_silent_guest_is_up_all_the_same_and_waited_for_no_longer_than_its_time() {
        assert_eq!(heard(b"", false), ["boot"]);
        assert_eq!(heard(b"{\"init_us\":", false), ["boot"]);
        assert_eq!(heard(b"", true), ["told"]);
        assert_eq!(heard(b"{\"init_us\":1,\"handover_us\":2,\"agent_us\":3}\n", false), ["told"]);
    }

    #[test]
    fn a_guest_that_was_up_before_its_vmm_said_so_has_taken_no_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut up = Up::listen(&dir.path().join("up")).unwrap();
        drop(UnixStream::connect(dir.path().join("up")).unwrap());
        assert!(up.accept());
        up.hear();
        assert!(up.take(0, Instant::now()).is_none());
        up.runs();
        let boot = up.take(0, Instant::now()).unwrap();
        assert_eq!(boot.timings.iter().map(|t| t.ms).sum::<f64>(), 0.0);
    }
}
