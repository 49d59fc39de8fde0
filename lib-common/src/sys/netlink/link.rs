//! Links: one by its name, all of them, changes, and the removal of one or of a whole group.

use super::{Ask, Netlink, attribute, nested, number, text, zero_ended};
use neli::consts::rtnl::{Iff, Ifla, IflaInfo, RtAddrFamily, Rtm};
use neli::rtnl::{Ifinfomsg, IfinfomsgBuilder, Rtattr};
use neli::types::Buffer;
use nix::errno::Errno;
use nix::libc;

/// Leaves the counters out of an answer: rtnetlink.h, `RTEXT_FILTER_SKIP_STATS`.
const SKIP_STATS: u32 = 1 << 3;
/// if_link.h, `IFLA_TUN_OWNER`.
const TUN_OWNER: u16 = 1;
/// if_link.h, `IFLA_TUN_PERSIST`.
const TUN_PERSIST: u16 = 6;
/// if_link.h, `IFLA_INET6_ADDR_GEN_MODE` and its value for "no address".
const INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;

/// A network interface, as far as this suite looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its alias; empty where it has none.
    pub alias: String,
    /// The index of the bridge that it is a port of, or 0.
    pub master: u32,
    /// Its group.
    pub group: u32,
    /// Whether somebody is at its other end: of a TAP, whether a program has it open.
    pub carrier: bool,
    /// `bridge`, `tun`, …; empty for hardware.
    pub kind: String,
    /// The user that may open a TAP.
    pub tun_owner: Option<u32>,
    /// Whether a TAP stays when nobody has it open.
    pub persistent: bool,
}

/// What to change of a link.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// A new alias.
    pub alias: Option<String>,
    /// The bridge that it becomes a port of.
    pub master: Option<u32>,
    /// A new group.
    pub group: Option<u32>,
    /// Make it ready.
    pub up: bool,
    /// Give it no IPv6 address when it becomes ready.
    pub no_ipv6_address: bool,
}

impl Netlink {
    /// The link of that name. `None` where there is none.
    pub fn link(&self, name: &str) -> Result<Option<Link>, Errno> {
        let attributes = vec![attribute(Ifla::Ifname, zero_ended(name))?, attribute(Ifla::ExtMask, SKIP_STATS)?];
        let mut found = None;
        match self.request(Rtm::Getlink.into(), Ask::One, message(0, false, attributes)?, |m| found = Some(of(&m))) {
            Err(Errno::ENODEV) => Ok(None),
            Err(e) => Err(e),
            Ok(()) => Ok(found),
        }
    }

    /// Every link. Takes about 20 µs for each: not for where somebody waits.
    pub fn links(&self) -> Result<Vec<Link>, Errno> {
        let mut found = vec![];
        let asked = message(0, false, vec![attribute(Ifla::ExtMask, SKIP_STATS)?])?;
        self.request(Rtm::Getlink.into(), Ask::All, asked, |m| found.push(of(&m)))?;
        Ok(found)
    }

    /// Changes the link of that name, all in one request.
    pub fn change_link(&self, name: &str, change: &Change) -> Result<(), Errno> {
        let set = |without_ipv6| {
            let attributes = attributes(name, change, without_ipv6)?;
            self.change(Rtm::Setlink.into(), Ask::One, message(0, change.up, attributes)?)
        };
        match set(change.no_ipv6_address) {
            // A kernel that was booted with `ipv6.disable=1`, or has no IPv6, gives no such address anyhow. It has changed
            // nothing yet.
            Err(Errno::EAFNOSUPPORT) if change.no_ipv6_address => set(false),
            other => other,
        }
    }

    /// Makes a bridge with that hardware address, and makes it ready. `EEXIST` where something has the name.
    pub fn add_bridge(&self, name: &str, mac: [u8; 6]) -> Result<(), Errno> {
        let kind = attribute(u16::from(IflaInfo::Kind), "bridge")?;
        let attributes = vec![
            attribute(Ifla::Ifname, zero_ended(name))?,
            attribute(Ifla::Address, &mac[..])?,
            nested(Ifla::Linkinfo, vec![kind])?,
        ];
        self.change(Rtm::Newlink.into(), Ask::New, message(0, false, attributes)?)?;
        self.change_link(name, &Change { up: true, no_ipv6_address: true, ..Change::default() })
    }

    /// Removes every link of a group in one request; a group without members is fine.
    pub fn remove_group(&self, group: u32) -> Result<(), Errno> {
        let attributes = vec![attribute(Ifla::Group, group)?];
        match self.change(Rtm::Dellink.into(), Ask::One, message(0, false, attributes)?) {
            Err(Errno::ENODEV) => Ok(()),
            other => other,
        }
    }
}

fn message(index: i32, up: bool, attributes: Vec<Rtattr<Ifla, Buffer>>) -> Result<Ifinfomsg, Errno> {
    let message = IfinfomsgBuilder::default().ifi_family(RtAddrFamily::Unspecified).ifi_index(index);
    let message = if up { message.up() } else { message };
    message.rtattrs(attributes.into_iter().collect()).build().map_err(|_| Errno::EMSGSIZE)
}

fn attributes(name: &str, change: &Change, without_ipv6: bool) -> Result<Vec<Rtattr<Ifla, Buffer>>, Errno> {
    let mut attributes = vec![attribute(Ifla::Ifname, zero_ended(name))?];
    if let Some(alias) = &change.alias {
        attributes.push(attribute(Ifla::Ifalias, alias.as_bytes())?);
    }
    if let Some(master) = change.master {
        attributes.push(attribute(Ifla::Master, master)?);
    }
    if let Some(group) = change.group {
        attributes.push(attribute(Ifla::Group, group)?);
    }
    if without_ipv6 {
        attributes.push(self::without_ipv6()?);
    }
    Ok(attributes)
}

fn without_ipv6() -> Result<Rtattr<Ifla, Buffer>, Errno> {
    let mode = attribute(INET6_ADDR_GEN_MODE, ADDR_GEN_MODE_NONE)?;
    nested(Ifla::AfSpec, vec![nested(libc::AF_INET6.cast_unsigned() as u16, vec![mode])?])
}

fn of(message: &Ifinfomsg) -> Link {
    let mut link = Link {
        index: message.ifi_index().cast_unsigned(),
        carrier: message.ifi_flags().contains(Iff::LOWERUP),
        ..Link::default()
    };
    for attribute in message.rtattrs().iter() {
        let value = attribute.rta_payload().as_ref();
        match attribute.rta_type() {
            Ifla::Ifname => link.name = text(value),
            Ifla::Ifalias => link.alias = text(value),
            Ifla::Master => link.master = number(value),
            Ifla::Group => link.group = number(value),
            Ifla::Linkinfo => read_info(&mut link, attribute),
            _ => {}
        }
    }
    link
}

/// The kind of a link, and of a TAP its owner.
fn read_info(link: &mut Link, info: &Rtattr<Ifla, Buffer>) {
    let Ok(parts) = info.get_attr_handle::<IflaInfo>() else { return };
    if let Some(kind) = parts.get_attribute(IflaInfo::Kind) {
        link.kind = text(kind.rta_payload().as_ref());
    }
    if link.kind != "tun" {
        return;
    }
    if let Ok(data) = parts.get_nested_attributes::<u16>(IflaInfo::Data) {
        link.tun_owner = data.get_attribute(TUN_OWNER).map(|owner| number(owner.rta_payload().as_ref()));
        link.persistent = data.get_attribute(TUN_PERSIST).is_some_and(|is| is.rta_payload().as_ref() == [1]);
    }
}

#[cfg(test)]
mod tests;
