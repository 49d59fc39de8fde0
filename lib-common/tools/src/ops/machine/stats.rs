//! stats: what a VM uses, from /proc and from its agent.

use super::{for_each, is_running, targets};
use crate::cli::{Answer, Context};
use lib_common::doc::{Disks, Document, Name, Stats, Vmm};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::fs::allocated_bytes;
use lib_common::sys::process::{self, ProcessId};
use lib_machine::guest::http;
use lib_machine::store::{MachineDir, id_of, vm_lock};
use std::path::PathBuf;
use std::time::Duration;

/// `bg-vm stats`: sets the section `stats`. An agent that does not answer leaves its fields out.
pub fn stats(cx: &mut Context<'_>, names: &[Name], file: Option<PathBuf>) -> Result<Answer> {
    let targets = targets(cx, names, file)?;
    for_each(cx, &targets, |cx, target| {
        cx.stages.begin("measure");
        let name = &target.name;
        let machine = cx.store().machine(name)?;
        vm_lock::refuse_elsewhere(machine.path())?;
        let mut doc = machine.current()?;
        if !target.is(&machine)? || !is_running(&doc)? {
            let error = Error::new(Code::NotRunning, format!("the VM `{name}` does not run"));
            return Err(error.hint(format!("bg-vm start {name}")));
        }
        let stats = measure(&machine, &doc)?;
        doc.set(&stats);
        cx.emit(target.answer(doc)?)
    })?;
    Ok(Answer::Done)
}

fn measure(machine: &MachineDir, doc: &Document) -> Result<Stats> {
    let (disks, vmm): (Disks, Vmm) = (doc.require()?, doc.require()?);
    let live = machine.running(&id_of(doc)?)?;
    let (mut processes, mut ticks) = (vec![], 0);
    for id in live.into_iter().flat_map(|s| [Some(s.shim), s.vmm, s.vsock_device]).flatten().map(ProcessId::from) {
        if id.is_alive()? {
            ticks += process::stat(id.pid)?.map_or(0, |stat| stat.cpu_ticks);
            processes.push(id.pid);
        }
    }
    let vmm_pid = processes.iter().find(|pid| **pid == vmm.pid);
    let (io_read_bytes, io_write_bytes) = vmm_pid.map_or((0, 0), |pid| process::io_bytes(*pid));
    let health = http::get_health(&vmm.vsock, Duration::from_secs(2)).ok();
    Ok(Stats {
        cpu_ms: process::ticks_to_ms(ticks),
        rss_bytes: processes.iter().map(|pid| process::rss_bytes(*pid)).sum(),
        io_read_bytes,
        io_write_bytes,
        root_allocated_bytes: allocated_bytes(&disks.root.path),
        work_allocated_bytes: allocated_bytes(&disks.work.path),
        guest_uptime_ms: health.as_ref().map(|h| h.uptime_ms),
        guest_root_used_bytes: health.as_ref().map(|h| h.root_used_bytes),
        guest_root_total_bytes: health.as_ref().and_then(|h| h.root_total_bytes),
        guest_work_used_bytes: health.as_ref().map(|h| h.work_used_bytes),
        guest_work_total_bytes: health.as_ref().and_then(|h| h.work_total_bytes),
        guest_memory_available_bytes: health.as_ref().map(|h| h.memory_available_bytes),
    })
}
