//! What VMs of the store need of the network: a card for one that starts, and nothing kept for one that is gone.

use super::acquire::{Lent, tell_of_refill};
use super::up::ADD_A_ROUTE;
use super::{UpArgs, Wants, acquire_for, explain, own_uid, refill};
use crate::cli::Context;
use crate::doc::{AbsPath, Document, Host, IdentityNet, LaunchNet, Name, Net, Spec, Undo};
use crate::error::{Code, Error, Result};
use crate::net::{Open, Space, give_back_held, name};
use crate::store::{Operation, id_of};
use crate::sys::tun;

/// What a VM's card is made of.
pub(in crate::ops) struct Card {
    /// For the VMM.
    pub launch: LaunchNet,
    /// For the guest.
    pub identity: IdentityNet,
    /// The other VMs of its user.
    pub hosts: Vec<Host>,
}

/// Why a VM of this caller gets no card, where it cannot have one.
pub(in crate::ops) fn refused() -> Option<String> {
    if own_uid() != 0 {
        return Some("networks are root's".into());
    }
    let opened = std::fs::File::options().read(true).write(true).open(tun::DEVICE);
    opened.err().map(|e| format!("{} cannot be opened: {e}", tun::DEVICE))
}

/// An address and a TAP for the VM of that document, in its section `net`; the journal knows before it is so. A VM that is
/// to have no card has no such section. The network of this namespace is made where there is none. `is_new`: the address goes
/// with the VM, should this operation fail; so does one that the VM did not have before, of which its record does not tell then.
pub(in crate::ops) fn attach(
    cx: &mut Context<'_>,
    doc: &mut Document,
    (operation, is_new): (&mut Operation, bool),
) -> Result<Option<Card>> {
    let spec: Spec = doc.require()?;
    if !spec.net {
        doc.remove("net");
        return Ok(None);
    }
    cx.stages.begin("journal");
    let had: Option<Net> = doc.section()?;
    let id = id_of(doc)?;
    let wants = Wants { id: name::machine_id(&id)?, name: doc.name()?, had, nat: spec.nat, owner: own_uid() };
    let space = Space::current(&cx.config)?;
    let network_dir = AbsPath::new(space.dir())?;
    let had_none = wants.had.as_ref().is_none_or(|net| net.netns != space.netns());
    if let Some(undo) = intent(cx, doc, is_new || had_none)? {
        operation.intend(undo)?;
    }
    let Lent { network, net, .. } = acquire(cx, &wants).map_err(|e| no_card(explain(e)))?;
    doc.set(&net);
    let hosts = network.hosts(false)?.of_user(&network.leases_to_read()?, wants.owner)?;
    let tap = net.tap.ok_or_else(|| Error::new(Code::Internal, "a TAP was acquired and has no name"))?;
    let nameservers = if spec.nat { network.record.nameservers.clone() } else { vec![] };
    if spec.nat && nameservers.is_empty() {
        cx.remark(&no_name_server(&wants.name));
    }
    Ok(Some(Card {
        launch: LaunchNet { tap, mac: net.mac, network_dir },
        identity: IdentityNet { address: net.address, gateway: net.gateway, nameservers },
        hosts: hosts.into_iter().filter(|host| host.name != wants.name).collect(),
    }))
}

/// What takes back what [`attach`] does for the VM of that document, where it has a card. What root lent to somebody else is
/// not theirs to give back.
pub(in crate::ops) fn intent(cx: &Context<'_>, doc: &Document, with_address: bool) -> Result<Option<Undo>> {
    let spec: Spec = doc.require()?;
    if !spec.net || own_uid() != 0 {
        return Ok(None);
    }
    let network_dir = AbsPath::new(Space::current(&cx.config)?.dir())?;
    Ok(Some(Undo::GiveBackTap { network_dir, machine_id: id_of(doc)?, with_address }))
}

/// As [`acquire_for`], in a network that is made as the VM needs it where it is not so already.
fn acquire(cx: &mut Context<'_>, wants: &Wants) -> Result<Lent> {
    let (config, stages) = (&cx.config, &mut cx.stages);
    match acquire_for(config, stages, wants) {
        Err(e) if e.code() == Code::NotFound && own_uid() == 0 => {
            stages.begin("network_up");
            let nat = wants.nat.then_some(true);
            // The hint of `bg-tap` would lead back to here.
            let no_way_out = |e: Error| match e.code() {
                Code::NotFound if wants.nat => e.hint(format!("{ADD_A_ROUTE}, or make the VM without --nat")),
                _ => e,
            };
            super::make_network(config, stages, &UpArgs { nat, ..UpArgs::default() }).map_err(no_way_out)?;
            acquire_for(config, stages, wants)
        }
        other => other,
    }
}

/// What a VM with NAT is told where its network has no name server.
fn no_name_server(name: &Name) -> String {
    format!(
        "warning: {name} has no name server: this host names none that guests reach; \
         `BG_NAMESERVERS=ADDRESS bg-tap up --nat`, and `bg-vm restart {name}`, give it one"
    )
}

fn no_card(e: Error) -> Error {
    let e = e.within("the VM gets no network card");
    if e.get_hint().is_some() { e } else { e.hint("--no-net makes one without") }
}

/// A TAP for the next VM, when nobody waits any more for this one.
pub(in crate::ops) fn refill_after(cx: &mut Context<'_>) -> Result<()> {
    if own_uid() != 0 {
        return Ok(());
    }
    cx.hand_on()?;
    cx.stages.begin("refill");
    let refilled = Open::current(&cx.config).and_then(|network| refill(&network, own_uid()));
    tell_of_refill(cx, refilled);
    Ok(())
}

/// Gives back the TAP of a VM that does not run, and its address too where it is gone. What only root may give back stays
/// the VM's, or is told. In another namespace the VM's shim has given the TAP back; the record says so when it is started.
pub(in crate::ops) fn detach(cx: &mut Context<'_>, doc: &mut Document, is_gone: bool) -> Result<()> {
    let Some(net) = doc.section::<Net>()? else { return Ok(()) };
    if net.tap.is_none() && !is_gone {
        return Ok(());
    }
    let is_here = Space::current(&cx.config)?.netns() == net.netns;
    match super::of_document(&cx.config, doc, is_gone) {
        Err(e) if !is_gone && (e.code() == Code::Permission || !is_here) => Ok(()),
        Err(e) if is_gone => {
            let tap = net.tap.map_or_else(|| format!("address {}", net.address.address()), |tap| format!("TAP {tap}"));
            cx.remark(&format!("its {tap} was not given back: {}; `bg-verify` as root tells of it", e.with_causes()));
            Ok(())
        }
        other => other,
    }
}

/// Gives back what the network of this namespace has for a VM that is gone, whatever its record told of that.
pub(in crate::ops) fn forget(cx: &mut Context<'_>, doc: &Document) -> Result<()> {
    if own_uid() != 0 {
        return Ok(());
    }
    let space = Space::current(&cx.config)?;
    if let Err(e) = give_back_held(space.dir(), &id_of(doc)?) {
        cx.remark(&format!("its address was not given back: {}; `bg-verify` as root tells of it", e.with_causes()));
    }
    Ok(())
}
