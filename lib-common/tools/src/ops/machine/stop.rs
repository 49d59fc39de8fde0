//! stop, kill: the guest's own shutdown first, by force only when it does not come.

use super::{Target, for_each, is_running, targets};
use crate::cli::{Answer, Context};
use crate::ops::tap;
use lib_common::doc::{Document, Name, ShimState, Vmm};
use lib_common::error::Result;
use lib_common::sys::fs::is_read_only;
use lib_machine::guest::http;
use lib_machine::store::{MachineDir, id_of, is_started_by, paused_in, vm_lock};
use lib_machine::vmm::{self, files};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the agent may take to accept a shutdown.
const AGENT_WAIT: Duration = Duration::from_secs(5);

/// Between two looks whether a guest is up.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How often a VM that shuts down is looked at, whether it is paused.
const LOOKS_EVERY: Duration = Duration::from_millis(500);

/// How long a guest that reboots may be without a socket.
const BETWEEN_BOOTS: Duration = Duration::from_secs(5);

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

/// Waits for the agent, asks it, or else init by its keys, and waits until the VM has ended. The inner error says why it did not.
fn shut_down(
    cx: &mut Context<'_>,
    (machine, doc): (&MachineDir, &Document),
    wait: Duration,
) -> Result<Result<(), String>> {
    let (answers_within, deadline) = (cx.config.guest_deadline(AGENT_WAIT), Instant::now() + wait);
    let (id, section): (String, Vmm) = (id_of(doc)?, doc.require()?);
    let Some(state) = machine.running(&id)? else { return Ok(Err("its bg-shim is gone".into())) };
    let dir = machine.runtime_dir(&id)?;
    if let Err(why) = wait_while_paused(&dir, &state, deadline)? {
        return Ok(Err(why));
    }
    cx.stages.begin("boot_guest");
    match wait_up(&section.vsock, &state, deadline)? {
        Boot::Up => {}
        Boot::Ended => return Ok(Ok(())),
        Boot::UnderWay => return Ok(Err(format!("its guest was not up after {} s", wait.as_secs_f64()))),
    }
    cx.stages.begin("ask_agent");
    if let Err(e) = http::post_shutdown(&section.vsock, answers_within) {
        lib_common::sys::signal::check()?;
        let Some(api) = &section.api else { return Ok(Err(e.to_string())) };
        cx.stages.begin("press_keys");
        if let Err(unpressed) = vmm::press_ctrl_alt_del(api, Instant::now() + answers_within) {
            lib_common::sys::signal::check()?;
            return Ok(Err(format!("{e}; {unpressed}")));
        }
        cx.remark(&format!("{}: {e}, so Ctrl+Alt+Del was pressed", machine.name()));
    }
    cx.stages.begin("shutdown");
    let ended = wait_end(&dir, &state, deadline)?;
    Ok(ended.map_err(|why| why.unwrap_or_else(|| format!("it had {} s", wait.as_secs_f64()))))
}

/// Waits, at most until `deadline`, until a VM that shuts down has ended. A guest writes then, and may be paused for that: the
/// inner error says why it stays so; `None` is one that had no time left.
fn wait_end(dir: &Path, state: &ShimState, deadline: Instant) -> Result<Result<(), Option<String>>> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if vmm::wait_end(state, left.min(LOOKS_EVERY))? {
            return Ok(Ok(()));
        }
        if let Err(why) = wait_while_paused(dir, state, deadline)? {
            return Ok(Err(Some(why)));
        }
        if left.is_zero() {
            return Ok(Err(None));
        }
    }
}

/// Waits while a paused VM is about to go on, at most until `deadline`: a paused guest cannot shut down. The inner error says
/// why it stays paused.
fn wait_while_paused(dir: &Path, state: &ShimState, deadline: Instant) -> Result<Result<(), String>> {
    let deadline = deadline.min(Instant::now() + vmm::GOES_ON_WITHIN);
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

/// What became of a guest's boot.
enum Boot {
    /// The agent has been there.
    Up,
    /// It has not come in time.
    UnderWay,
    /// The VM has ended.
    Ended,
}

/// Waits, at most until `deadline`, for the agent of a guest that boots: until then no one could ask the guest to shut down.
fn wait_up(vsock: &Path, state: &ShimState, deadline: Instant) -> Result<Boot> {
    let begun = Instant::now();
    let is_booting = || {
        // Between two boots of a guest its socket has neither name.
        let is_between = begun.elapsed() < BETWEEN_BOOTS && vsock.parent().is_some_and(Path::is_dir);
        vsock.with_file_name(files::VSOCK_EARLY).exists() || is_between && !vsock.exists()
    };
    while is_booting() {
        let now = Instant::now();
        if now >= deadline {
            return Ok(Boot::UnderWay);
        }
        if vmm::wait_end(state, LOOK_AGAIN.min(deadline - now))? {
            return Ok(Boot::Ended);
        }
    }
    Ok(Boot::Up)
}

/// Ends the VM by its shim, whatever state it is in; the caller holds the lock.
pub(super) fn kill_locked(cx: &mut Context<'_>, machine: &MachineDir) -> Result<()> {
    cx.stages.begin("kill");
    let id = id_of(&machine.document()?)?;
    let dir = machine.runtime_dir(&id)?;
    match machine.running(&id)? {
        Some(state) => vmm::end_running(&dir, state)?,
        None if is_started_by(&dir, machine.path())? => vmm::end(&dir)?,
        None => {}
    }
    vm_lock::check_ended(machine.path())
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
