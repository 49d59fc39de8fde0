//! release: a VM's TAP goes back to the pool, and its address too, if that is asked for.

use super::explain;
use crate::cli::{Answer, Context, Source};
use crate::ops::machine::is_running;
use lib_common::doc::{Document, Kind, Name, Net};
use lib_common::error::{Code, Error, Result};
use lib_machine::config::Config;
use lib_machine::net::name::{self, Holder, MachineId};
use lib_machine::net::pool::GivenBack;
use lib_machine::net::{Open, Space};
use lib_machine::store::id_of;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// What `bg-tap release` takes.
#[derive(Clone, Debug, Default)]
pub struct ReleaseArgs {
    /// A VM of the store.
    pub name: Option<Name>,
    /// A file with a document.
    pub file: Option<PathBuf>,
    /// A TAP, whoever has it.
    pub tap: Option<String>,
    /// An address, whoever has it without a TAP.
    pub address: Option<Ipv4Addr>,
    /// Give the address back, too.
    pub with_address: bool,
}

/// `bg-tap release`. What was given back already is fine.
pub fn release(cx: &mut Context<'_>, args: &ReleaseArgs) -> Result<Answer> {
    if let Some(tap) = &args.tap {
        cx.stages.begin("release");
        release_tap(&cx.config, tap, args.with_address).map_err(explain)?;
        return Ok(Answer::Done);
    }
    if let Some(address) = args.address {
        cx.stages.begin("release");
        Open::current(&cx.config.net_dir, cx.config.lock_wait)?.give_up(address).map_err(explain)?;
        return Ok(Answer::Done);
    }
    let doc = match &args.name {
        Some(name) => of_store(cx, name, args.with_address)?,
        None => {
            let mut doc = cx.document(&Source { name: None, file: args.file.clone() }, Kind::Machine)?;
            cx.stages.begin("release");
            of_document(&cx.config, &mut doc, args.with_address).map_err(explain)?;
            doc
        }
    };
    cx.emit(doc)?;
    Ok(Answer::Done)
}

/// Of a VM in the store: its record changes with it.
fn of_store(cx: &mut Context<'_>, name: &Name, with_address: bool) -> Result<Document> {
    cx.stages.begin("lock");
    let machine = cx.store().machine(name)?;
    let _lock = machine.lock()?;
    let mut doc = machine.current()?;
    if is_running(&doc)? {
        return Err(Error::new(Code::InUse, format!("the VM `{name}` runs, and its TAP is in use"))
            .hint(format!("bg-vm stop {name}")));
    }
    cx.stages.begin("release");
    of_document(&cx.config, &mut doc, with_address).map_err(explain)?;
    cx.stages.begin("record");
    machine.save(&doc)?;
    Ok(doc)
}

/// Of the VM of a document: its section `net` then says what the VM still has.
pub fn of_document(config: &Config, doc: &mut Document, with_address: bool) -> Result<()> {
    let id = name::machine_id(&id_of(doc)?)?;
    let Some(mut net) = doc.section::<Net>()? else { return Ok(()) };
    let space = Space::current(&config.net_dir, config.lock_wait)?;
    if net.netns == space.netns() {
        give_back(config, &id, &net, with_address)?;
    } else if lib_common::sys::netns::is_alive(net.netns)? {
        return Err(lib_machine::net::elsewhere(net.netns));
    }
    if with_address {
        doc.remove("net");
    } else {
        net.tap = None;
        doc.set(&net);
    }
    Ok(())
}

/// What a VM has in the network of this namespace; with its address, if that is asked for. A network that is gone is fine.
pub fn give_back(config: &Config, id: &MachineId, net: &Net, with_address: bool) -> Result<()> {
    let network = match Open::current(&config.net_dir, config.lock_wait) {
        // `bg-tap down` took it all.
        Err(e) if e.code() == Code::NotFound => return Ok(()),
        other => other?,
    };
    give_back_to(&network, id, net, with_address)
}

/// The same, in a network that is open.
pub(super) fn give_back_to(network: &Open, id: &MachineId, net: &Net, with_address: bool) -> Result<()> {
    if let Some(tap) = &net.tap {
        network.pool()?.give_back(tap, Some(id))?;
    }
    if with_address { network.leases()?.give_up(id, net.address.address()) } else { Ok(()) }
}

fn release_tap(config: &Config, tap: &str, with_address: bool) -> Result<()> {
    let network = Open::current(&config.net_dir, config.lock_wait)?;
    match network.pool()?.give_back(tap, None)? {
        GivenBack::From(Holder::Machine { id, address, .. }) if with_address => network.leases()?.give_up(&id, address),
        GivenBack::From(_) | GivenBack::Nothing => Ok(()),
    }
}
