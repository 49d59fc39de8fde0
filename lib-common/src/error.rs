//! Stable error codes, their exit status, and an error that keeps message, causes and hint apart.
//!
//! An [`Error`] is one sentence without its source; the causes are a list, outermost first; the hint says what
//! to type next. Printing is `cli`'s alone, so nothing is ever logged and returned both.

use std::fmt;
use std::path::Path;

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal => $exit:literal,)*) => {
        /// What went wrong, as a stable snake_case word; its class is the exit status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $($(#[$doc])* $name,)* }
        impl Code {
            /// Every code there is, for the manual's tables and their test.
            pub const ALL: &[Code] = &[$(Code::$name,)*];
            /// The word in an `Error` document's `code`.
            pub const fn as_str(self) -> &'static str { match self { $(Code::$name => $text,)* } }
            /// The exit status of a tool that ends with this code.
            pub const fn exit(self) -> u8 { match self { $(Code::$name => $exit,)* } }
        }
    };
}

codes! {
    /// The command line cannot be understood.
    Usage = "usage" => 64,
    /// A name that is not in the store.
    NotFound = "not_found" => 64,
    /// A name, size or path that is not allowed.
    BadValue = "bad_value" => 64,
    /// Stdin, `--file` or a record is not the document that was asked for.
    BadDocument = "bad_document" => 65,
    /// What a build reads (a package, a kernel, a disk) is damaged or not of the expected format.
    BadInput = "bad_input" => 65,
    /// A kernel, an initrd and a command line with which the guest would hang.
    BootCheck = "boot_check" => 65,
    /// A digest differs from what was promised.
    DigestMismatch = "digest_mismatch" => 65,
    /// Stdin was empty: the tool upstream failed and has said why.
    EmptyStdin = "empty_stdin" => 66,
    /// The guest does not answer.
    GuestUnreachable = "guest_unreachable" => 69,
    /// The VM is not running.
    NotRunning = "not_running" => 69,
    /// The VMM did not start, or died.
    VmmFailed = "vmm_failed" => 69,
    /// A bug in banger.
    Internal = "internal" => 70,
    /// The operating system refused a call.
    Os = "os_error" => 71,
    /// A program that was started ended with a failure.
    CommandFailed = "command_failed" => 71,
    /// A program that is needed is not installed.
    MissingProgram = "missing_program" => 72,
    /// A file that is needed (kernel, agent, disk) is not there.
    MissingFile = "missing_file" => 72,
    /// What was to be made is there already.
    Exists = "exists" => 73,
    /// Reading or writing failed.
    Io = "io_error" => 74,
    /// Nobody reads stdout any more.
    ClosedStdout = "closed_stdout" => 74,
    /// Somebody else holds the lock.
    LockBusy = "lock_busy" => 75,
    /// Something else still uses it.
    InUse = "in_use" => 75,
    /// The time given ran out.
    TimedOut = "timed_out" => 75,
    /// The caller may not do this.
    Permission = "permission" => 77,
    /// A configuration file or `BG_*` variable is wrong.
    BadConfig = "bad_config" => 78,
    /// The session's ssh failed: it could not connect, or lost its connection.
    SshFailed = "ssh_failed" => 255,
    /// SIGINT or SIGQUIT; where something was undone, the message says so.
    Interrupted = "interrupted" => 130,
    /// SIGTERM, SIGHUP or SIGXCPU; where something was undone, the message says so.
    Terminated = "terminated" => 143,
}

/// A failed child process, for `details.child`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildFailure {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// `exit 1` or `signal 9`.
    pub status: String,
    /// The last 1 KiB of its stderr.
    pub stderr: String,
}

/// Why an operation failed. Cheap to move: one pointer.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    code: Code,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    child: Option<ChildFailure>,
    details: Vec<(String, String)>,
    no_room: bool,
}

