//! VMs: from a plan to their removal.

mod create;
mod hosts;
mod limits;
mod list;
mod logs;
mod ports;
mod remove;
mod start;
mod stats;
mod stop;

pub use create::{CreateArgs, PlanArgs, clone, create, plan};
pub(in crate::ops) use create::{claim, image_name, launch_disks, link_kernel, planned};
pub use hosts::hosts;
pub(in crate::ops) use list::DAMAGED;
pub use list::{ListArgs, ls, show};
pub use logs::{LogsArgs, logs};
pub use ports::ports;
pub use remove::{RemoveArgs, rm};
pub(in crate::ops) use start::{Claimed, Hardware, boot, choosing, identity};
pub use start::{restart, start};
pub use stats::stats;
pub use stop::{StopArgs, kill, stop};

use crate::cli::{Context, Source};
use crate::doc::{Document, Kind, Name, Status};
use crate::error::{Code, Error, Failures, Result, looked_at};
use crate::store::{MachineDir, boot, id_of, vm_lock};
use crate::sys::lock::Lock;
use crate::sys::process::ProcessId;
use std::path::PathBuf;
use std::time::Duration;

/// How long a shim may take from its last word to its end.
const LEAVES_WITHIN: Duration = Duration::from_secs(5);

/// What the verbs know better than a document that was given to them.
const OURS: [&str; 5] = ["net", "vmm", "guest", "status", "stats"];

/// A VM that a verb works on.
struct Target {
    name: Name,
    /// The document that says which one; without it, it is the one that has the name.
    given: Option<Document>,
}

/// The VMs that a verb works on: the names given, or the one of the document at `file` or on stdin.
fn targets(cx: &mut Context<'_>, names: &[Name], file: Option<PathBuf>) -> Result<Vec<Target>> {
    if !names.is_empty() {
        return Ok(names.iter().map(|name| Target { name: name.clone(), given: None }).collect());
    }
    let given = cx.document(&Source { name: None, file }, Kind::Machine)?;
    Ok(vec![Target { name: given.name()?, given: Some(given) }])
}

/// Waits until a shim has left that has said how its VM ended: whoever ended it may have been killed before he could. To be
/// called with the VM's lock.
fn let_leave(machine: &MachineDir) -> Result<()> {
    if machine.exit_info()?.is_none() {
        return Ok(());
    }
    let Ok(id) = looked_at(machine.document().and_then(|doc| id_of(&doc)))? else { return Ok(()) };
    if let Some(state) = machine.running(&id)?
        && let Some(shim) = ProcessId::from(state.shim).open()?
    {
        shim.wait(LEAVES_WITHIN)?;
    }
    Ok(())
}

/// Does it for one VM after the other, going on past errors, which come back as one.
fn for_each(
    cx: &mut Context<'_>,
    targets: &[Target],
    mut work: impl FnMut(&mut Context<'_>, &Target) -> Result<()>,
) -> Result<()> {
    let mut failed = Failures::default();
    for target in targets {
        if let Err(e) = work(cx, target) {
            failed.add(e);
        }
        crate::sys::signal::check()?;
    }
    failed.result()
}

impl Target {
    /// Its directory, with its lock held. A VM that runs in another pid namespace is refused: no verb can end it from here.
    fn lock(&self, cx: &mut Context<'_>) -> Result<(MachineDir, Lock)> {
        cx.stages.begin("lock");
        let machine = cx.store().machine(&self.name).map_err(|e| self.explain(e))?;
        let lock = machine.lock()?;
        if self.is(&machine)? {
            vm_lock::refuse_elsewhere(machine.path())?;
            return Ok((machine, lock));
        }
        let message = format!("the document is of another VM than the one named `{}`", self.name);
        Err(Error::new(Code::BadDocument, message).hint("it was removed, and one made that has its name"))
    }

    /// The error of a VM that is not there, where its document is a plan that nobody has carried out.
    fn explain(&self, e: Error) -> Error {
        match &self.given {
            Some(given) => not_made(given, e),
            None => e,
        }
    }

    /// Whether that is the VM that was meant: another one may have its name by now.
    fn is(&self, machine: &MachineDir) -> Result<bool> {
        match &self.given {
            Some(given) => Ok(id_of(given)? == id_of(&machine.document()?)?),
            None => Ok(true),
        }
    }

    /// What the verb prints: the VM's document, or the one that was given with what is ours in it replaced.
    fn answer(&self, now: Document) -> Result<Document> {
        let Some(mut doc) = self.given.clone() else { return Ok(now) };
        doc.adopt(&now, &OURS);
        doc.adopt_timings(&now, boot::GUEST)?;
        Ok(doc)
    }
}

/// The error of a VM that is not there, with what to type where its document is only a plan.
pub(in crate::ops) fn not_made(doc: &Document, e: Error) -> Error {
    let (Code::NotFound, false, Ok(name)) = (e.code(), doc.has("disks"), doc.name()) else { return e };
    Error::new(Code::NotFound, format!("the VM `{name}` is planned, and not made yet"))
        .hint(format!("bg-vm plan {name} | bg-seed clone | bg-vm start, or in one: bg-vm create {name}"))
}

/// True if the document that [`MachineDir::current`] gave is of a VM that runs or is paused, in whichever pid namespace.
pub(super) fn is_running(doc: &Document) -> Result<bool> {
    Ok(doc.section::<Status>()?.is_some_and(|s| s.state.lives()))
}
