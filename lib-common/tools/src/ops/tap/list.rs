//! ls, pool ls: TAPs and addresses, and who has them.

use crate::cli::table::render;
use crate::cli::{Answer, Context};
use crate::ops::machine::ListArgs;
use lib_common::doc::{API_VERSION, TapInfo, to_json};
use lib_common::error::Result;
use lib_common::sys::netlink::link::Link;
use lib_machine::net::Open;
use lib_machine::net::name::{self, Holder, MachineId};
use lib_machine::net::pool;
use std::net::Ipv4Addr;

/// `bg-tap ls`: what VMs have, TAPs first, then addresses that are kept for VMs without one.
pub fn ls(cx: &mut Context<'_>, args: ListArgs) -> Result<Answer> {
    cx.stages.begin("list");
    let network = Open::current(&cx.config.net_dir, cx.config.lock_wait)?;
    let taps = pool::look(&network.netlink)?;
    let mut found: Vec<TapInfo> = vec![];
    for (_, link) in &taps {
        if let Some(Holder::Machine { id, address, .. }) = Holder::parse(&link.alias) {
            found.push(info(Some(link), Some((id, address))));
        }
    }
    for (address, id) in network.leases_to_read()?.all()? {
        if found.iter().all(|tap| tap.address != Some(address)) {
            found.push(info(None, Some((id, address))));
        }
    }
    print(cx, args, &found)
}

/// `bg-tap pool ls`: the idle TAPs.
pub fn pool_ls(cx: &mut Context<'_>, args: ListArgs) -> Result<Answer> {
    cx.stages.begin("list");
    let network = Open::current(&cx.config.net_dir, cx.config.lock_wait)?;
    let taps = pool::look(&network.netlink)?;
    let idle = taps.iter().filter(|(_, link)| Holder::parse(&link.alias) == Some(Holder::Pool));
    let found: Vec<TapInfo> = idle.map(|(_, link)| info(Some(link), None)).collect();
    print(cx, args, &found)
}

fn info(link: Option<&Link>, machine: Option<(MachineId, Ipv4Addr)>) -> TapInfo {
    TapInfo {
        api_version: API_VERSION.into(),
        kind: "Tap".into(),
        tap: link.map(|link| link.name.clone()),
        machine_id: machine.map(|(id, _)| name::hex(&id)),
        address: machine.map(|(_, address)| address),
        owner_uid: link.and_then(|link| link.tun_owner),
        open: link.is_some_and(|link| link.carrier),
    }
}

fn print(cx: &mut Context<'_>, args: ListArgs, found: &[TapInfo]) -> Result<Answer> {
    if !args.table.unwrap_or(cx.stdout_is_terminal) {
        found.iter().for_each(|tap| cx.emit_line(&to_json(tap)));
        return Ok(Answer::Done);
    }
    let row = |tap: &TapInfo| {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        vec![
            or_none(tap.tap.clone()),
            or_none(tap.machine_id.clone()),
            or_none(tap.address.map(|address| address.to_string())),
            or_none(tap.owner_uid.map(|uid| uid.to_string())),
            if tap.open { "yes" } else { "no" }.into(),
        ]
    };
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    cx.emit_text(&render(&["TAP", "MACHINE", "ADDRESS", "OWNER", "OPEN"], &rows));
    Ok(Answer::Done)
}