impl Error {
    /// An error with a one-sentence message, lower case, without a full stop.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let (message, causes, details) = (message.into(), vec![], vec![]);
        Error(Box::new(Inner { code, message, causes, hint: None, child: None, details, no_room: false }))
    }

    /// The same error with what to type or do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The same error with `source` and the sources of that as its causes.
    #[must_use]
    pub fn because(mut self, source: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(source);
        while let Some(e) = next {
            let text = e.to_string();
            if self.0.causes.last() != Some(&text) {
                self.0.causes.push(text);
            }
            next = e.source();
        }
        self
    }

    /// This error seen from further out: `message` becomes the sentence, the old one its first cause. Code,
    /// hint and details stay.
    #[must_use]
    pub fn within(mut self, message: impl Into<String>) -> Self {
        let inner = std::mem::replace(&mut self.0.message, message.into());
        self.0.causes.insert(0, inner);
        self
    }

    /// The same error with one more cause, for what went wrong beside it (teardown collects them all).
    #[must_use]
    pub fn also(mut self, cause: impl Into<String>) -> Self {
        self.0.causes.push(cause.into());
        self
    }

    /// The same error with the child that failed.
    #[must_use]
    pub fn child(mut self, child: ChildFailure) -> Self {
        self.0.child = Some(child);
        self
    }

    /// The same error with a named detail (a path, an owner, a limit) for programs to read.
    #[must_use]
    pub fn detail(mut self, key: &str, value: impl Into<String>) -> Self {
        self.0.details.push((key.to_owned(), value.into()));
        self
    }

    /// The same error under another code.
    #[must_use]
    pub fn with_code(mut self, code: Code) -> Self {
        self.0.code = code;
        self
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What lies beneath, outermost first.
    pub fn causes(&self) -> &[String] {
        &self.0.causes
    }

    /// The sentence and what lies beneath, in one line.
    pub fn with_causes(&self) -> String {
        std::iter::once(self.message()).chain(self.causes().iter().map(String::as_str)).collect::<Vec<_>>().join(": ")
    }

    /// The sentence with what lies beneath and what to do next, for a remark.
    pub fn with_hint(&self) -> String {
        let hint = self.get_hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        self.with_causes() + &hint
    }

    /// What to do next.
    pub fn get_hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The child that failed.
    pub fn get_child(&self) -> Option<&ChildFailure> {
        self.0.child.as_ref()
    }

    /// Named details.
    pub fn details(&self) -> &[(String, String)] {
        &self.0.details
    }

    /// Whether it is that a disk is full, or the caller's part of it.
    pub fn is_no_room(&self) -> bool {
        self.0.no_room
    }

    /// Whether it is one of looking, of a broken disk or for want of descriptors: it says nothing of what was looked at.
    pub fn is_blind(&self) -> bool {
        matches!(self.code(), Code::Io | Code::Os)
    }

    /// An I/O error at `path`, classed by its kind.
    pub fn io(what: &str, path: &Path, source: &std::io::Error) -> Self {
        let message = format!("cannot {what} {}", path.display());
        let mut error = Error::new(code_of(source), message).because(source);
        error.0.no_room = is_no_room(source);
        if source.kind() == std::io::ErrorKind::FileTooLarge {
            error = error.hint("see the limit on files' sizes: ulimit -f");
        }
        if error.0.no_room {
            error = error.hint(make_room(source, Some(path)));
        }
        error.detail("path", path.display().to_string())
    }
}

/// What was found, or what is wrong with it.
///
/// # Errors
/// Nobody could look ([`Error::is_blind`]): then nobody knows.
pub fn looked_at<T>(found: Result<T>) -> Result<Result<T>> {
    match found {
        Err(e) if e.is_blind() => Err(e),
        found => Ok(found),
    }
}

/// What was found, if nothing is wrong with it.
///
/// # Errors
/// As [`looked_at`].
pub fn sound<T>(found: Result<Option<T>>) -> Result<Option<T>> {
    Ok(looked_at(found)?.ok().flatten())
}

/// What to type where a file system has no room, or the user's quota is used up.
fn make_room(e: &std::io::Error, path: Option<&Path>) -> String {
    let on = path.and_then(|path| path.ancestors().skip(1).find(|dir| dir.is_dir()));
    let look = match (e.kind(), on) {
        (std::io::ErrorKind::QuotaExceeded, _) => "quota -s".to_owned(),
        (_, Some(dir)) => format!("df -h {}", dir.display()),
        (_, None) => "df -h".to_owned(),
    };
    format!("make room there: {look}; `bg-vm ls` and `bg-image ls` show what can be removed")
}

