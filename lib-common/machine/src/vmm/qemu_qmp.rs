//! QEMU's monitor protocol, as far as a parent needs it: wait until the machine is made, let it run, learn why it ended.
//!
//! Source: QEMU's docs/interop/qmp-spec.rst (the server greets; `qmp_capabilities` comes first; one JSON object a line)
//! qapi/run-state.json (`SHUTDOWN` with `guest` and `reason`) and qapi/block-core.json (`BLOCK_IO_ERROR` with `device`,
//! `operation`, `action`, `nospace` and `reason`).

use super::lines::Lines;
use lib_common::error::{Code, Error, Result};
use lib_common::sys::socket::{name_writers, writer};
use serde::Deserialize;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

/// The longest line that is read, in bytes. The greeting has about 150, an event less than 300.
const LONGEST: usize = 64 << 10;

/// What QEMU said, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// It is there, and takes `qmp_capabilities`.
    Greeting,
    /// A command was done.
    Return,
    /// A command was refused.
    Refused(String),
    /// The machine ends; the word is one of qapi's `ShutdownCause`.
    Shutdown(String),
    /// A file of a disk could not be read or written.
    DiskFailed(DiskFailure),
    /// What a parent has no need of.
    Other,
}

/// A read or write of a disk's file that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DiskFailure {
    /// The id of its `-drive`.
    pub(super) device: String,
    /// In words.
    pub(super) what: String,
    /// True if QEMU has stopped the guest and keeps the write; else the guest was told.
    pub(super) stopped: bool,
    /// What is used up, where that is why.
    pub(super) used_up: Option<UsedUp>,
}

/// What a disk's file has no room in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UsedUp {
    /// Its file system: ENOSPC.
    Disk,
    /// Its user's quota: EDQUOT.
    Quota,
}

/// A line of QMP. Unknown fields and events are of newer QEMUs.
#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "QMP")]
    greeting: Option<serde::de::IgnoredAny>,
    #[serde(rename = "return")]
    returned: Option<serde::de::IgnoredAny>,
    error: Option<Refusal>,
    event: Option<String>,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

#[derive(Default, Deserialize)]
struct Data {
    reason: Option<serde_json::Value>,
    operation: Option<serde_json::Value>,
    device: Option<serde_json::Value>,
    action: Option<serde_json::Value>,
    nospace: Option<serde_json::Value>,
}

impl Data {
    fn reason(&self) -> &str {
        text(&self.reason).unwrap_or("unknown")
    }

    fn disk_failure(&self) -> DiskFailure {
        let operation = text(&self.operation).unwrap_or("use");
        // `nospace` is ENOSPC alone. The reason is strerror(3)'s, and QEMU runs with LC_ALL=C: glibc says
        // `Disk quota exceeded`, musl `Quota exceeded`.
        let used_up = match &self.nospace {
            Some(serde_json::Value::Bool(true)) => Some(UsedUp::Disk),
            _ if self.reason().to_ascii_lowercase().ends_with("quota exceeded") => Some(UsedUp::Quota),
            _ => None,
        };
        DiskFailure {
            device: text(&self.device).unwrap_or_default().to_owned(),
            what: format!("cannot {operation} a disk's file: {}", self.reason()),
            stopped: text(&self.action) == Some("stop"),
            used_up,
        }
    }
}

fn text(value: &Option<serde_json::Value>) -> Option<&str> {
    value.as_ref().and_then(|v| v.as_str())
}

/// Reads one line.
pub(super) fn parse(line: &[u8]) -> Result<Message> {
    let raw: Raw = serde_json::from_slice(line).map_err(|e| {
        let start = String::from_utf8_lossy(&line[..line.len().min(100)]).into_owned();
        Error::new(Code::BadInput, format!("QEMU's monitor said `{}`", start.escape_debug())).because(&e)
    })?;
    Ok(match raw {
        Raw { greeting: Some(_), .. } => Message::Greeting,
        Raw { error: Some(refusal), .. } => Message::Refused(refusal.desc),
        Raw { event: Some(event), data, .. } => {
            let data = data.unwrap_or_default();
            match event.as_str() {
                "SHUTDOWN" => Message::Shutdown(data.reason().to_owned()),
                "BLOCK_IO_ERROR" => Message::DiskFailed(data.disk_failure()),
                _ => Message::Other,
            }
        }
        Raw { returned: Some(_), .. } => Message::Return,
        _ => Message::Other,
    })
}

/// The monitor of one QEMU.
#[derive(Debug)]
pub(super) struct Qmp {
    socket: Option<File>,
    lines: Lines,
    writer: Option<i32>,
}

impl Qmp {
    /// On a connected socket, before QEMU has it.
    ///
    /// # Errors
    /// setsockopt(2)'s.
    pub(super) fn new(socket: File) -> Result<Self> {
        name_writers(socket.as_fd())?;
        Ok(Qmp { socket: Some(socket), lines: Lines::new(LONGEST), writer: None })
    }

    /// The process that wrote what came first.
    pub(super) fn writer(&self) -> Option<i32> {
        self.writer
    }

    /// To poll, while QEMU holds its end open.
    pub(super) fn socket(&self) -> Option<&File> {
        self.socket.as_ref()
    }

