//! `bg-health`: the guests' health, now or once it is good.

use crate::cli::{Answer, Context, Source};
use lib_common::doc::{Document, Health, HealthStatus, Kind, Name};
use lib_common::error::{Code, Error, Result};
use lib_machine::guest::http::get_health;
use lib_machine::guest::live::Live;
use lib_machine::store::{MachineDir, boot};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The last attempt before the end of `--wait` gets this much, however little is left.
const LEAST: Duration = Duration::from_millis(100);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// VMs of the store; without any, one document from `file` or stdin.
    pub names: Vec<Name>,
    /// A file with a document.
    pub file: Option<PathBuf>,
    /// Ask again until the guest is healthy, at most so long.
    pub wait: Option<Duration>,
    /// For one answer.
    pub timeout: Duration,
}

/// Where a document comes from.
enum Target {
    Stored(MachineDir),
    Given(Document),
}

/// Sets the section `health` of every document and emits them in order.
///
/// # Errors
/// [`Code::NotRunning`], [`Code::GuestUnreachable`], and [`Code::TimedOut`] where `wait` ran out. With several VMs all
/// are asked, and one error names those that failed.
pub fn run(request: &Request, cx: &mut Context<'_>) -> Result<Answer> {
    let targets = targets(request, cx)?;
    let many = targets.len() > 1;
    let deadline = request.wait.map(|wait| Instant::now() + wait);
    let mut failed = vec![];
    let mut answer = Answer::Done;
    for target in targets {
        cx.stages.begin(if deadline.is_some() { "wait" } else { "connect" });
        match ask(target, request, deadline, cx) {
            Ok((health, mut doc)) => {
                if health.status != HealthStatus::Ok {
                    answer = Answer::No;
                }
                doc.set(&health);
                cx.emit(doc)?;
            }
            Err(e) if many && is_no_answer(&e) => failed.push(e),
            Err(e) => return Err(e),
        }
    }
    if failed.is_empty() { Ok(answer) } else { Err(all_in_one(&failed)) }
}

/// Names are looked up before any guest is asked, so that a misspelt one costs no time.
fn targets(request: &Request, cx: &mut Context<'_>) -> Result<Vec<Target>> {
    if request.names.is_empty() {
        let source = Source { name: None, file: request.file.clone() };
        return Ok(vec![Target::Given(cx.document(&source, Kind::Machine)?)]);
    }
    let store = cx.store();
    request.names.iter().map(|name| store.machine(name).map(Target::Stored)).collect()
}

fn ask(
    target: Target,
    request: &Request,
    deadline: Option<Instant>,
    cx: &mut Context<'_>,
) -> Result<(Health, Document)> {
    let (live, doc) = match target {
        Target::Stored(machine) => Live::in_store(&machine)?,
        Target::Given(doc) => (Live::of(&doc)?, doc),
    };
    let Some(deadline) = deadline else {
        let health = get_health(&live.vsock, request.timeout).map_err(|e| live.explain(named(&live.name, e)))?;
        return Ok((health, with_boot(doc, &live)?));
    };
    let since = cx.stages.begun_ms();
    let health = live.retry(deadline, || {
        let left = deadline.saturating_duration_since(Instant::now()).max(LEAST);
        let health = get_health(&live.vsock, request.timeout.min(left))?;
        if health.sshd_answers
            && let Some(booted) = live.booted()
        {
            booted.note_banner(since)?;
        }
        if health.status == HealthStatus::Ok {
            return Ok(health);
        }
        let state = describe(&health);
        cx.stages.note(&format!("{}: {state}", live.name));
        Err(Error::new(Code::GuestUnreachable, state))
    })?;
    // The guest's own stages say what was waited for, so that this time is not counted twice.
    if live.booted().is_some_and(|booted| booted.was_watched_since(since)) {
        cx.stages.end_as_part("guest.wait");
    }
    Ok((health, with_boot(doc, &live)?))
}

/// A document that was given may have the stages of another boot, or not yet those of this one.
fn with_boot(mut doc: Document, live: &Live) -> Result<Document> {
    doc.replace_timings(boot::GUEST, &boot::timings(live.runtime_dir()))?;
    Ok(doc)
}

fn named(name: &Name, e: Error) -> Error {
    match e.code() {
        Code::GuestUnreachable => e
            .within(format!("the VM `{name}` does not answer"))
            .hint(format!("`bg-health --wait 60 {name}` waits while it boots; `bg-vm logs {name}` shows its console")),
        _ => e,
    }
}

/// `starting: sshd does not answer yet`.
pub(in crate::ops) fn describe(health: &Health) -> String {
    let word = match health.status {
        HealthStatus::Ok => "ok",
        HealthStatus::Starting => "starting",
        HealthStatus::Degraded => "degraded",
    };
    if health.problems.is_empty() { word.into() } else { format!("{word}: {}", health.problems.join("; ")) }
}

fn is_no_answer(e: &Error) -> bool {
    matches!(e.code(), Code::NotRunning | Code::GuestUnreachable | Code::TimedOut)
}

/// One error for all: a time-out only where that is all there was.
fn all_in_one(failed: &[Error]) -> Error {
    let same = failed.iter().all(|e| e.code() == failed[0].code());
    let code = if same { failed[0].code() } else { Code::GuestUnreachable };
    let what = if failed.len() == 1 { "one VM is not healthy" } else { "several VMs are not healthy" };
    failed.iter().fold(Error::new(code, what), |error, e| {
        let inner = e.causes().last().map(|c| format!(": {c}")).unwrap_or_default();
        error.also(format!("{}{inner}", e.message()))
    })
}

#[cfg(test)]
mod tests;
