//! Networks and TAPs: `bg-tap`.

mod acquire;
mod attach;
mod down;
mod forwarding;
mod going;
mod list;
mod pool;
mod release;
mod up;

pub use acquire::{AcquireArgs, Lent, Wants, acquire, acquire_for, refill};
pub use attach::refused;
pub(in crate::ops) use attach::{attach, detach, forget, intent, refill_after};
pub use down::{DownArgs, down, remove_network};
pub(in crate::ops) use forwarding::{known_uplinks, restore_forwarding};
pub(in crate::ops) use going::record as last_record;
pub use list::{ls, pool_ls};
pub use pool::{drain, fill};
pub use release::{ReleaseArgs, give_back, of_document, release};
pub use up::{UpArgs, make_network, up};

use crate::cli::Context;
use lib_common::doc::{API_VERSION, Network, PoolCount, to_json};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::netlink::link::Link;
use lib_common::sys::program;
use lib_machine::net::name::Holder;
use lib_machine::net::{Open, subnet};

/// The user id of a name, or of a number.
pub fn parse_owner(text: &str) -> Result<u32> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    match nix::unistd::User::from_name(text)? {
        Some(user) => Ok(user.uid.as_raw()),
        None => Err(Error::new(Code::BadValue, format!("there is no user `{}`", text.escape_debug()))
            .hint("a user's name or number")),
    }
}

/// The caller's own user id.
pub fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// What to do about a refusal: networks are root's.
fn explain(e: Error) -> Error {
    if e.code() != Code::Permission || e.get_hint().is_some() {
        return e;
    }
    e.hint(format!(
        "as root, with `--owner USER` for TAPs that USER may open; or in a namespace of your own: {}",
        program::pipeline("in-netns")
    ))
}

/// Holds the document of the network, with the stages of this run, for stdout.
fn emit_network(cx: &mut Context<'_>, network: &Open, taps: &[(u32, Link)]) -> Result<()> {
    let count = |wanted: fn(&Holder) -> bool| {
        let found = taps.iter().filter(|(_, link)| Holder::parse(&link.alias).is_some_and(|h| wanted(&h))).count();
        u32::try_from(found).unwrap_or(u32::MAX)
    };
    let record = &network.record;
    let document = Network {
        api_version: API_VERSION.into(),
        kind: "Network".into(),
        netns: network.space.netns(),
        bridge: record.bridge.clone(),
        subnet: record.subnet,
        gateway: subnet::gateway(record.subnet),
        nat: !record.uplinks.is_empty(),
        uplinks: record.uplinks.iter().map(|uplink| uplink.name.clone()).collect(),
        allow: record.allow.clone(),
        nameservers: record.nameservers.clone(),
        pool: PoolCount {
            idle: count(|h| *h == Holder::Pool),
            busy: count(|h| *h != Holder::Pool),
            target: network.pool()?.target()?,
        },
        timings: cx.stages.take(),
    };
    cx.emit_line(&to_json(&document));
    Ok(())
}
