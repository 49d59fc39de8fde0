use super::*;
use lib_common::doc::{Cidr, Uplink};

/// With a default route's uplink and that of an allowed network, where forwarding was off at these.
fn network(was_off: [bool; 2]) -> NetworkRecord {
    let uplink = |(name, forwarding_was_off): (&str, bool)| Uplink { name: name.to_owned(), forwarding_was_off };
    NetworkRecord {
        netns_cookie: None,
        bridge: "bg-0".into(),
        bridge_index: 7,
        subnet: Cidr::parse("172.16.224.0/20").unwrap(),
        uplinks: ["eth0", "eth1"].into_iter().zip(was_off).map(uplink).collect(),
        allow: vec![Cidr::parse("10.1.0.0/16").unwrap()],
        nameservers: vec![[10, 0, 0, 53].into()],
    }
}

#[test]
fn rules_say_whose_they_are_and_where_forwarding_was_off() {
    for (was_off, guarded) in [([true, true], &["eth0", "eth1"][..]), ([false, true], &["eth1"]), ([false, false], &[])]
    {
        let listed = Listed::given(&network(was_off)).unwrap();
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

/// What nft would list of a network's table, made while the host was connected to others.
fn listed(network: &NetworkRecord, on_link: &[Cidr]) -> Vec<Value> {
    let batch: Value = serde_json::from_str(&to_json(&table(network, on_link, &[]))).unwrap();
    let objects = batch["nftables"].as_array().unwrap();
    objects.iter().filter_map(|object| object["add"].get("rule").cloned()).collect()
}

#[test]
fn rules_are_whole_wherever_the_host_was_connected() {
    let network = network([true, false]);
    let without_nat = NetworkRecord { uplinks: vec![], allow: vec![], nameservers: vec![], ..network.clone() };
    for on_link in [&[][..], &[Cidr::parse("203.0.113.0/24").unwrap(), Cidr::parse("192.0.2.0/24").unwrap()]] {
        for one in [&network, &without_nat] {
            assert!(Listed(listed(one, on_link)).is_whole(one));
        }
        assert!(!Listed(listed(&network, on_link)).is_whole(&without_nat));
        assert!(!Listed(listed(&without_nat, on_link)).is_whole(&network));
    }
}

#[test]
fn a_rule_that_is_missing_or_not_ours_is_seen() {
    let network = network([true, false]);
    let all = listed(&network, &[]);
    for n in 0..all.len() {
        let without = all.iter().enumerate().filter(|(other, _)| *other != n).map(|(_, rule)| rule.clone());
        assert!(!Listed(without.collect()).is_whole(&network), "{}", all[n]);
    }
    let mut foreign = all[0].clone();
    foreign.as_object_mut().unwrap().remove("comment");
    assert!(!Listed([all, vec![foreign]].concat()).is_whole(&network));
    assert!(!Listed(vec![]).is_whole(&network));
}
