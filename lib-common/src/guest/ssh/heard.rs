//! What ssh and the connector say while a session lasts, in a file instead of stderr: so the session's own tool says last what went
//! wrong, and knows whether the status 255 is ssh's or the command's.

use crate::doc::{ErrorDoc, Name};
use crate::error::{ChildFailure, Code, Error, Result};
use crate::sys::heard::Heard;
use std::path::PathBuf;

/// How many of ssh's lines an error has: the last ones.
const LINES: usize = 6;

/// How ssh's log begins a line of the guest's requests, which [`super::REQUESTS`] asks for.
const REQUEST: &str = "debug1: clientloop.c:client_input_channel_req()";

/// How a session's command ended, as far as the guest has said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a status.
    Status,
    /// By a signal.
    Signal,
}

/// The log of one session.
#[derive(Debug)]
pub struct SshLog {
    heard: Heard,
    end: Option<End>,
}

impl SshLog {
    /// An empty log.
    pub fn new() -> Result<Self> {
        Ok(SshLog { heard: Heard::new()?, end: None })
    }

    /// Where ssh and the connector write. `None` where /proc is not this namespace's: then they write to stderr.
    pub fn path(&self) -> Option<PathBuf> {
        Some(self.heard.path()).filter(|path| path.is_file())
    }

    /// Reads what is new: to be called now and then, since a guest decides how much that is.
    pub fn collect(&mut self) -> Result<()> {
        let end = &mut self.end;
        self.heard.collect(|text| *end = end.or_else(|| end_in(&String::from_utf8_lossy(text))))
    }

    /// How the command ended.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// What ssh said, without the guest's requests.
    pub fn lines(&self) -> Vec<String> {
        lines_of(&self.heard.text())
    }

    /// Why ssh failed: the connector's reason, if it had one, else ssh's own words.
    pub fn failure(&self, name: &Name) -> Error {
        failure(name, &self.heard.text())
    }
}

fn end_in(text: &str) -> Option<End> {
    text.lines().filter(|line| line.starts_with(REQUEST)).find_map(|line| {
        // The last line of a chunk may not be whole: it comes again with the next one.
        let (_, kind) = line.split_once(" rtype ")?;
        match kind.split(' ').collect::<Vec<_>>()[..] {
            ["exit-status", _, ..] => Some(End::Status),
            ["exit-signal", _, ..] => Some(End::Signal),
            _ => None,
        }
    })
}

fn lines_of(text: &str) -> Vec<String> {
    let kept = |line: &&str| {
        let is_frame = line.chars().all(|c| c == '@');
        !line.is_empty() && !is_frame && !line.starts_with(REQUEST) && connectors(line).is_none()
    };
    text.lines().map(str::trim).filter(kept).map(str::to_owned).collect()
}

fn connectors(line: &str) -> Option<ErrorDoc> {
    line.starts_with('{').then(|| serde_json::from_str(line).ok()).flatten()
}

fn failure(name: &Name, text: &str) -> Error {
    let lines = lines_of(text);
    let child = ChildFailure { argv: vec!["ssh".into()], status: "exit 255".into(), stderr: lines.join("\n") };
    if let Some(doc) = text.lines().rev().find_map(connectors) {
        let reason = doc.code.clone();
        return Error::from(doc).with_code(Code::SshFailed).detail("reason", reason).child(child);
    }
    let error = match lines.is_empty() {
        true => Error::new(Code::SshFailed, format!("the connection to the VM `{name}` broke")),
        false => Error::new(Code::SshFailed, format!("the session in the VM `{name}` failed")),
    };
    let last = lines.iter().skip(lines.len().saturating_sub(LINES));
    last.fold(error, |error, line| error.also(line.clone()))
        .hint(format!("`bg-health {name}` says how the guest is"))
        .child(child)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "debug1: clientloop.c:client_input_channel_req():1728 (pid=7): client_input_channel_req: channel 0 rtype exit-status reply 0";

    #[test]
    fn the_commands_end_is_read_from_whole_lines_alone() {
        assert_eq!(end_in(&format!("x\n{STATUS}\n")), Some(End::Status));
        assert_eq!(end_in(&STATUS.replace("exit-status", "exit-signal")), Some(End::Signal));
        assert_eq!(end_in(&STATUS.replace("exit-status", "keepalive@openssh.com")), None);
        assert_eq!(end_in(&STATUS.replace("exit-status reply 0", "exit-sta")), None);
        assert_eq!(end_in("Received disconnect: rtype exit-status reply 0"), None);
    }

    #[test]
    fn the_connectors_reason_goes_before_sshs_words() {
        let name = Name::parse("dev").unwrap();
        let reason = Error::new(Code::TimedOut, "the VM `dev` is not ready after 1.0 s").hint("`bg-vm logs dev`");
        let doc = crate::doc::to_json(&ErrorDoc::new("bg-ssh", &reason));
        let text = format!("{doc}\nmm_receive_fd: recvmsg: expected received 1 got 0\r\nproxy dialer did not pass\r\n");
        let error = failure(&name, &text);
        assert_eq!(
            (error.code(), error.message(), error.get_hint()),
            (Code::SshFailed, reason.message(), reason.get_hint())
        );
        assert_eq!(error.details(), [("reason".to_owned(), "timed_out".to_owned())]);
        assert!(error.get_child().unwrap().stderr.starts_with("mm_receive_fd"), "{error:?}");

        let error = failure(&name, "@@@@@@@\r\nREMOTE HOST\r\nHost key verification failed.\r\n");
        assert_eq!(error.causes(), ["REMOTE HOST", "Host key verification failed."]);
        assert!(failure(&name, &format!("{STATUS}\n")).message().ends_with("broke"));
    }
}
