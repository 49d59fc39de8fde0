//! The checks of a verification: their names, what mends each, and what has come of them.

use lib_common::doc::{Check, Name};
use lib_common::error::{Code, Error, Result};

/// What was seen: as it should be, or else.
pub(super) type Outcome = Result<String, String>;

/// What needs a login.
pub(super) const IN_SESSION: [&str; 5] = ["shell", "environment", "work_disk", "units", "manifest"];

/// What has come of the checks so far.
pub(super) struct Checks {
    image: Name,
    made: Vec<Check>,
}

impl Checks {
    /// None yet.
    pub fn of(image: &Name) -> Self {
        Checks { image: image.clone(), made: vec![] }
    }

    /// One was made.
    pub fn add(&mut self, name: &str, outcome: Outcome) {
        let ok = outcome.is_ok();
        let (Ok(message) | Err(message)) = outcome;
        self.made.push(Check::new(name, ok, message, &fix(name, &self.image)));
    }

    /// Some could not be made, which is no better than to have failed.
    pub fn cannot(&mut self, names: &[&str], why: &str) {
        for name in names {
            self.add(name, Err(format!("not checked: {why}")));
        }
    }

    /// All, in their order.
    pub fn finish(self) -> Vec<Check> {
        self.made
    }
}

/// An error that says something of the image or its guest is an answer; all others end the verification.
pub(super) fn answer<T>(result: Result<T>) -> Result<Result<T, Error>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(e) => match e.code() {
            Code::GuestUnreachable
            | Code::NotRunning
            | Code::TimedOut
            | Code::VmmFailed
            | Code::MissingFile
            | Code::BadInput
            | Code::BootCheck => Ok(Err(e)),
            _ => Err(e),
        },
    }
}

/// The same for a check itself.
pub(super) fn outcome(result: Result<Outcome>) -> Result<Outcome> {
    Ok(answer(result)?.unwrap_or_else(|e| Err(e.with_causes())))
}

fn fix(check: &str, image: &Name) -> String {
    let changed = format!("bg-image-build --base {image} --run FILE | bg-register --name {image} --replace");
    match check {
        "health" | "shutdown" => {
            format!(
                "where `untouched` is fine, see what the guest does: bg-vm create look --image {image}; bg-vm logs look"
            )
        }
        "init" => format!("/sbin/init of the image has to be its distribution's own: {changed}"),
        "ssh" => format!("sshd of the image has to start, and to let root in with a key: {changed}"),
        "shell" => format!("root's shell has to be a shell, and its startup files silent: {changed}"),
        "environment" => format!("sshd, PAM or the shell's startup files set it: {changed}"),
        "units" => format!("mend or disable what has failed: {changed}"),
        "work_disk" => format!("bg-seed check {image}; bg-image reconcile {image} makes the seeds anew"),
        "manifest" => "build the image again: what is in it is not what was written down".into(),
        "file_systems" => "build the image again: a clean shutdown has to leave clean file systems".into(),
        _ => format!("bg-image reconcile {image} for kernel and seeds; else register the image again"),
    }
}
