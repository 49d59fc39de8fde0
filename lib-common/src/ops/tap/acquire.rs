//! acquire: an address and a TAP for a VM; and a new idle TAP for the next one, when that VM has its own.

use super::{explain, own_uid};
use crate::cli::{Answer, Context, Source};
use crate::config::Config;
use crate::doc::{Cidr, Kind, Net, Spec};
use crate::error::{Code, Error, Result};
use crate::net::name::{self, Holder, MachineId};
use crate::net::pool::Pool;
use crate::net::{Open, subnet};
use crate::store::id_of;
use crate::timing::Stages;
use std::net::Ipv4Addr;
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
    let owner = args.owner.unwrap_or_else(own_uid);
    let config = cx.config.clone();
    let wants = Wants { id, had, nat: spec.is_some_and(|s| s.nat), owner };
    let (network, net) = acquire_for(&config, &mut cx.stages, &wants).map_err(explain)?;
    doc.set(&net);
    let handed_on = crate::sys::signal::check().and_then(|()| cx.emit(doc)).and_then(|()| cx.hand_on());
    if let Err(e) = handed_on {
        // Nobody knows that the VM has it.
        let _shield = crate::sys::signal::shield();
        let new = wants.had.is_none();
        return Err(match undo(&network, &wants.id, &net, new) {
            Ok(()) => e,
            Err(left) => e.also(left.to_string()),
        });
    }
    cx.stages.begin("refill");
    if let Err(e) = refill(&network, owner) {
        cx.remark(&format!("no TAP was made for the next VM: {}", e.with_causes()));
    }
    Ok(Answer::Done)
}

/// What a VM is to get.
#[derive(Clone, Debug)]
pub struct Wants {
    /// Its id.
    pub id: MachineId,
    /// What it had when it ran last.
    pub had: Option<Net>,
    /// Whether it is to reach other networks.
    pub nat: bool,
    /// The user that may open the TAP.
    pub owner: u32,
}

/// An address and a TAP in the network of this namespace. What a VM has already it keeps. The stage `create_tap` shows
/// that no TAP was idle.
pub fn acquire_for(config: &Config, stages: &mut Stages, wants: &Wants) -> Result<(Open, Net)> {
    stages.begin("network");
    let network = Open::current(config)?;
    if wants.nat && network.record.uplinks.is_empty() {
        return Err(Error::new(Code::NotFound, "the VM is to reach other networks, and this network leads to none")
            .hint("as root: bg-tap up --nat"));
    }
    let (tap, address) = lend(&network, stages, wants)?;
    let net = Net {
        netns: network.space.netns(),
        bridge: network.record.bridge.clone(),
        tap: Some(tap),
        mac: name::mac(&wants.id),
        address: Cidr::new(address, network.record.subnet.prefix())?,
        gateway: subnet::gateway(network.record.subnet),
    };
    Ok((network, net))
}

fn lend(network: &Open, stages: &mut Stages, wants: &Wants) -> Result<(String, Ipv4Addr)> {
    stages.begin("address");
    let pool = network.pool()?;
    let _hurry = pool.hurry()?;
    let leases = network.leases()?;
    let had = wants.had.as_ref();
    let lease = leases.lease(&wants.id, had.map(|net| net.address.address()))?;
    let holder = Holder::Machine { id: wants.id, address: lease.address };
    stages.begin("tap");
    let kept = match kept(network, had, &holder)? {
        // Whoever was to tell of its TAP may have been killed before.
        None if !lease.new => pool.of(&holder)?,
        kept => kept,
    };
    let tap = kept.map_or_else(|| take(&pool, stages, wants.owner, &holder), Ok);
    match tap {
        Ok(tap) => Ok((tap, lease.address)),
        Err(e) if lease.new => leases.give_up(&wants.id, lease.address).and(Err(e)),
        Err(e) => Err(e),
    }
}

/// The TAP that the VM has already, by its document.
fn kept(network: &Open, had: Option<&Net>, holder: &Holder) -> Result<Option<String>> {
    let had = had.filter(|net| net.netns == network.space.netns());
    let Some(tap) = had.and_then(|net| net.tap.clone()).filter(|tap| name::number(tap).is_some()) else {
        return Ok(None);
    };
    let link = network.netlink.link(&tap)?;
    Ok(link.is_some_and(|link| Holder::parse(&link.alias) == Some(*holder)).then_some(tap))
}

fn take(pool: &Pool<'_>, stages: &mut Stages, owner: u32, holder: &Holder) -> Result<String> {
    if let Some(tap) = pool.take(owner, holder)? {
        return Ok(tap);
    }
    stages.begin("create_tap");
    pool.make(owner, holder)
}

fn undo(network: &Open, id: &MachineId, net: &Net, new: bool) -> Result<()> {
    if let Some(tap) = &net.tap {
        network.pool()?.give_back(tap, Some(id))?;
    }
    if new { network.leases()?.give_up(id, net.address.address()) } else { Ok(()) }
}

/// Makes one idle TAP for that user, where fewer are idle than there should be.
pub fn refill(network: &Open, owner: u32) -> Result<()> {
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
