//! rm: idempotent, and going on past errors.

use super::{Target, for_each, targets};
use crate::cli::{Answer, Context};
use crate::doc::Name;
use crate::error::{Code, Error, Result};
use crate::ops::tap;
use crate::store::{MachineDir, id_of, remove_by_rename};
use crate::sys::fs::remove_dir;
use crate::vmm;
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
    let targets = targets(cx, names, args.file.clone())?;
    for_each(cx, &targets, |cx, target| rm_one(cx, target, args.force))?;
    Ok(Answer::Done)
}

fn rm_one(cx: &mut Context<'_>, target: &Target, force: bool) -> Result<()> {
    cx.stages.begin("lock");
    let store = cx.store();
    let machine = store.machine_dir(&target.name);
    if !machine.path().exists() {
        return Ok(());
    }
    let _lock = match machine.lock() {
        Err(e) if e.code() == Code::NotFound => return Ok(()),
        other => other?,
    };
    if machine.record_file().exists() && !target.is(&machine)? {
        cx.remark(&format!("the VM of the document is gone; another one is named `{}` by now", target.name));
        return Ok(());
    }
    cx.stages.begin("kill");
    for dir in runtime_dirs(&machine)? {
        if !force && vmm::lives(&dir)? {
            let name = &target.name;
            return Err(Error::new(Code::InUse, format!("the VM `{name}` runs"))
                .hint(format!("bg-vm stop {name} && bg-vm rm {name}, or bg-vm rm --force {name}")));
        }
        vmm::end(&dir)?;
        remove_dir(&dir)?;
    }
    if let Ok(mut doc) = machine.document() {
        cx.stages.begin("network");
        tap::detach(cx, &mut doc, true)?;
    }
    cx.stages.begin("remove");
    // A journal that cannot be read must not keep the VM: whatever of it runs was found above.
    if machine.journal().open_operation().is_ok() {
        machine.journal().undo_open()?;
    }
    remove_by_rename(&store, machine.path())
}

/// The VM's runtime directory by its record; by what its starters left, where that is damaged or missing.
fn runtime_dirs(machine: &MachineDir) -> Result<Vec<PathBuf>> {
    match machine.document().and_then(|doc| machine.runtime_dir(&id_of(&doc)?)) {
        Ok(dir) => Ok(vec![dir.to_path_buf()]),
        Err(_) => machine.launched_dirs(),
    }
}
