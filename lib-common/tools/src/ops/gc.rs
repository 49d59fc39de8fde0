//! bg-gc: removes what it reads, if a fresh look still calls it a leak.

use super::audit::{self, Found, VerifyArgs};
use crate::cli::{Answer, Context};
use lib_common::doc::{API_VERSION, Finding, strict, to_json};
use lib_common::error::{Code, Error, Failures, Result};

/// What `bg-gc` takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct GcArgs {
    /// Young things too.
    pub now: bool,
    /// Say what would be removed, and remove nothing.
    pub dry_run: bool,
}

/// Reads findings, looks again, and removes those that are leaks now. Prints what it removed. Goes on past errors.
pub fn gc(cx: &mut Context<'_>, args: GcArgs) -> Result<Answer> {
    let asked = cx.lines()?.iter().map(|line| parse(line)).collect::<Result<Vec<_>>>()?;
    if asked.is_empty() {
        return Ok(Answer::Done);
    }
    cx.stages.begin("audit");
    let store = cx.store();
    let fresh = audit::audit(&store, &cx.config, VerifyArgs { now: args.now, deep: false })?;
    cx.stages.begin("remove");
    let mut failed = Failures::default();
    for finding in &asked {
        if let Err(e) = audit::refuse_elsewhere(&store, finding) {
            failed.add(e.within(format!("cannot remove the {} {}", finding.kind, finding.id)));
        }
    }
    for found in fresh.iter().filter(|f| f.finding.is_leak && asked.iter().any(|a| same(a, &f.finding))) {
        lib_common::sys::signal::check()?;
        match if args.dry_run { Ok(true) } else { audit::mend(&store, &cx.config, found) } {
            Ok(true) => cx.emit_line(&to_json(&found.finding)),
            // Somebody works on it by now.
            Ok(false) => {}
            Err(e) => failed.add(e.within(format!("cannot remove {}", describe(found)))),
        }
    }
    failed.result().map(|()| Answer::Done)
}

fn parse(line: &str) -> Result<Finding> {
    let finding: Finding = strict(line).map_err(|e| e.within("this is not a finding"))?;
    match finding.api_version.as_str() {
        API_VERSION => Ok(finding),
        other => Err(Error::new(Code::BadDocument, format!("unknown api_version `{other}`; known: `{API_VERSION}`"))),
    }
}

fn same(asked: &Finding, found: &Finding) -> bool {
    asked.kind == found.kind && asked.id == found.id
}

fn describe(found: &Found) -> String {
    format!("the {} {}", found.finding.kind, found.finding.id)
}
