//! acquire: an address and a TAP for a VM; and a new idle TAP for the next one, when that VM has its own.

use super::release::give_back_to;
use super::up::ensure_rules;
use super::{explain, own_uid};
use crate::cli::{Answer, Context, Source};
use lib_common::doc::{Cidr, Host, Kind, Name, Net, Spec};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::typed_by_root;
use lib_common::timing::Stages;
use lib_machine::config::Config;
use lib_machine::net::lease::{Lease, store_tag};
use lib_machine::net::name::{self, Holder, MachineId};
use lib_machine::net::pool::Pool;
use lib_machine::net::{Open, subnet};
use lib_machine::store::id_of;
use std::path::PathBuf;

/// What `bg-tap acquire` takes.
#[derive(Clone, Debug, Default)]
pub struct AcquireArgs {
    /// The document; else it comes from stdin.
    pub file: Option<PathBuf>,
    /// The user that may open the TAP; the caller, where none is given.
    pub owner: Option<u32>,
}

/// `bg-tap acquire`: the section `net`. The idle TAPs are one fewer then, so one is made when the document is out.
pub fn acquire(cx: &mut Context<'_>, args: &AcquireArgs) -> Result<Answer> {
    let mut doc = cx.document(&Source { name: None, file: args.file.clone() }, Kind::Machine)?;
    let id = name::machine_id(&id_of(&doc)?)?;
    let (had, spec): (Option<Net>, Option<Spec>) = (doc.section()?, doc.section()?);
    if spec.as_ref().is_some_and(|spec| !spec.net) {
        cx.remark(&format!("the VM `{}` was planned without a network card, and gets none", doc.name()?));
        cx.emit(doc)?;
        return Ok(Answer::Done);
    }
    let owner = args.owner.unwrap_or_else(own_uid);
    let config = cx.config.clone();
    let wants = Wants { id, name: doc.name()?, had, nat: spec.is_some_and(|s| s.nat), owner };
    let lent = acquire_for(&config, &mut cx.stages, &wants).map_err(explain)?;
    doc.set(&lent.net);
    let handed_on = lib_common::sys::signal::check().and_then(|()| cx.emit(doc)).and_then(|()| cx.hand_on());
    if let Err(e) = handed_on {
        return Err(match lent.take_back(&wants) {
            Ok(()) => e,
            Err(left) => e.also(left.to_string()),
        });
    }
    cx.stages.begin("refill");
    tell_of_refill(cx, refill(&lent.network, owner));
    Ok(Answer::Done)
}

impl Lent {
    /// Nobody knows that the VM has it. What it had before it keeps.
    fn take_back(&self, wants: &Wants) -> Result<()> {
        let _shield = lib_common::sys::signal::shield();
        if self.new_tap || self.new_address {
            give_back_to(&self.network, &wants.id, &self.net, self.new_address && wants.had.is_none())?;
        }
        Ok(())
    }
}

/// The VM at hand has its TAP, so that the next one has none is a remark.
pub(super) fn tell_of_refill(cx: &mut Context<'_>, refilled: Result<()>) {
    if let Err(e) = refilled {
        cx.remark(&format!("no TAP was made for the next VM: {}", e.with_causes()));
    }
}

/// What a VM is to get.
#[derive(Clone, Debug)]
pub struct Wants {
    /// Its id.
    pub id: MachineId,
    /// Its name, which other VMs of the same owner get to know.
    pub name: Name,
    /// What it had when it ran last.
    pub had: Option<Net>,
    /// Whether it is to reach other networks.
    pub nat: bool,
    /// The user that may open the TAP.
    pub owner: u32,
}

/// What a VM has of a network now.
pub struct Lent {
    /// The network.
    pub network: Open,
    /// The VM's card.
    pub net: Net,
    /// Whether it did not have that TAP before.
    pub new_tap: bool,
    /// Whether it did not have that address before.
    pub new_address: bool,
}

/// An address and a TAP in the network of this namespace. What a VM has already it keeps. The stage `create_tap` shows
/// that no TAP was idle.
///
/// # Errors
/// [`Code::InUse`] where the VM of that id is another user's: a document may say whatever its writer likes.
pub fn acquire_for(config: &Config, stages: &mut Stages, wants: &Wants) -> Result<Lent> {
    stages.begin("network");
    let network = Open::current(&config.net_dir, config.lock_wait)?;
    if wants.nat && network.record.uplinks.is_empty() {
        return Err(Error::new(Code::NotFound, "the VM is to reach other networks, and this network leads to none")
            .hint(typed_by_root("bg-tap up --nat")));
    }
    let had = wants.had.as_ref();
    if let Some(net) = had.filter(|net| net.netns == network.space.netns())
        && has_tap(&network, net, wants)?
    {
        let net = net.clone();
        return Ok(Lent { network, net, new_tap: false, new_address: false });
    }
    let (tap, new_tap, lease) = lend(config, &network, stages, wants)?;
    let net = Net {
        netns: network.space.netns(),
        bridge: network.record.bridge.clone(),
        tap: Some(tap),
        mac: name::mac(&wants.id),
        address: Cidr::new(lease.address, network.record.subnet.prefix())?,
        gateway: subnet::gateway(network.record.subnet),
    };
    Ok(Lent { network, net, new_tap, new_address: lease.new })
}

