use super::*;
use proptest::prelude::*;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);

fn tap(carrier: bool) -> Link {
    let alias = format!("banger:vm:{}:{ADDRESS}", "07".repeat(16));
    Link { name: "tap-pool-4".into(), kind: "tun".into(), alias, carrier, persistent: true, ..Link::default() }
}

fn known(running: bool, tap: Option<&str>, address: Option<Ipv4Addr>) -> Vm {
    Vm::Known { running, tap: tap.map(str::to_owned), address }
}

#[test]
fn a_tap_is_its_vms_while_that_runs_and_nobodys_afterwards() {
    let own = Some("tap-pool-4");
    for (vm, open, expected) in [
        (known(true, own, Some(ADDRESS)), true, None),
        // While a guest reboots nobody has its TAP open.
        (known(true, own, Some(ADDRESS)), false, None),
        (Vm::Busy, false, None),
        (known(true, Some("tap-pool-5"), None), false, Some("the VM runs without it")),
        (known(true, None, None), false, Some("the VM runs without it")),
        (known(false, own, Some(ADDRESS)), false, Some("the VM does not run")),
        (known(false, None, None), false, Some("the VM does not run")),
        (Vm::Unknown, false, Some("this store does not know the VM")),
    ] {
        let got = lent_tap(&tap(open), &vm);
        let expected =
            expected.map_or(Standing::Fine, |e| Standing::Abandoned(format!("{e}, and no program has it open")));
        assert_eq!(got, expected, "{vm:?} {open}");
    }
}

#[test]
fn a_lease_is_kept_by_a_vm_that_is_there_and_by_every_other_store() {
    for (vm, lender, abandoned) in [
        (known(false, None, Some(ADDRESS)), Lender::This, false),
        (known(false, None, Some(OTHER)), Lender::This, true),
        (known(true, None, None), Lender::This, true),
        (Vm::Busy, Lender::This, false),
        (Vm::Unknown, Lender::This, true),
        (Vm::Unknown, Lender::Other, false),
    ] {
        let got = lease(ADDRESS, &vm, lender);
        assert_eq!(matches!(got, Standing::Abandoned(_)), abandoned, "{vm:?} {lender:?}");
        assert_eq!(got == Standing::Fine, !abandoned);
    }
}

#[test]
fn a_bridge_goes_only_without_ports() {
    let (own, foreign) = (tap(false), Link { name: "veth0".into(), kind: "veth".into(), ..Link::default() });
    assert!(matches!(stray_bridge(&[]), Standing::Abandoned(_)));
    for ports in [&[&own][..], &[&foreign], &[&own, &foreign]] {
        assert!(matches!(stray_bridge(ports), Standing::Seen(_)), "{ports:?}");
    }
}

#[test]
fn a_link_is_ours_by_name_kind_and_alias_together() {
    let link = |name: &str, kind: &str, alias: &str| Link {
        name: name.into(),
        kind: kind.into(),
        alias: alias.into(),
        persistent: true,
        ..Link::default()
    };
    assert_eq!(role(&link("bg-1000", "bridge", "")), Role::Bridge(1000));
    assert_eq!(role(&link("tap-pool-1", "tun", "banger:pool")), Role::Tap(Holder::Pool));
    assert_eq!(role(&link("tap-pool-1", "tun", "")), Role::Nameless);
    let making = Link { persistent: false, ..link("tap-pool-1", "tun", "") };
    for foreign in [
        making,
        link("bg-1000", "tun", ""),
        link("bg-x", "bridge", ""),
        link("tap-pool-1", "dummy", "banger:pool"),
        link("tap-pool-1", "tun", "mine"),
        link("tap0", "tun", "banger:pool"),
    ] {
        assert_eq!(role(&foreign), Role::Foreign, "{foreign:?}");
    }
}

#[test]
fn what_may_be_another_stores_has_to_be_old_whatever_was_asked_for() {
    let (minute, five) = (Duration::from_secs(60), Duration::from_secs(300));
    for (age, now, lender, may) in [
        (minute, false, Lender::This, false),
        (minute, true, Lender::This, true),
        (minute, true, Lender::Other, false),
        (five, false, Lender::Other, true),
        (five, false, Lender::This, true),
    ] {
        assert_eq!(may_take(age, five, now, lender), may, "{age:?} {now} {lender:?}");
    }
}

proptest! {
    #[test]
    fn what_is_open_is_never_abandoned(
        running: bool, busy: bool, unknown: bool, tap_of in prop::option::of("tap-pool-[0-9]")
    ) {
        let vm = match (busy, unknown) {
            (true, _) => Vm::Busy,
            (_, true) => Vm::Unknown,
            _ => known(running, tap_of.as_deref(), None),
        };
        prop_assert!(!matches!(lent_tap(&tap(true), &vm), Standing::Abandoned(_)));
    }
}
