//! A running VM's network card as seen from here: TAP and bridge belong to one network namespace, and only whoever is in
//! it reaches the guest's address.

use lib_common::doc::{Document, Net};
use lib_common::error::Result;
use lib_common::sys::netns;
use std::net::Ipv4Addr;

/// Where the card of a VM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Card {
    /// The VM has none.
    None,
    /// In another network namespace.
    Elsewhere,
    /// In this one, with that address.
    Here(Ipv4Addr),
}

impl Card {
    /// The card of the running VM whose record this is.
    pub fn of(doc: &Document) -> Result<Self> {
        let Some(net) = doc.section::<Net>()?.filter(|net| net.tap.is_some()) else { return Ok(Card::None) };
        Ok(if net.netns == netns::inode()? { Card::Here(net.address.address()) } else { Card::Elsewhere })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use lib_common::doc::{Kind, Name};

    /// The section `net` of a VM with that address, in a namespace.
    pub fn net(netns: u64, tap: Option<&str>, address: Ipv4Addr) -> Net {
        let mut net = serde_json::json!({"netns": netns, "bridge": "bg-0", "mac": "02:00:00:00:00:01",
            "address": format!("{address}/20"), "gateway": "172.16.224.1"});
        if let Some(tap) = tap {
            net["tap"] = tap.into();
        }
        serde_json::from_value(net).unwrap()
    }

    #[test]
    fn a_card_is_where_its_tap_is() {
        let (here, address) = (netns::inode().unwrap(), Ipv4Addr::new(172, 16, 224, 2));
        let mut doc = Document::new(Kind::Machine, &Name::parse("dev").unwrap());
        assert_eq!(Card::of(&doc).unwrap(), Card::None);
        for (net, card) in [
            (net(here, Some("tap-1"), address), Card::Here(address)),
            (net(here + 1, Some("tap-1"), address), Card::Elsewhere),
            // It keeps its address when it gave its TAP back.
            (net(here, None, address), Card::None),
        ] {
            doc.set(&net);
            assert_eq!(Card::of(&doc).unwrap(), card);
        }
    }
}