fn is_no_room(e: &std::io::Error) -> bool {
    matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// The code that an I/O error belongs to.
fn code_of(e: &std::io::Error) -> Code {
    match e.kind() {
        std::io::ErrorKind::PermissionDenied => Code::Permission,
        std::io::ErrorKind::AlreadyExists => Code::Exists,
        _ => Code::Io,
    }
}

impl Error {
    /// The same error for somebody who does not find the files below `dir` any more: hint and details name none of them, and the
    /// hint has `instead` in place of what it said of them.
    #[must_use]
    pub fn without_files(mut self, dir: &Path, instead: Option<&str>) -> Self {
        let dir = format!("{}/", dir.display());
        self.0.details.retain(|(_, value)| !value.starts_with(&dir));
        if let Some(hint) = self.0.hint.take_if(|hint| hint.contains(&dir)) {
            let kept = hint.split("; ").filter(|part| !part.contains(&dir)).chain(instead);
            self.0.hint = Some(kept.collect::<Vec<_>>().join("; ")).filter(|hint| !hint.is_empty());
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}

/// `fs_err` already names the path in its message, so `?` on its calls says enough.
impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        let mut error = Error::new(code_of(&e), e.to_string());
        error.0.no_room = is_no_room(&e);
        if error.0.no_room {
            error = error.hint(make_room(&e, None));
        }
        match std::error::Error::source(&e) {
            Some(source) => error.because(source),
            None => error,
        }
    }
}

impl From<nix::errno::Errno> for Error {
    fn from(e: nix::errno::Errno) -> Self {
        let code =
            if e == nix::errno::Errno::EPERM || e == nix::errno::Errno::EACCES { Code::Permission } else { Code::Os };
        Error::new(code, e.desc()).detail("errno", format!("{e:?}"))
    }
}

/// What went wrong with several things, done one after the other past every error: the first error, with the others as
/// its causes.
#[derive(Debug, Default)]
pub struct Failures(Option<Error>);

impl Failures {
    /// One more.
    pub fn add(&mut self, e: Error) {
        self.0 = Some(match self.0.take() {
            Some(first) => first.also(e.to_string()),
            None => e,
        });
    }

    /// All of them as one error.
    pub fn result(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// Adds what was being done to an error of any kind.
pub trait Context<T> {
    /// `what` becomes the sentence, the error its cause: `.context("cannot read the package index")`.
    fn context(self, what: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for Result<T, E> {
    fn context(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|e| e.into().within(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_word_of_its_own_and_a_documented_status() {
        let documented = [64, 65, 66, 69, 70, 71, 72, 73, 74, 75, 77, 78, 130, 143, 255];
        for (i, code) in Code::ALL.iter().enumerate() {
            assert!(documented.contains(&code.exit()), "{code:?}");
            assert!(Code::ALL[..i].iter().all(|c| c.as_str() != code.as_str()), "{code:?}");
        }
    }

    #[test]
    fn causes_run_from_the_outside_in() {
        let io = std::io::Error::other("disk on fire");
        let e = Error::from(io).within("cannot save the record").within("cannot create dev");
        assert_eq!(e.message(), "cannot create dev");
        assert_eq!(e.causes(), ["cannot save the record", "disk on fire"]);
    }

    #[test]
    fn a_full_file_system_is_told_with_what_to_type() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let dir = std::env::temp_dir();
        let e = Error::io("write", &dir.join("not/there/yet"), &full);
        assert!(e.get_hint().is_some_and(|hint| hint.contains(&format!("df -h {};", dir.display()))), "{e:?}");
        assert!(Error::from(full).get_hint().is_some_and(|hint| hint.contains("df -h;")));
        let quota = std::io::Error::from(std::io::ErrorKind::QuotaExceeded);
        assert!(Error::from(quota).get_hint().is_some_and(|hint| hint.contains("quota -s")));
        assert!(Error::from(std::io::Error::other("x")).get_hint().is_none());
    }
}
