//! What a build's guest prints: shown line by line on stderr, kept in a log, and its end for the error.

use crate::cli::Context;
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::quote;
use lib_machine::guest::ssh::session::{Outcome, Stream};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// So many of a step's last lines are in its error.
const LAST_LINES: usize = 20;

/// The longest line that is shown as one, in bytes.
const MAX_LINE: usize = 4 << 10;

/// At most so much of a build's output is kept, in bytes: a guest may print without end.
const MAX_LOG: u64 = 16 << 20;

/// The log of a build.
pub(super) struct Log {
    file: File,
    left: u64,
    last: VecDeque<String>,
    line: Vec<u8>,
}

impl Log {
    /// In the new file `path`.
    pub(super) fn create(path: &Path) -> Result<Self> {
        // What a script prints is its user's alone.
        let file = File::options().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|e| Error::io("make", path, &e))?;
        Ok(Log { file, left: MAX_LOG, last: VecDeque::new(), line: vec![] })
    }

    /// A step begins.
    pub(super) fn begin(&mut self, title: &str) {
        self.last.clear();
        self.write(format!("--- {}\n", quote(title)).as_bytes());
    }

    /// A step has ended: what it printed last may lack its line feed.
    pub(super) fn end(&mut self, cx: &mut Context<'_>) {
        if !self.line.is_empty() {
            self.take(cx, b"\n");
        }
    }

    /// A line of our own, in the log alone.
    pub(super) fn note(&mut self, text: &str) {
        self.write(format!("--- {text}\n").as_bytes());
    }

    /// Takes what the guest printed.
    pub(super) fn take(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        self.write(bytes);
        for byte in bytes {
            match byte {
                b'\n' => self.show(cx),
                _ => self.line.push(*byte),
            }
            if self.line.len() >= MAX_LINE {
                self.show(cx);
            }
        }
    }

    /// The last lines, oldest first.
    pub(super) fn last_lines(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }

    fn show(&mut self, cx: &mut Context<'_>) {
        let text = String::from_utf8_lossy(&self.line);
        let text = text.trim_end_matches('\r').to_owned();
        self.line.clear();
        cx.guest_line(&text);
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(text);
    }

    /// A log that cannot be written, on a full disk, does not end a build that still can go on.
    fn write(&mut self, bytes: &[u8]) {
        let fits = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let _ = self.file.write_all(&bytes[..fits]);
        self.left -= fits as u64;
    }
}

/// The error of a step that did not end well.
pub(super) fn step_failed(step: &str, outcome: &Outcome, log: &Log) -> Error {
    let how = outcome.in_words();
    let mut error = Error::new(Code::CommandFailed, format!("the step `{step}` failed ({how})"));
    if let Some(line) = log.last_lines().rev().find(|l| !l.trim().is_empty()) {
        error = error.also(line.trim().to_owned());
    }
    let output: Vec<&str> = log.last_lines().collect();
    if output.iter().any(|line| line.contains("No space left on device")) {
        error = error.hint("--size makes the image larger");
    }
    error.detail("step", step).detail("status", how).detail("output", output.join("\n"))
}

/// Standard output as text, for what is read and not shown; at most `limit` bytes.
pub(super) fn collect(stream: Stream, bytes: &[u8], into: &mut Vec<u8>, limit: usize) {
    if stream == Stream::Stdout {
        let fits = limit.saturating_sub(into.len()).min(bytes.len());
        into.extend_from_slice(&bytes[..fits]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Answer, Io, run_with};
    use lib_machine::config::Env;

    #[derive(clap::Parser)]
    struct NoArgs {}

    /// Runs in a tool, and gives what that printed on stderr.
    fn inside(verb: fn(NoArgs, &mut Context<'_>) -> Result<Answer>) -> String {
        let mut stderr = vec![];
        let io = Io {
            args: vec!["bg-test".into()],
            env: Env::from([("HOME".to_owned(), "/nowhere".to_owned())]),
            root: false,
            stdin: (Box::new(std::io::empty()), false),
            stdout: (Box::new(std::io::sink()), false),
            stderr: (Box::new(&mut stderr), false),
        };
        assert_eq!(run_with("bg-test", verb, io), 0);
        String::from_utf8(stderr).unwrap()
    }

    #[test]
    fn lines_are_shown_harmless_however_they_come_and_the_last_ones_are_in_the_error() {
        let said = inside(|_, cx| {
            let dir = tempfile::tempdir()?;
            let mut log = Log::create(&dir.path().join("log"))?;
            log.begin("run a b");
            for n in 0..30 {
                log.take(cx, format!("line {n}\r\n").as_bytes());
            }
            for part in [&b"ta\tb \x1b[2J"[..], b"\xff", b"\nNo space left on device\n", b"no line feed"] {
                log.take(cx, part);
            }
            log.end(cx);
            let error = step_failed("run x", &Outcome { status: 3, signal: None }, &log);
            let detail = |key: &str| error.details().iter().find(|(k, _)| k == key).map(|(_, v)| v.clone()).unwrap();
            assert_eq!((detail("step"), detail("status")), ("run x".into(), "exit 3".into()));
            assert_eq!(detail("output").lines().count(), LAST_LINES);
            assert_eq!((error.code(), error.causes()), (Code::CommandFailed, &["no line feed".to_owned()][..]));
            assert!(error.get_hint().unwrap().contains("--size"));
            let kept = std::fs::read(dir.path().join("log"))?;
            assert!(kept.starts_with(b"--- 'run a b'\nline 0\r\n") && kept.ends_with(b"no line feed\n"));
            Ok(Answer::Done)
        });
        assert!(said.starts_with("line 0\nline 1\n"), "{said}");
        assert!(said.contains("ta\tb \\u{1b}[2J\u{fffd}\n") && said.ends_with("no line feed\n"), "{said}");
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let said = inside(|_, cx| {
            let dir = tempfile::tempdir()?;
            let mut log = Log::create(&dir.path().join("log"))?;
            for _ in 0..64 {
                log.take(cx, &[b'x'; 1024]);
            }
            assert!(log.line.len() < MAX_LINE);
            Ok(Answer::Done)
        });
        assert_eq!(said.lines().count(), 16);
    }

    #[test]
    fn a_signal_is_named() {
        let outcome = Outcome { status: 0, signal: Some("KILL".into()) };
        assert!(!outcome.is_success());
        assert_eq!(outcome.in_words(), "signal KILL");
    }
}
