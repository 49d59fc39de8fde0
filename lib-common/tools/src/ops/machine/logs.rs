//! logs: the serial console, as the guest wrote it. It is no document, and it is not to be trusted.

use super::is_running;
use crate::cli::{Answer, Context};
use lib_common::doc::Name;
use lib_common::error::{Code, Error, Result};
use lib_common::sys::owned;
use lib_machine::vmm::previous_log;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two looks whether there is more.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What `bg-vm logs` takes.
#[derive(Clone, Debug)]
pub struct LogsArgs {
    /// The VM.
    pub name: Name,
    /// Go on until the VM ends.
    pub follow: bool,
}

/// `bg-vm logs`: what was capped off first, then what is there now. On a terminal control characters but line feed and
/// tab are escaped.
pub fn logs(cx: &mut Context<'_>, args: &LogsArgs) -> Result<Answer> {
    cx.stages.hide();
    let machine = cx.store().machine(&args.name)?;
    let mut log = Log { path: machine.console(), at: 0, left: vec![] };
    log.print(cx, &previous_log(&log.path), 0)?;
    loop {
        // Asked before the last look, so that nothing is missed.
        let running = args.follow && is_running(&machine.current()?)?;
        log.go_on(cx)?;
        if !running {
            log.flush(cx)?;
            return Ok(Answer::Done);
        }
        lib_common::sys::signal::check()?;
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// A console's log, and how far it was printed.
struct Log {
    path: PathBuf,
    at: u64,
    /// The beginning of a character or line end whose rest has not come yet.
    left: Vec<u8>,
}

impl Log {
    /// Prints what is new.
    fn go_on(&mut self, cx: &mut Context<'_>) -> Result<()> {
        // The shim copies a full log to the older half and empties it: what we have not seen of it is there now.
        if std::fs::metadata(&self.path).map_or(0, |m| m.len()) < self.at {
            self.print(cx, &previous_log(&self.path), self.at)?;
            self.at = 0;
        }
        self.at += self.print(cx, &self.path.clone(), self.at)?;
        Ok(())
    }

    /// Prints a file from `from` to where it ends now: a guest may write faster than anybody reads. Gives how much that
    /// was; a missing file is empty.
    fn print(&mut self, cx: &mut Context<'_>, path: &Path, from: u64) -> Result<u64> {
        let failed = |e: &std::io::Error| Error::io("read", path, e);
        let Some(mut file) = owned::open(path.parent().unwrap_or(path), path.file_name().unwrap_or_default())? else {
            return Ok(0);
        };
        let length = file.metadata().map_err(|e| failed(&e))?.len().saturating_sub(from);
        file.seek(SeekFrom::Start(from)).map_err(|e| failed(&e))?;
        let mut file = file.take(length);
        let (mut buffer, mut printed) = (vec![0; 64 << 10], 0);
        loop {
            let n = file.read(&mut buffer).map_err(|e| failed(&e))?;
            if n == 0 {
                return Ok(printed);
            }
            printed += n as u64;
            self.write(cx, &buffer[..n])?;
            lib_common::sys::signal::check()?;
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<()> {
        if !cx.stdout_is_terminal {
            return write_out(cx, bytes);
        }
        self.left.extend_from_slice(bytes);
        let rest = self.left.split_off(whole(&self.left));
        let text = escaped(&self.left);
        self.left = rest;
        write_out(cx, text.as_bytes())
    }

    /// What is left of a character that did not end.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let text = escaped(&std::mem::take(&mut self.left));
        write_out(cx, text.as_bytes())
    }
}

fn write_out(cx: &mut Context<'_>, bytes: &[u8]) -> Result<()> {
    let out = cx.raw_stdout();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|e| Error::new(Code::ClosedStdout, "nobody reads the output").because(&e))
}

/// How many of these bytes can be escaped without knowing the next: all but a character that is cut in two, and a
/// carriage return that may belong to a line feed.
fn whole(bytes: &[u8]) -> usize {
    if bytes.last() == Some(&b'\r') {
        return bytes.len() - 1;
    }
    // UTF-8 has at most four bytes a character, and all but the first are continuations.
    let begins = bytes.iter().rev().take(4).position(|b| b & 0xc0 != 0x80);
    match begins.map(|back| bytes.len() - 1 - back) {
        Some(at) if std::str::from_utf8(&bytes[at..]).is_err_and(|e| e.error_len().is_none()) => at,
        _ => bytes.len(),
    }
}

fn escaped(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let keep = |c: char| !c.is_control() || c == '\n' || c == '\t';
    text.chars().map(|c| if keep(c) { c.to_string() } else { c.escape_default().to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_drive_the_terminal() {
        assert_eq!(escaped(b"ok\r\n\tx\x1b]0;evil\x07\xff\r"), "ok\n\tx\\u{1b}]0;evil\\u{7}\u{fffd}\\r");
    }

    #[test]
    fn what_is_cut_in_two_waits_for_its_rest() {
        for (bytes, fits) in [
            (&b"abc"[..], 3),
            (b"abc\r", 3),
            (b"", 0),
            ("ab\u{ef}".as_bytes(), 4),
            (&"ab\u{ef}".as_bytes()[..3], 2),
            (&"\u{1f600}".as_bytes()[..3], 0),
            (b"ab\xff", 3),
            (b"\x80\x80\x80\x80\x80", 5),
        ] {
            assert_eq!(whole(bytes), fits, "{bytes:?}");
        }
    }
}
