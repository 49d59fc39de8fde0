//! hosts: the names of VMs for /etc/hosts, and for guests that booted before others had theirs.

use super::is_running;
use crate::cli::{Answer, Context};
use crate::ops::tap::own_uid;
use lib_common::doc::{Host, Net, to_json};
use lib_common::error::{Code, Error, Failures, Result};
use lib_common::sys::cmd::Streams;
use lib_machine::guest::ssh::{self, Session};
use lib_machine::net::Open;
use lib_machine::store::MachineDir;
use std::time::Duration;

/// How long a guest may take to be told.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

/// What replaces our lines in the guest's `/etc/hosts`.
const COMMAND: &str = "/run/banger/guest-agent hosts";

/// `bg-vm hosts`: hosts(5) of the caller's VMs in this network namespace, by address. With `update` those that run are
/// told, too.
pub fn hosts(cx: &mut Context<'_>, update: bool) -> Result<Answer> {
    cx.stages.begin("list");
    let network = Open::current(&cx.config.net_dir, cx.config.lock_wait)?;
    let uid = own_uid();
    let hosts = network.hosts(false)?.of_user(&network.leases_to_read()?, uid)?;
    let line = |Host { address, name }: &Host| format!("{address}\t{name} {name}.vm\n");
    cx.emit_text(&hosts.iter().map(line).collect::<String>());
    if update {
        cx.stages.begin("update");
        tell_all(cx, &hosts, network.space.netns())?;
    }
    Ok(Answer::Done)
}

fn tell_all(cx: &mut Context<'_>, hosts: &[Host], netns: u64) -> Result<()> {
    let mut failed = Failures::default();
    let store = cx.store();
    for name in store.machine_names()? {
        lib_common::sys::signal::check()?;
        let machine = store.machine_dir(&name);
        if let Err(e) = tell(cx, &machine, hosts, netns) {
            failed.add(e.within(format!("the VM `{}` was not told", machine.name())));
        }
    }
    failed.result()
}

/// Tells one guest of the others, if it runs in this network.
fn tell(cx: &Context<'_>, machine: &MachineDir, hosts: &[Host], netns: u64) -> Result<()> {
    let doc = match machine.current() {
        // It is being made or removed.
        Err(e) if e.code() == Code::NotFound => return Ok(()),
        other => other?,
    };
    let in_this = doc.section::<Net>()?.is_some_and(|net| net.netns == netns);
    if !in_this || !is_running(&doc)? {
        return Ok(());
    }
    let others: Vec<&Host> = hosts.iter().filter(|host| host.name != *machine.name()).collect();
    let stdin = lib_common::sys::fs::unnamed(to_json(&others).as_bytes())?;
    // The system's ssh, not a session of our own, which would load OpenSSL whenever `bg-vm` starts.
    let target = crate::ops::ssh::target(machine, &doc, TOLD_WITHIN, cx)?;
    let cmd = ssh::command(&target, Session { command: Some(COMMAND), tty: false, forwards: &[] })?;
    let child = cmd.spawn(Streams { stdin: stdin.into(), ..Streams::default() })?;
    if !child.pidfd().wait(TOLD_WITHIN)? {
        let message = format!("it did not take them within {} s", TOLD_WITHIN.as_secs());
        return Err(Error::new(Code::GuestUnreachable, message));
    }
    child.finish().map_err(|e| {
        e.with_code(Code::GuestUnreachable)
            .hint("a VM that was started by an older banger learns the names when it is started again")
    })
}
