use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

fn id(n: u8) -> MachineId {
    let mut id = [0; 16];
    id[0] = n + 1;
    id
}

fn leases(prefix: u8) -> (tempfile::TempDir, PathBuf, Cidr) {
    let dir = tempfile::tempdir().unwrap();
    let subnet = Cidr::new(Ipv4Addr::new(10, 0, 0, 0), prefix).unwrap();
    let path = dir.path().join("leases");
    Leases::create(&path, subnet).unwrap();
    (dir, path, subnet)
}

fn last_byte(lease: Lease) -> u8 {
    lease.address.octets()[3]
}

#[test]
fn addresses_go_round_and_one_given_up_comes_back_last() {
    let (_dir, path, subnet) = leases(29);
    let leases = Leases::open(&path, subnet, true).unwrap();
    let first: Vec<u8> = (0..3).map(|n| last_byte(leases.lease(&id(n), None, 0).unwrap())).collect();
    assert_eq!(first, [2, 3, 4]);
    leases.give_up(&id(0), Ipv4Addr::new(10, 0, 0, 2)).unwrap();
    let next: Vec<u8> = (3..6).map(|n| last_byte(leases.lease(&id(n), None, 0).unwrap())).collect();
    assert_eq!(next, [5, 6, 2]);
    let e = leases.lease(&id(6), None, 0).unwrap_err();
    assert_eq!(e.code(), Code::InUse);
    assert!(e.message().contains("10.0.0.0/29 is taken: 5 of them"), "{e}");
}

#[test]
fn a_vm_keeps_its_address_and_gets_an_old_one_back() {
    let (_dir, path, subnet) = leases(29);
    let leases = Leases::open(&path, subnet, true).unwrap();
    let first = leases.lease(&id(0), None, 0).unwrap();
    assert_eq!(
        leases.lease(&id(0), None, 0).unwrap(),
        Lease { new: false, ..first },
        "asked twice, it has one address"
    );
    let wanted = Ipv4Addr::new(10, 0, 0, 5);
    assert_eq!(leases.lease(&id(1), Some(wanted), 0).unwrap().address, wanted);
    assert_ne!(leases.lease(&id(2), Some(wanted), 0).unwrap().address, wanted, "somebody has it");
    let elsewhere = leases.lease(&id(3), Some(Ipv4Addr::new(192, 168, 0, 9)), 0).unwrap();
    assert!(subnet::place(subnet, elsewhere.address).is_some());
    leases.give_up(&id(9), wanted).unwrap();
    assert!(leases.all().unwrap().contains(&(wanted, id(1))), "nobody gives up what is another's");
}

#[test]
fn no_two_of_many_get_the_same() {
    for _ in 0..50 {
        let (_dir, path, subnet) = leases(24);
        let begin = std::sync::Barrier::new(16);
        let lease = |n| {
            let leases = Leases::open(&path, subnet, true).unwrap();
            begin.wait();
            leases.lease(&id(n), None, 0).unwrap().address
        };
        let taken: Vec<Ipv4Addr> = std::thread::scope(|scope| {
            let lease = &lease;
            let threads: Vec<_> = (0..16).map(|n| scope.spawn(move || lease(n))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 16);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_and_goes_an_address_has_one_vm(steps in prop::collection::vec((0_u8..12, any::<bool>()), 1..80)) {
        let (_dir, path, subnet) = leases(28);
        let leases = Leases::open(&path, subnet, true).unwrap();
        let mut expected: BTreeMap<Ipv4Addr, MachineId> = BTreeMap::new();
        for (n, take) in steps {
            let had = expected.iter().find(|(_, holder)| **holder == id(n)).map(|(address, _)| *address);
            match (take, had) {
                (true, Some(address)) => prop_assert_eq!(leases.lease(&id(n), None, 0).unwrap().address, address),
                (true, None) => {
                    let lease = leases.lease(&id(n), None, 0).unwrap();
                    prop_assert!(lease.new && expected.insert(lease.address, id(n)).is_none());
                }
                (false, Some(address)) => {
                    leases.give_up(&id(n), address).unwrap();
                    expected.remove(&address);
                }
                (false, None) => {}
            }
            prop_assert_eq!(leases.all().unwrap(), expected.clone().into_iter().collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_note_is_of_the_vm_that_has_the_address_now() {
    let (_dir, path, subnet) = leases(29);
    let leases = Leases::open(&path, subnet, true).unwrap();
    let address = leases.lease(&id(0), None, 0).unwrap().address;
    assert_eq!(leases.signed(&id(0), address).unwrap().map(|note| note.store), Some(0), "with the lease itself");
    leases.sign(&id(0), address, 7).unwrap();
    let note = leases.signed(&id(0), address).unwrap().unwrap();
    assert!(note.store == 7 && note.age().as_secs() < 60, "{note:?}");
    leases.give_up(&id(0), address).unwrap();
    leases.note(&id(1), address).unwrap();
    assert_eq!(leases.signed(&id(0), address).unwrap(), None);
    assert_eq!(leases.signed(&id(1), address).unwrap().unwrap().store, 0, "a TAP does not say of which store");
    leases.sign(&id(1), address, 8).unwrap();
    leases.note(&id(1), address).unwrap();
    assert_eq!(leases.signed(&id(1), address).unwrap().unwrap().store, 8, "what is known is not forgotten");
    assert!(leases.has(&id(1), address).unwrap() && !leases.has(&id(0), address).unwrap());
}

#[test]
fn a_store_is_a_user_and_a_path() {
    let tag = |uid, path: &str| store_tag(uid, Path::new(path));
    assert_eq!(tag(0, "/var/lib/banger"), tag(0, "/var//lib/./banger/"));
    let all = [tag(0, "/var/lib/banger"), tag(1, "/var/lib/banger"), tag(0, "/var/lib/banger2")];
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 3);
    assert!(all.iter().all(|tag| *tag != 0));
}