    /// Reads once and gives what is whole. After nonsense the monitor is closed: QEMU cannot be understood any more,
    /// and its end will still be seen.
    pub(super) fn read(&mut self) -> Result<Vec<Message>> {
        let Some(socket) = &mut self.socket else { return Ok(vec![]) };
        if self.writer.is_none() {
            // There is nothing to read where QEMU has ended, and its end is told elsewhere.
            self.writer = writer(socket.as_fd()).ok().flatten();
        }
        let result = self.lines.read(socket).and_then(|goes_on| {
            if !goes_on {
                self.socket = None;
            }
            std::iter::from_fn(|| self.lines.next_line()).filter(|l| !l.is_empty()).map(|l| parse(&l)).collect()
        });
        if result.is_err() {
            self.socket = None;
        }
        result
    }

    /// Sends a command without arguments.
    pub(super) fn execute(&mut self, command: &'static str) -> Result<()> {
        let Some(socket) = &mut self.socket else {
            return Err(Error::new(Code::VmmFailed, "QEMU's monitor is closed"));
        };
        let line = format!("{{\"execute\":\"{command}\"}}\n");
        socket.write_all(line.as_bytes()).map_err(|e| Error::new(Code::VmmFailed, "QEMU's monitor is gone").because(&e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_qemu_10_says() {
        let shutdown = |r: &str| Message::Shutdown(r.into());
        for (line, message) in [
            (r#"{"QMP": {"version": {"qemu": {"micro": 2}}, "capabilities": ["oob"]}}"#, Message::Greeting),
            (r#"{"return": {}}"#, Message::Return),
            (r#"{"id": 1, "error": {"class": "CommandNotFound", "desc": "no"}}"#, Message::Refused("no".into())),
            (
                r#"{"timestamp": {"seconds": 1}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#,
                shutdown("guest-reset"),
            ),
            (r#"{"event": "SHUTDOWN"}"#, shutdown("unknown")),
            (r#"{"event": "SHUTDOWN", "data": {"reason": 7}}"#, shutdown("unknown")),
            (r#"{"event": "RESUME", "data": {"x": [1]}}"#, Message::Other),
            ("{}", Message::Other),
        ] {
            assert_eq!(parse(line.as_bytes()).unwrap(), message, "{line}");
        }
    }

    #[test]
    fn a_disk_failure_says_what_is_used_up_and_whether_the_guest_stands_still() {
        for (reason, action, nospace, stopped, used_up) in [
            ("No space left on device", "stop", "true", true, Some(UsedUp::Disk)),
            ("No space left on device", "report", "true", false, Some(UsedUp::Disk)),
            ("Disk quota exceeded", "stop", "false", true, Some(UsedUp::Quota)),
            ("Input/output error", "stop", "false", true, None),
            ("File too large", "stop", "null", true, None),
        ] {
            let line = format!(
                r#"{{"event": "BLOCK_IO_ERROR", "data": {{"device": "disk1", "node-name": "", "reason": "{reason}",
                    "operation": "write", "action": "{action}", "nospace": {nospace}}}}}"#
            );
            let what = format!("cannot write a disk's file: {reason}");
            let failure = DiskFailure { device: "disk1".into(), what, stopped, used_up };
            assert_eq!(parse(line.as_bytes()).unwrap(), Message::DiskFailed(failure), "{line}");
        }
        let bare = DiskFailure {
            device: String::new(),
            what: "cannot use a disk's file: unknown".into(),
            stopped: false,
            used_up: None,
        };
        assert_eq!(parse(br#"{"event": "BLOCK_IO_ERROR"}"#).unwrap(), Message::DiskFailed(bare));
    }

    #[test]
    fn nonsense_is_an_error_that_quotes_it() {
        for line in ["", "hello", "[]", "{\"return\": {}", "\u{1b}[31m", "{\"error\": 1}", "{\"event\": []}"] {
            let e = parse(line.as_bytes()).unwrap_err();
            assert_eq!(e.code(), Code::BadInput, "{line}");
            assert!(!e.message().contains('\u{1b}'), "{e}");
        }
        let deep = "[".repeat(50_000);
        assert!(parse(deep.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }

    fn monitor() -> (Qmp, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Qmp::new(File::from(OwnedFd::from(ours))).unwrap(), theirs)
    }

    #[test]
    fn several_messages_in_one_read_and_one_in_several() {
        let (mut qmp, mut qemu) = monitor();
        qemu.write_all(b"{\"QMP\": {}}\r\n{\"return\": {}}\r\n{\"event\"").unwrap();
        assert_eq!(qmp.read().unwrap(), [Message::Greeting, Message::Return]);
        assert_eq!(qmp.writer(), Some(std::process::id().cast_signed()));
        qemu.write_all(b": \"STOP\"}\r\n").unwrap();
        assert_eq!(qmp.read().unwrap(), [Message::Other]);
        drop(qemu);
        assert_eq!(qmp.read().unwrap(), []);
        assert!(qmp.socket().is_none() && qmp.execute("cont").is_err());
    }

    #[test]
    fn an_endless_line_closes_the_monitor() {
        let (mut qmp, mut qemu) = monitor();
        let writer = std::thread::spawn(move || while qemu.write_all(&[b'x'; 4096]).is_ok() {});
        let error = std::iter::repeat_with(|| qmp.read()).find_map(Result::err).unwrap();
        assert!(error.message().contains("longer than"), "{error}");
        assert!(qmp.socket().is_none());
        writer.join().unwrap();
    }
}
