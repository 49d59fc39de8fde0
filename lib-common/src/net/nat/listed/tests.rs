use super::*;
use crate::doc::{Cidr, NetworkRecord, Uplink, to_json};
use crate::net::nat::table;

/// With a default route's uplink and that of an allowed network, where forwarding was off at these.
fn network(was_off: [bool; 2]) -> NetworkRecord {
    let uplink = |(name, forwarding_was_off): (&str, bool)| Uplink { name: name.to_owned(), forwarding_was_off };
    NetworkRecord {
        bridge: "bg-0".into(),
        bridge_index: 7,
        subnet: Cidr::parse("172.16.224.0/20").unwrap(),
        uplinks: ["eth0", "eth1"].into_iter().zip(was_off).map(uplink).collect(),
        allow: vec![Cidr::parse("10.1.0.0/16").unwrap()],
        nameservers: vec![[10, 0, 0, 53].into()],
    }
}

/// The rules of a network's table, as if nft listed what it was given.
fn given(network: &NetworkRecord) -> Listed {
    let batch: Value = serde_json::from_str(&to_json(&table(network, &[], &[]))).unwrap();
    let objects: Vec<&Value> = batch["nftables"].as_array().unwrap().iter().filter_map(|o| o.get("add")).collect();
    Listed::parse(serde_json::json!({ "nftables": objects }).to_string().as_bytes()).unwrap()
}

#[test]
fn rules_say_whose_they_are_and_where_forwarding_was_off() {
    for (was_off, guarded) in
        [([true, true], &["eth0", "eth1"][..]), ([false, true], &["eth1"]), ([false, false], &[])]
    {
        let listed = given(&network(was_off));
        assert_eq!(listed.owners(), ["bg-0".to_owned()].into());
        assert_eq!(listed.guarded(), guarded);
    }
}

#[test]
fn what_nft_prints_and_is_no_table_of_ours_guards_nothing() {
    assert!(Listed::parse(b"Error: nothing").is_err());
    for foreign in [r#"{}"#, r#"{"nftables":[{"rule":{"chain":"forward","expr":[{"drop":null}]}}]}"#] {
        let listed = Listed::parse(foreign.as_bytes()).unwrap();
        assert!(listed.owners().is_empty() && listed.guarded().is_empty(), "{foreign}");
    }
}
