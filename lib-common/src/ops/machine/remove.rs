//! rm: idempotent, and going on past errors.

use super::{is_running, stop::kill_locked, targets};
use crate::cli::{Answer, Context};
use crate::doc::Name;
use crate::error::{Code, Error, Result};
use crate::store::{id_of, remove_by_rename};
use crate::sys::fs::remove_dir;
use std::path::PathBuf;

/// What `bg-vm rm` takes.
#[derive(Clone, Debug)]
pub struct RemoveArgs {
    /// The document's file, where no name is given.
    pub file: Option<PathBuf>,
    /// Remove it even if it runs.
    pub force: bool,
}

/// `bg-vm rm`: VM, disks, sockets and record. What is gone already is fine.
pub fn rm(cx: &mut Context<'_>, names: &[Name], args: &RemoveArgs) -> Result<Answer> {
    let mut failed: Option<Error> = None;
    for name in targets(cx, names, args.file.clone())? {
        if let Err(e) = rm_one(cx, &name, args.force) {
            failed = Some(match failed {
                Some(first) => first.also(e.to_string()),
                None => e,
            });
            crate::sys::signal::check()?;
        }
    }
    failed.map_or(Ok(Answer::Done), Err)
}

fn rm_one(cx: &mut Context<'_>, name: &Name, force: bool) -> Result<()> {
    cx.stages.begin("lock");
    let store = cx.store();
    let machine = store.machine_dir(name);
    if !machine.path().exists() {
        return Ok(());
    }
    let _lock = match machine.lock() {
        Err(e) if e.code() == Code::NotFound => return Ok(()),
        other => other?,
    };
    // A damaged or missing record hides no processes from `undo_open`, and must not stop the removal.
    if let Ok(doc) = machine.current() {
        if is_running(&doc)? && !force {
            return Err(Error::new(Code::InUse, format!("the VM `{name}` runs"))
                .hint(format!("bg-vm stop {name} && bg-vm rm {name}, or bg-vm rm --force {name}")));
        }
        kill_locked(cx, &machine)?;
        let runtime = machine.runtime_dir(&id_of(&doc)?)?;
        remove_dir(&runtime)?;
    } else {
        machine.journal().undo_open()?;
    }
    cx.stages.begin("remove");
    remove_by_rename(&store, machine.path())
}
