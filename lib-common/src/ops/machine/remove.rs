//! rm: idempotent, and going on past errors.

use super::{Target, for_each, let_leave, targets};
use crate::cli::{Answer, Context};
use crate::doc::{Name, Undo};
use crate::error::{Code, Error, Failures, Result, looked_at};
use crate::net::give_back_all;
use crate::ops::tap;
use crate::store::{MachineDir, free_name, id_of, is_started_by, processes, shim_lives, shim_state, vm_lock};
use crate::sys::fs::remove_dir;
use crate::sys::lock::Lock;
use crate::sys::process::ProcessId;
use crate::sys::thread;
use crate::vmm;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

/// So many VMs' directories wait to be removed; each holds a descriptor.
const WAITING: usize = 32;

/// What `bg-vm rm` takes.
#[derive(Clone, Debug)]
pub struct RemoveArgs {
    /// The document's file, where no name is given.
    pub file: Option<PathBuf>,
    /// Remove it even if it runs.
    pub force: bool,
}

/// A VM's directory that is in staging by now, with the VM's lock, which keeps `bg-gc` away.
type Staged = (PathBuf, Lock);

/// `bg-vm rm`: VM, disks, sockets and record. What is gone already is fine. Of several, the files of one are removed while
/// the next is looked at.
pub fn rm(cx: &mut Context<'_>, names: &[Name], args: &RemoveArgs) -> Result<Answer> {
    let targets = targets(cx, names, args.file.clone())?;
    if let [target] = &targets[..] {
        rm_one(cx, target, args.force)?.map_or(Ok(()), |(path, _lock)| remove_dir(&path))?;
        return Ok(Answer::Done);
    }
    let (send, staged) = sync_channel::<Staged>(WAITING);
    let (freed, removed) = std::thread::scope(|scope| {
        let remover = thread::scoped(scope, || remove_all(staged))?;
        let freed = for_each(cx, &targets, |cx, target| match rm_one(cx, target, args.force)? {
            // Nobody receives any more after a panic alone, which is told below.
            Some(staged) => send.send(staged).or(Ok(())),
            None => Ok(()),
        });
        drop(send);
        Ok::<_, Error>((freed, remover.join().unwrap_or_else(|e| std::panic::resume_unwind(e))))
    })?;
    let mut failed = Failures::default();
    [freed, removed].into_iter().filter_map(Result::err).for_each(|e| failed.add(e));
    failed.result().map(|()| Answer::Done)
}

/// Goes on past errors; what stays, `bg-gc` removes.
fn remove_all(staged: Receiver<Staged>) -> Result<()> {
    let mut failed = Failures::default();
    for (path, _lock) in staged {
        if let Err(e) = remove_dir(&path) {
            failed.add(e);
        }
    }
    failed.result()
}

/// Ends the VM and frees its name. `None` where there is nothing (more) to remove.
fn rm_one(cx: &mut Context<'_>, target: &Target, force: bool) -> Result<Option<Staged>> {
    cx.stages.begin("lock");
    let store = cx.store();
    let machine = store.machine_dir(&target.name);
    if let Err(e) = store.machine(&target.name) {
        return if e.code() == Code::NotFound { absent(cx, &e) } else { Err(e) };
    }
    let lock = match machine.lock() {
        Err(e) if e.code() == Code::NotFound => return Ok(None),
        other => other?,
    };
    if machine.record_file().exists() && !target.is(&machine)? {
        cx.remark(&format!("the VM of the document is gone; another one is named `{}` by now", target.name));
        return Ok(None);
    }
    cx.stages.begin("kill");
    vm_lock::refuse_elsewhere(machine.path())?;
    let_leave(&machine)?;
    let mut dirs = vec![];
    for dir in runtime_dirs(&machine)? {
        dirs.push((lost_processes(&machine, &dir)?, dir));
    }
    if !force && is_alive(&machine, &dirs)? {
        let name = &target.name;
        return Err(Error::new(Code::InUse, format!("the VM `{name}` runs"))
            .hint(format!("bg-vm stop {name} && bg-vm rm {name}, or bg-vm rm --force {name}")));
    }
    for (lost, dir) in &dirs {
        vmm::end(dir)?;
        lost.iter().try_for_each(ProcessId::end)?;
        remove_dir(dir)?;
    }
    vm_lock::check_ended(machine.path())?;
    cx.stages.begin("network");
    match machine.document() {
        Ok(mut doc) => {
            tap::detach(cx, &mut doc, true)?;
            tap::forget(cx, &doc)?;
        }
        // It was not refused when the lock was taken.
        Err(e) if e.code() == Code::Permission => return Err(e),
        Err(_) => give_back_by_journal(cx, &machine)?,
    }
    cx.stages.begin("remove");
    // A journal that cannot be read must not keep the VM: whatever of it runs was found above.
    if looked_at(machine.journal().open_operation())?.is_ok() {
        machine.journal().undo_open()?;
    }
    Ok(free_name(&store, machine.path())?.map(|path| (path, lock)))
}

/// What is gone already is fine; a slip in its name is to be seen all the same.
fn absent(cx: &mut Context<'_>, e: &Error) -> Result<Option<Staged>> {
    let hint = e.get_hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    cx.remark(&format!("{e}, nothing is removed{hint}"));
    Ok(None)
}

/// Whether a process of the VM lives: a shim of its runtime directories, or whatever holds the VM's lock.
fn is_alive(machine: &MachineDir, dirs: &[(Vec<ProcessId>, PathBuf)]) -> Result<bool> {
    for (lost, dir) in dirs {
        if !lost.is_empty() || shim_lives(dir)? {
            return Ok(true);
        }
    }
    Ok(!vm_lock::wait_free(machine.path(), vm_lock::JUST_ENDING)?)
}

/// The VM's runtime directory by its record; by what its starters left there and in the journal, where that is damaged or
/// missing.
fn runtime_dirs(machine: &MachineDir) -> Result<Vec<PathBuf>> {
    if let Ok(dir) = machine.document().and_then(|doc| machine.runtime_dir(&id_of(&doc)?)) {
        let its = is_started_by(&dir, machine.path())?;
        return Ok(its.then(|| dir.to_path_buf()).into_iter().collect());
    }
    let started_in = machine.journal().last_intents()?.into_iter().filter_map(|undo| match undo {
        Undo::StopVm { runtime_dir } => Some(runtime_dir.to_path_buf()),
        _ => None,
    });
    let mut dirs: Vec<PathBuf> = machine.launched_dirs()?.into_iter().chain(started_in).collect();
    dirs.sort_unstable();
    dirs.dedup();
    Ok(dirs)
}

/// The processes of a VM that may run, where nothing in its runtime directory says which these are.
fn lost_processes(machine: &MachineDir, dir: &Path) -> Result<Vec<ProcessId>> {
    let rests = machine.document().is_ok_and(|doc| !doc.has("vmm"));
    if rests || shim_state(dir)?.is_some() { Ok(vec![]) } else { processes::of_runtime_dir(dir) }
}

/// Gives back what the VM's last start was lent, where its record does not say so any more.
fn give_back_by_journal(cx: &mut Context<'_>, machine: &MachineDir) -> Result<()> {
    for undo in machine.journal().last_intents()? {
        let Undo::GiveBackTap { network_dir, machine_id, .. } = undo else { continue };
        if let Err(e) = give_back_all(&network_dir, &machine_id, true) {
            let e = e.with_causes();
            cx.remark(&format!("its TAP and its address were not given back: {e}; `bg-verify` as root tells of it"));
        }
    }
    Ok(())
}
