//! ports: what listens in a guest, by its agent, and how that is reached from here.

use super::{ListArgs, for_each, targets};
use crate::cli::table::render;
use crate::cli::{Answer, Context};
use lib_common::doc::{API_VERSION, Listener, Listeners, Name, PortInfo, Protocol, SSH_PORT, to_json};
use lib_common::error::{Code, Error, Result};
use lib_machine::guest::card::Card;
use lib_machine::guest::http::get_listeners;
use lib_machine::guest::live::Live;
use lib_machine::store::MachineDir;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// An agent that looks through its guest's processes takes a while under emulation.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ports below this one are for root to listen on; a forward gets one above.
const FIRST_UNPRIVILEGED: u16 = 1024;
const ABOVE: u16 = 8000;

/// `bg-vm ports`: a document for each listener, VM by VM.
pub fn ports(cx: &mut Context<'_>, names: &[Name], file: Option<PathBuf>, args: ListArgs) -> Result<Answer> {
    let targets = targets(cx, names, file)?;
    let mut found: Vec<PortInfo> = vec![];
    for_each(cx, &targets, |cx, target| {
        cx.stages.begin("ask");
        let name = &target.name;
        let machine = cx.store().machine(name)?;
        if !target.is(&machine)? {
            let error = Error::new(Code::NotRunning, format!("the VM `{name}` of the document does not run"));
            return Err(error.hint("it was removed, and one made that has its name"));
        }
        let (listeners, card) = ask(&machine)?;
        found.extend(listeners.listeners.into_iter().map(|listener| info(name, listener, card)));
        if listeners.omitted > 0 {
            cx.remark(&format!("{name}: {} more listeners are not listed", listeners.omitted));
        }
        Ok(())
    })?;
    if !args.table.unwrap_or(cx.stdout_is_terminal) {
        found.iter().for_each(|port| cx.emit_line(&to_json(port)));
        return Ok(Answer::Done);
    }
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    cx.emit_text(&render(&["VM", "PROTOCOL", "LISTENS", "PROCESS", "REACH"], &rows));
    Ok(Answer::Done)
}

fn ask(machine: &MachineDir) -> Result<(Listeners, Card)> {
    let (live, doc) = Live::in_store(machine)?;
    let name = &live.name;
    let listeners = get_listeners(&live.vsock, PATIENCE).map_err(|e| live.explain(e))?.ok_or_else(|| {
        let error = Error::new(Code::GuestUnreachable, format!("the agent in `{name}` is too old to list listeners"));
        error.hint(
            "a VM keeps the agent of its image's kernel bundle: `bg-kernel build | bg-image reconcile IMAGE \
                    --kernel -` renews that of an image, for VMs made after it",
        )
    })?;
    Ok((listeners, Card::of(&doc)?))
}

fn info(machine: &Name, listener: Listener, card: Card) -> PortInfo {
    let reach = reach(&listener, card);
    PortInfo {
        api_version: API_VERSION.into(),
        kind: "Port".into(),
        machine: machine.clone(),
        hint: if reach.is_none() { hint(machine, &listener) } else { None },
        protocol: listener.protocol,
        address: listener.address,
        port: listener.port,
        process: listener.process,
        pid: listener.pid,
        reach,
    }
}

/// The address to use, where the listener takes what comes by the card and the card is here. Whether a listener on `::`
/// refuses IPv4 is nowhere to be read; few do.
fn reach(listener: &Listener, card: Card) -> Option<String> {
    let Card::Here(address) = card else { return None };
    let by_card = listener.address.is_unspecified() || listener.address == IpAddr::V4(address);
    by_card.then(|| format!("{address}:{}", listener.port))
}

/// What reaches it over SSH, which carries TCP.
fn hint(machine: &Name, listener: &Listener) -> Option<String> {
    let Listener { protocol, address, port, .. } = listener;
    if *protocol == Protocol::Udp {
        return None;
    }
    let host = match address {
        any if any.is_unspecified() => "localhost".to_owned(),
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    if u32::from(*port) == SSH_PORT && (address.is_unspecified() || address.is_loopback()) {
        return Some(format!("bg-ssh {machine}"));
    }
    let local = if *port < FIRST_UNPRIVILEGED { port + ABOVE } else { *port };
    Some(format!("bg-ssh -L {local}:{host}:{port} {machine}"))
}

fn row(port: &PortInfo) -> Vec<String> {
    let process = match (&port.process, port.pid) {
        (Some(name), Some(pid)) => format!("{name} ({pid})"),
        (None, Some(pid)) => format!("({pid})"),
        (name, None) => name.clone().unwrap_or_else(|| "-".into()),
    };
    let reach = port.reach.as_ref().or(port.hint.as_ref());
    vec![
        port.machine.to_string(),
        port.protocol.as_str().to_owned(),
        std::net::SocketAddr::new(port.address, port.port).to_string(),
        process,
        reach.cloned().unwrap_or_else(|| "-".into()),
    ]
}

#[cfg(test)]
mod tests;
