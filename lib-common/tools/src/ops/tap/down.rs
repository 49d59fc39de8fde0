//! down: the removal of all of a network.

use super::forwarding::{known_uplinks, restore_forwarding};
use super::{explain, going, own_uid};
use crate::cli::{Answer, Context};
use lib_common::doc::NetworkRecord;
use lib_common::error::{Code, Error, Failures, Result};
use lib_common::sys::netlink::Netlink;
use lib_common::sys::netlink::link::Link;
use lib_common::timing::Stages;
use lib_machine::config::Config;
use lib_machine::net::name::{self, Holder};
use lib_machine::net::{Open, Space, nat, pool};

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
    let space = Space::current(&config.net_dir, config.lock_wait)?;
    let netlink = Netlink::route()?;
    let recorded = going::record(&space)?;
    if recorded.is_none() && ours(&netlink, &bridge_of(None))?.is_empty() && !nat::is_there() {
        return space.remove().map_err(explain);
    }
    space.prepare().map_err(explain)?;
    let _lock = space.lock()?;
    // Somebody else may have changed it since.
    let recorded = going::record(&space)?;
    let idle = || if args.force { Ok(()) } else { refuse_busy(&netlink) };
    idle()?;
    stages.begin("remove");
    going::begin(&space).map_err(explain)?;
    // Whoever has acquired until now is seen here; from now on nobody does.
    let removed = idle().and_then(|()| remove_all(&space, netlink, recorded, args));
    if let Err(e) = removed {
        return Err(match going::end(&space) {
            Ok(()) => e,
            Err(left) => e.also(left.to_string()),
        });
    }
    space.remove().map_err(explain)
}

/// TAPs go first, so that no guest is on a network without rules; the bridge goes last, by which the rest is found again.
fn remove_all(space: &Space, netlink: Netlink, recorded: Option<NetworkRecord>, args: DownArgs) -> Result<()> {
    let mut failed = Failures::default();
    let mut attempt = |done: Result<()>| done.unwrap_or_else(|e| failed.add(explain(e)));
    let bridge = bridge_of(recorded.as_ref());
    let names = ours(&netlink, &bridge)?;
    let is_ours = |link: &Link| match Holder::parse(&link.alias) {
        Some(Holder::Machine { .. }) => args.force,
        Some(Holder::Pool) => true,
        None => false,
    };
    let (netlink, recorded) = match recorded {
        // Under their locks: somebody may take one right now.
        Some(record) => {
            let network = Open { space: space.clone(), record, netlink };
            attempt(network.pool().and_then(|pool| pool.drain()).map(drop));
            (network.netlink, Some(network.record))
        }
        None => (netlink, None),
    };
    attempt(pool::remove_links(&netlink, &names, is_ours).map(drop));
    attempt(remove_rules(recorded.as_ref()));
    attempt(pool::remove_links(&netlink, &[bridge], |link| link.kind == "bridge").map(drop));
    failed.result()
}

fn bridge_of(recorded: Option<&NetworkRecord>) -> String {
    recorded.map_or_else(|| name::bridge(own_uid()), |record| record.bridge.clone())
}

/// Forwarding first: it is the rules that keep others from an uplink until it is off.
fn remove_rules(recorded: Option<&NetworkRecord>) -> Result<()> {
    let listed = nat::list()?;
    restore_forwarding(&known_uplinks(recorded, listed.as_ref()))?;
    listed.map_or(Ok(()), |_| nat::apply(&nat::removal().to_nftables()))
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
