//! bg-doctor: can this host run VMs, will this image boot, and what is each setting. Changes nothing. The facts are
//! looked up in one place ([`Host::look`]); every check is a function of them.

mod bundle;
mod forward;
mod image;
mod kvm;
mod network;
mod programs;
mod storage;
mod version;

pub use image::check as image;

use crate::cli::table::render;
use crate::cli::{Answer, Context};
use lib_common::doc::{Check, VmmKind, to_json};
use lib_common::error::Result;
use lib_common::sys::host;

/// What `bg-doctor` takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct DoctorArgs {
    /// A table or a document; without it a table on a terminal.
    pub table: Option<bool>,
}

/// Who asks: what mends a host is typed with `sudo` by all but root.
#[derive(Clone, Debug)]
struct Caller {
    name: String,
    root: bool,
}

impl Caller {
    fn this() -> Self {
        let uid = host::caller_uid();
        let user = nix::unistd::User::from_uid(uid).ok().flatten();
        Caller { name: user.map_or_else(|| uid.to_string(), |user| user.name), root: host::caller_is_root() }
    }

    /// The command as this caller has to type it.
    fn sudo(&self, command: &str) -> String {
        lib_common::sys::cmd::by_root(self.root, command)
    }
}

/// `bg-doctor`: a [`lib_common::doc::Report`] on the host; [`Answer::No`] where something is missing that VMs need. What is
/// merely slower or less has passed, and says what would be better.
///
/// # Errors
/// What keeps the host from being looked at.
pub fn host(cx: &mut Context<'_>, args: DoctorArgs) -> Result<Answer> {
    let caller = Caller::this();
    let mut checks = vec![];
    cx.stages.begin("kvm");
    let kvm = kvm::Facts::look(&cx.config);
    let vmm = kvm.choice.as_ref().map_or(VmmKind::Qemu, |choice| choice.kind);
    checks.extend(kvm::checks(&kvm, &caller));
    cx.stages.begin("programs");
    checks.extend(programs::checks(&programs::Facts::look(&cx.config)?, vmm, &caller));
    cx.stages.begin("network");
    checks.extend(network::checks(&network::Facts::look()?, &caller));
    cx.stages.begin("storage");
    checks.extend(storage::checks(cx, &caller)?);
    cx.stages.begin("bundle");
    checks.push(bundle::check(cx)?);
    report(cx, "host".into(), checks, args)
}

/// `bg-doctor --print-config`: a [`lib_common::doc::Setting`] a line.
pub fn print_config(cx: &mut Context<'_>, args: DoctorArgs) -> Result<Answer> {
    let settings = cx.config.settings();
    if !args.table.unwrap_or(cx.stdout_is_terminal) {
        settings.iter().for_each(|setting| cx.emit_line(&to_json(setting)));
        return Ok(Answer::Done);
    }
    let rows: Vec<Vec<String>> =
        settings.into_iter().map(|s| vec![s.key, s.value.unwrap_or_else(|| "-".into()), s.origin]).collect();
    cx.emit_text(&render(&["KEY", "VALUE", "ORIGIN"], &rows));
    Ok(Answer::Done)
}

/// The document, or on a terminal what people read: a line for each check, and below it what mends it.
fn report(cx: &mut Context<'_>, subject: String, checks: Vec<Check>, args: DoctorArgs) -> Result<Answer> {
    if !args.table.unwrap_or(cx.stdout_is_terminal) {
        return cx.report(subject, checks);
    }
    let row = |check: &Check| {
        let verdict = match (check.ok, &check.fix) {
            (true, None) => "ok",
            (true, Some(_)) => "better",
            (false, _) => "NO",
        };
        vec![check.name.clone(), verdict.to_owned(), check.message.clone()]
    };
    let rows: Vec<Vec<String>> = checks.iter().map(row).collect();
    cx.emit_text(&render(&["CHECK", "OK", "SEEN"], &rows));
    let fixes: Vec<Vec<String>> =
        checks.iter().filter_map(|check| Some(vec![check.name.clone(), check.fix.clone()?])).collect();
    if !fixes.is_empty() {
        cx.emit_text("\n");
        cx.emit_text(&render(&["CHECK", "FIX"], &fixes));
    }
    Ok(if checks.iter().all(|check| check.ok) { Answer::Done } else { Answer::No })
}

#[cfg(test)]
mod tests;
