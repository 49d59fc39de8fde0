//! Many at once: no two VMs get the same TAP or address.

use super::{Host, machine};
use crate::support::finish;
use serde_json::Value;
use std::collections::BTreeSet;

fn distinct(docs: &[Value], field: &str) -> usize {
    docs.iter().map(|doc| doc["net"][field].as_str().unwrap()).collect::<BTreeSet<_>>().len()
}

#[test]
fn no_two_of_64_get_the_same() {
    let Some(host) = Host::up("no_two_of_64_get_the_same") else { return };
    host.tap(&["pool", "fill", "40"], "").ok();
    let started: Vec<_> =
        (0..64).map(|n| (n, host.netns.tool(&host.sandbox, "bg-tap", &["acquire"]).spawn().unwrap())).collect();
    let docs: Vec<Value> = started.into_iter().map(|(n, child)| finish(child, machine(n).as_bytes()).json()).collect();
    for field in ["tap", "address", "mac"] {
        assert_eq!(distinct(&docs, field), 64, "{field}");
    }
    host.down(&["--force"]);
}

#[test]
fn a_pool_is_drained_while_it_is_in_use() {
    let Some(host) = Host::up("a_pool_is_drained_while_it_is_in_use") else { return };
    host.tap(&["pool", "fill", "20"], "").ok();
    let kept: Vec<Value> = std::thread::scope(|scope| {
        let host = &host;
        let user = |n: u32| {
            (0..5).for_each(|_| {
                let doc = host.acquire(n).to_string();
                host.tap(&["release"], doc).ok();
            });
            host.acquire(n)
        };
        let users: Vec<_> = (1..5).map(|n| scope.spawn(move || user(n))).collect();
        for count in ["10", "0", "5"] {
            host.tap(&["pool", "drain"], "").ok();
            host.tap(&["pool", "fill", count], "").ok();
        }
        users.into_iter().map(|user| user.join().unwrap()).collect()
    });
    host.tap(&["pool", "drain"], "").ok();
    assert_eq!((distinct(&kept, "tap"), distinct(&kept, "address")), (4, 4));
    let listed: BTreeSet<String> = host.ls().iter().map(|tap| tap["tap"].as_str().unwrap().to_owned()).collect();
    assert_eq!(listed, kept.iter().map(|doc| doc["net"]["tap"].as_str().unwrap().to_owned()).collect());
    assert_eq!((host.idle().len(), host.netns.links().len()), (0, 5));
    for doc in &kept {
        host.tap(&["release"], doc.to_string()).ok();
    }
    host.down(&[]);
}
