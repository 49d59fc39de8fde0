//! pool fill, pool drain: idle TAPs, made ahead and removed.

use super::{emit_network, explain, own_uid};
use crate::cli::{Answer, Context};
use lib_common::error::Result;
use lib_machine::net::Open;
use lib_machine::net::name::Holder;
use lib_machine::net::pool::look;

/// `bg-tap pool fill`: so many idle TAPs for a user, from now on. Those that are more are left.
pub fn fill(cx: &mut Context<'_>, count: u32, owner: Option<u32>) -> Result<Answer> {
    cx.stages.begin("lock");
    let owner = owner.unwrap_or_else(own_uid);
    let network = Open::current(&cx.config.net_dir, cx.config.lock_wait)?;
    let _lock = network.space.lock().map_err(explain)?;
    let pool = network.pool().map_err(explain)?;
    cx.stages.begin("look");
    pool.repair().map_err(explain)?;
    pool.set_target(count)?;
    cx.stages.begin("create_taps");
    while pool.idle(owner)? < count {
        lib_common::sys::signal::check()?;
        pool.make(owner, &Holder::Pool).map_err(explain)?;
    }
    let taps = look(&network.netlink)?;
    emit_network(cx, &network, &taps)?;
    Ok(Answer::Done)
}

/// `bg-tap pool drain`: removes every idle TAP, and keeps none from now on.
pub fn drain(cx: &mut Context<'_>) -> Result<Answer> {
    cx.stages.begin("lock");
    let network = Open::current(&cx.config.net_dir, cx.config.lock_wait)?;
    let _lock = network.space.lock().map_err(explain)?;
    let pool = network.pool().map_err(explain)?;
    cx.stages.begin("look");
    pool.repair().map_err(explain)?;
    pool.set_target(0)?;
    cx.stages.begin("remove_taps");
    pool.drain().map_err(explain)?;
    let taps = look(&network.netlink)?;
    emit_network(cx, &network, &taps)?;
    Ok(Answer::Done)
}
