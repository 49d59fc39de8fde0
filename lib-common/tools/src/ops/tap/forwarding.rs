//! Where packets are sent on for guests, and that it is as it was before when they are gone.
//!
//! On which uplinks that was off is in the network's record, and in the table: a rule drops there what is not for guests.
//! So it is known, too, when the files are lost. Whoever takes that rule away has switched it off before.

use lib_common::doc::{NetworkRecord, Uplink};
use lib_common::error::Result;
use lib_common::sys::netns::{is_forwarding, set_forwarding};
use lib_machine::net::nat;

/// The uplinks of a network that was up: by its record, and by the rules that are there.
pub(in crate::ops) fn known_uplinks(recorded: Option<&NetworkRecord>, listed: Option<&nat::Listed>) -> Vec<Uplink> {
    let mut known = recorded.map_or_else(Vec::new, |record| record.uplinks.clone());
    for name in listed.map_or_else(Vec::new, nat::Listed::guarded) {
        match known.iter_mut().find(|uplink| uplink.name == name) {
            Some(uplink) => uplink.forwarding_was_off = true,
            None => known.push(Uplink { name, forwarding_was_off: true }),
        }
    }
    known
}

/// Packets are sent on from the bridge and its uplinks alone, and only where guests reach other networks.
pub(super) fn set_forwardings(record: &NetworkRecord) -> Result<()> {
    set_forwarding(&record.bridge, !record.uplinks.is_empty())?;
    record.uplinks.iter().filter(|u| u.forwarding_was_off).try_for_each(|uplink| set_forwarding(&uplink.name, true))
}

/// As it was before. An interface that is gone is fine.
pub(in crate::ops) fn restore_forwarding(uplinks: &[Uplink]) -> Result<()> {
    for uplink in uplinks.iter().filter(|u| u.forwarding_was_off) {
        if is_forwarding(&uplink.name).is_ok() {
            set_forwarding(&uplink.name, false)?;
        }
    }
    Ok(())
}
