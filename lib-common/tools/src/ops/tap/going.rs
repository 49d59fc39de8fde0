//! A network that is being removed: its record has another name meanwhile, so that nobody acquires from it.
//!
//! Whoever acquires marks a TAP, then looks whether the record is there. `down` takes the record away, then looks whether a
//! TAP is marked. So one of them sees the other, however they come.

use lib_common::doc::NetworkRecord;
use lib_common::error::Result;
use lib_common::sys::fs::{gone, remove_file};
use lib_machine::net::name::Holder;
use lib_machine::net::{Open, Space, no_network, pool};
use std::path::PathBuf;

/// The record's two names: [`Space::record`] reads the first one.
const NAMES: [&str; 2] = ["network.json", "network.going"];

fn names(space: &Space) -> [PathBuf; 2] {
    NAMES.map(|name| space.dir().join(name))
}

/// The record of the network that is up, or of one whose removal was killed.
pub(in crate::ops) fn record(space: &Space) -> Result<Option<NetworkRecord>> {
    space.record()?.map_or_else(|| space.record_in(NAMES[1]), |record| Ok(Some(record)))
}

/// Nobody acquires from now on. Takes the lock, as the others here.
pub(super) fn begin(space: &Space) -> Result<()> {
    let [up, going] = names(space);
    gone(std::fs::rename(&up, &going), &going)
}

/// It is not removed after all.
pub(super) fn end(space: &Space) -> Result<()> {
    let [up, going] = names(space);
    gone(std::fs::rename(&going, &up), &up)
}

/// It is up again, with another record.
pub(super) fn forget(space: &Space) -> Result<()> {
    let [_, going] = names(space);
    remove_file(&going)
}

/// For whoever has just marked a TAP: takes it away again where the network goes.
///
/// # Errors
/// [`lib_common::error::Code::NotFound`] then, as if it had gone before.
pub(super) fn refuse(network: &Open, tap: &str, holder: &Holder) -> Result<()> {
    let [up, _] = names(&network.space);
    if up.exists() {
        return Ok(());
    }
    let tap = [tap.to_owned()];
    pool::remove_links(&network.netlink, &tap, |link| Holder::parse(&link.alias) == Some(*holder))?;
    Err(no_network(network.space.netns()))
}
