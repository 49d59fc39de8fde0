//! down: the removal of all of a network.

use super::forwarding::{known_uplinks, restore_forwarding};
use super::{explain, own_uid};
use crate::cli::{Answer, Context};
use crate::config::Config;
use crate::doc::NetworkRecord;
use crate::error::{Code, Error, Failures, Result};
use crate::net::name::{self, Holder};
use crate::net::{Open, Space, nat, pool};
use crate::sys::netlink::Netlink;
use crate::sys::netlink::link::Link;
use crate::timing::Stages;

/// What `bg-tap down` takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct DownArgs {
    /// Remove TAPs that VMs have, too.
    pub force: bool,
}

/// `bg-tap down`.
pub fn down(cx: &mut Context<'_>, args: DownArgs) -> Result<Answer> {
    remove_network(&cx.config, &mut cx.stages, args)?;
    Ok(Answer::Done)
}

/// Removes all of the network of this namespace. What is gone already is fine; it goes on past errors.
pub fn remove_network(config: &Config, stages: &mut Stages, args: DownArgs) -> Result<()> {
    stages.begin("look");
    let space = Space::current(config)?;
    let netlink = Netlink::route()?;
    let recorded = space.record()?;
    let bridge = recorded.as_ref().map_or_else(|| name::bridge(own_uid()), |r| r.bridge.clone());
    let names = ours(&netlink, &bridge)?;
    if names.is_empty() && recorded.is_none() {
        return space.remove().map_err(explain);
    }
    space.prepare().map_err(explain)?;
    let _lock = space.lock()?;
    if !args.force {
        refuse_busy(&netlink)?;
    }
    stages.begin("remove");
    let mut failed = Failures::default();
    let mut attempt = |done: Result<()>| done.unwrap_or_else(|e| failed.add(explain(e)));
    attempt(remove_rules(recorded.as_ref()));
    // Under their locks: somebody may take one right now.
    attempt(drain(config, recorded.is_some()));
    let is_ours = |link: &Link| match Holder::parse(&link.alias) {
        Some(Holder::Machine { .. }) => args.force,
        Some(Holder::Pool) => true,
        None => link.kind == "bridge",
    };
    attempt(pool::remove_links(&netlink, &names, is_ours).map(drop));
    failed.result()?;
    space.remove().map_err(explain)
}

/// Forwarding first: it is the rules that keep others from an uplink until it is off.
fn remove_rules(recorded: Option<&NetworkRecord>) -> Result<()> {
    let listed = nat::list()?;
    restore_forwarding(&known_uplinks(recorded, listed.as_ref()))?;
    listed.map_or(Ok(()), |_| nat::apply(&nat::removal().to_nftables()))
}

fn drain(config: &Config, there: bool) -> Result<()> {
    if !there {
        return Ok(());
    }
    Open::current(config)?.pool()?.drain().map(drop)
}

/// The TAPs of this namespace's network, and its bridge where it is there.
fn ours(netlink: &Netlink, bridge: &str) -> Result<Vec<String>> {
    let links = netlink.links()?.into_iter();
    let tap = |l: &Link| name::number(&l.name).is_some() && Holder::parse(&l.alias).is_some();
    Ok(links.filter(|l| tap(l) || (l.name == bridge && l.kind == "bridge")).map(|l| l.name).collect())
}

fn refuse_busy(netlink: &Netlink) -> Result<()> {
    let busy = |l: &Link| matches!(Holder::parse(&l.alias), Some(Holder::Machine { .. }));
    let taps: Vec<String> = netlink.links()?.into_iter().filter(busy).map(|l| l.name).collect();
    match taps.as_slice() {
        [] => Ok(()),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            Err(Error::new(Code::InUse, format!("a VM has the TAP `{first}`{more}"))
                .hint("`bg-tap ls` shows whose they are; bg-tap release, or bg-tap down --force"))
        }
    }
}