/// Whether the VM has that TAP still. One that its user may open, and nobody but root gave it, is looked at alone.
fn has_tap(network: &Open, net: &Net, wants: &Wants) -> Result<bool> {
    let Some(tap) = net.tap.as_ref().filter(|tap| name::number(tap).is_some()) else { return Ok(false) };
    let holder = Holder::Machine { id: wants.id, address: net.address.address(), nat: wants.nat };
    let link = network.netlink.link(tap)?;
    Ok(link.is_some_and(|link| Holder::parse(&link.alias) == Some(holder) && link.tun_owner == Some(wants.owner)))
}

/// A TAP, whether the VM did not have it before, and its address.
fn lend(config: &Config, network: &Open, stages: &mut Stages, wants: &Wants) -> Result<(String, bool, Lease)> {
    stages.begin("lease");
    let pool = network.pool()?;
    let _hurry = pool.hurry()?;
    let leases = network.leases()?;
    // In which store another user has the VM is not known here.
    let store = if wants.owner == own_uid() { store_tag(wants.owner, &config.state_dir) } else { 0 };
    // Before anything is lent: where it is damaged nobody has what he is not told of.
    let hosts = network.hosts(true)?;
    let lease = leases.lease(&wants.id, wants.had.as_ref().map(|net| net.address.address()), store)?;
    if !lease.new {
        let user = hosts.user_of(&wants.id, lease.address)?;
        user.filter(|uid| *uid != wants.owner).map_or(Ok(()), |uid| Err(anothers(uid)))?;
        leases.sign(&wants.id, lease.address, store)?;
    }
    let host = Host { address: lease.address, name: wants.name.clone() };
    hosts.note(&wants.id, wants.owner, &host)?;
    match take((network, &pool), stages, wants, &lease) {
        Ok((tap, new)) => Ok((tap, new, lease)),
        Err(e) if lease.new => leases.give_up(&wants.id, lease.address).and(Err(e)),
        Err(e) => Err(e),
    }
}

fn anothers(uid: u32) -> Error {
    Error::new(Code::InUse, format!("the VM of that id has a card already, which is user {uid}'s"))
        .hint("each VM has an id of its own: `bg-vm plan NAME` makes one; `--owner` says whose VM it is")
}

fn take(
    (network, pool): (&Open, &Pool<'_>),
    stages: &mut Stages,
    wants: &Wants,
    lease: &Lease,
) -> Result<(String, bool)> {
    stages.begin("tap");
    let holder = Holder::Machine { id: wants.id, address: lease.address, nat: wants.nat };
    // Whoever was to tell of the VM's TAP may have been killed before.
    let had = if lease.new { None } else { pool.of(&holder)? };
    if let Some(uid) = had.as_ref().and_then(|(_, owner)| *owner).filter(|uid| *uid != wants.owner) {
        return Err(anothers(uid));
    }
    let (new, had) = (had.is_none(), had.map(|(tap, _)| tap));
    let tap = match had.map_or_else(|| pool.take(wants.owner, &holder), |tap| Ok(Some(tap)))? {
        Some(tap) => tap,
        None => {
            stages.begin("create_tap");
            pool.make(wants.owner, &holder)?
        }
    };
    super::going::refuse(network, &tap, &holder)?;
    if wants.nat {
        stages.begin("nat");
        if let Err(e) = ensure_rules(network).and_then(|()| network.admit(&wants.id, lease.address)) {
            pool.give_back(&tap, Some(&wants.id))?;
            return Err(e);
        }
    }
    Ok((tap, new))
}

/// Makes one idle TAP for that user, where fewer are idle than there should be; and the rules, where they are gone.
pub fn refill(network: &Open, owner: u32) -> Result<()> {
    // Not before: it is one question more, and the VM has not begun yet.
    ensure_rules(network)?;
    let pool = network.pool()?;
    if pool.target()? == 0 {
        return Ok(());
    }
    let _turn = pool.turn()?;
    if pool.idle(owner)? < pool.target()? {
        pool.make(owner, &Holder::Pool)?;
    }
    Ok(())
}
