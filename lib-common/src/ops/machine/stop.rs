//! stop, kill: the guest's own shutdown first, by force only when it does not come.

use super::{Target, for_each, is_running, targets};
use crate::cli::{Answer, Context};
use crate::doc::{Document, Name, ShimState, Vmm};
use crate::error::Result;
use crate::guest::http;
use crate::ops::tap;
use crate::store::{MachineDir, id_of, is_started_by, paused_in};
use crate::sys::fs::is_read_only;
use crate::vmm;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the agent may take to accept a shutdown.
const AGENT_WAIT: Duration = Duration::from_secs(5);

/// How often a VM that shuts down is looked at, whether it is paused.
const LOOKS_EVERY: Duration = Duration::from_millis(500);

/// What `bg-vm stop` takes.
#[derive(Clone, Debug)]
pub struct StopArgs {
    /// The document's file, where no name is given.
    pub file: Option<PathBuf>,
    /// How long the guest may take to shut down before it is killed.
    pub timeout: Duration,
}

/// `bg-vm stop`: asks the agent, waits, and says when it had to kill. A VM that does not run is no error.
pub fn stop(cx: &mut Context<'_>, names: &[Name], args: &StopArgs) -> Result<Answer> {
    let targets = targets(cx, names, args.file.clone())?;
    for_each(cx, &targets, |cx, target| {
        let doc = stop_one(cx, target, args)?;
        cx.emit(doc)
    })?;
    Ok(Answer::Done)
}

/// `bg-vm kill`: ends the VMM now, as if the power failed.
pub fn kill(cx: &mut Context<'_>, names: &[Name], file: Option<PathBuf>) -> Result<Answer> {
    let targets = targets(cx, names, file)?;
    for_each(cx, &targets, |cx, target| {
        let (machine, _lock) = target.lock(cx)?;
        kill_locked(cx, &machine)?;
        let doc = settled(cx, &machine)?;
        cx.emit(target.answer(doc)?)
    })?;
    Ok(Answer::Done)
}

pub(super) fn stop_one(cx: &mut Context<'_>, target: &Target, args: &StopArgs) -> Result<Document> {
    let (machine, _lock) = target.lock(cx)?;
    let doc = machine.current()?;
    if is_running(&doc)?
        && let Err(why) = shut_down(cx, (&machine, &doc), args.timeout)?
    {
        cx.remark(&format!("{} did not shut down ({why}) and was killed", target.name));
        kill_locked(cx, &machine)?;
    }
    target.answer(settled(cx, &machine)?)
}

/// Asks the agent, or else init by its keys, and waits until the VM has ended. The inner error says why it did not.
fn shut_down(
    cx: &mut Context<'_>,
    (machine, doc): (&MachineDir, &Document),
    wait: Duration,
) -> Result<Result<(), String>> {
    let answers_within = cx.config.guest_deadline(AGENT_WAIT);
    let (id, section): (String, Vmm) = (id_of(doc)?, doc.require()?);
    let Some(state) = machine.running(&id)? else { return Ok(Ok(())) };
    let dir = machine.runtime_dir(&id)?;
    if let Err(why) = wait_while_paused(&dir, &state, wait)? {
        return Ok(Err(why));
    }
    cx.stages.begin("ask_agent");
    if let Err(e) = http::post_shutdown(&section.vsock, answers_within) {
        crate::sys::signal::check()?;
        let Some(api) = &section.api else { return Ok(Err(e.to_string())) };
        cx.stages.begin("press_keys");
        if let Err(unpressed) = vmm::press_ctrl_alt_del(api, Instant::now() + answers_within) {
            crate::sys::signal::check()?;
            return Ok(Err(format!("{e}; {unpressed}")));
        }
        cx.remark(&format!("{}: {e}, so Ctrl+Alt+Del was pressed", machine.name()));
    }
    cx.stages.begin("shutdown");
    // A guest writes as it shuts down, and may be paused for that.
    let deadline = Instant::now() + wait;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if vmm::wait_end(&state, left.min(LOOKS_EVERY))? {
            return Ok(Ok(()));
        }
        if let Err(why) = wait_while_paused(&dir, &state, left)? {
            return Ok(Err(why));
        }
        if left.is_zero() {
            return Ok(Err(format!("it had {} s", wait.as_secs_f64())));
        }
    }
}

/// Waits while a paused VM is about to go on, at most `wait`: a paused guest cannot shut down. The inner error says why it
/// stays paused.
fn wait_while_paused(dir: &Path, state: &ShimState, wait: Duration) -> Result<Result<(), String>> {
    let deadline = Instant::now() + wait.min(vmm::GOES_ON_WITHIN);
    while let Some(paused) = paused_in(dir) {
        if !vmm::can_go_on(&paused) || Instant::now() >= deadline {
            return Ok(Err(format!("it is paused: {paused}")));
        }
        if vmm::wait_end(state, LOOKS_EVERY)? {
            break;
        }
    }
    Ok(Ok(()))
}

/// Ends the VM by its shim, whatever state it is in; the caller holds the lock.
pub(super) fn kill_locked(cx: &mut Context<'_>, machine: &MachineDir) -> Result<()> {
    cx.stages.begin("kill");
    let id = id_of(&machine.document()?)?;
    let dir = machine.runtime_dir(&id)?;
    match machine.running(&id)? {
        Some(state) => vmm::end_running(&dir, state),
        None if is_started_by(&dir, machine.path())? => vmm::end(&dir),
        None => Ok(()),
    }
}

/// The record once the VM does not run: saved without `vmm` and without its TAP, given with its status.
fn settled(cx: &mut Context<'_>, machine: &MachineDir) -> Result<Document> {
    let mut record = machine.document()?;
    let before = record.to_line();
    cx.stages.begin("network");
    tap::detach(cx, &mut record, false)?;
    record.remove("vmm");
    if record.to_line() != before
        && let Err(e) = machine.save(&record)
    {
        if !is_read_only(machine.path()) {
            return Err(e);
        }
        // It has ended all the same, and whether a VM runs is never read from its record.
        cx.remark(&format!("{}: the state directory is read-only, so its record stays as it was", machine.name()));
    }
    machine.current()
}
