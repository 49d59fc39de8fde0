//! Tables of rules: whether one is there. What is in it nft(8) knows.
//!
//! Source of the formats: nf_tables.h.

use super::{Ask, Netlink, attribute, netfilter_message, netfilter_type, zero_ended};
use neli::types::Buffer;
use nix::errno::Errno;
use nix::libc;

/// `NFT_MSG_GETTABLE` and `NFTA_TABLE_NAME`.
const GET_TABLE: u16 = 1;
const TABLE_NAME: u16 = 1;

/// Whether the family `inet` of the current network namespace has a table of that name. A kernel without nftables has none.
///
/// # Errors
/// `EPERM` for whoever may not administrate the namespace's network.
pub fn has_inet_table(name: &str) -> Result<bool, Errno> {
    let netlink = match Netlink::netfilter() {
        Err(Errno::EPROTONOSUPPORT) => return Ok(false),
        other => other?,
    };
    let asked = netfilter_message(libc::NFPROTO_INET, &[attribute(TABLE_NAME, zero_ended(name))?])?;
    let kind = netfilter_type(libc::NFNL_SUBSYS_NFTABLES, GET_TABLE);
    match netlink.request(kind, Ask::One, asked, |_: Buffer| ()) {
        Ok(()) => Ok(true),
        // No such table, or nobody who knows of tables.
        Err(Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(false),
        Err(e) => Err(e),
    }
}
