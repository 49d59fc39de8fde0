//! However a VM comes to be, the guest is the same: by a seed or without, with a TAP of the pool or one made for it, from the
//! host's caches or from its disk. What differs is a written list of identities, and those always do.

mod snapshot;

use super::world::{World, show};
use serde_json::Value;
use snapshot::{IDENTITIES, STATE, Snapshot};

/// A name, an image, whether a TAP lies ready for it, and whether the host has the image's files in its memory.
struct Way {
    name: &'static str,
    image: &'static str,
    pool: bool,
    cached: bool,
}

const WAYS: [Way; 4] = [
    Way { name: "vm-seeded", image: "debian", pool: true, cached: true },
    Way { name: "vm-unseeded", image: "debian-unseeded", pool: true, cached: true },
    Way { name: "vm-without-pool", image: "debian", pool: false, cached: true },
    Way { name: "vm-cold", image: "debian", pool: true, cached: false },
];

#[test]
fn a_guest_is_the_same_whichever_way_its_vm_was_made() {
    let Some(world) = World::in_netns("a_guest_is_the_same_whichever_way_its_vm_was_made") else { return };
    let mut image = world.json("bg-image", &["show", "debian"]);
    image.as_object_mut().unwrap().remove("seed").expect("the image has seeds");
    let registered = world.pipe("bg-register", &["--name", "debian-unseeded"], image.to_string().as_bytes());
    assert!(registered.status.success(), "{}", show(&registered));
    world.ok("bg-tap", &["up"]);

    let snapshots: Vec<Snapshot> = WAYS.iter().map(|way| look(&world, way)).collect();
    let differences = WAYS.iter().zip(&snapshots).skip(1).map(|(way, snapshot)| {
        let differences = snapshots[0].differences(snapshot);
        if differences.is_empty() { differences } else { format!("{} and {}:\n{differences}", WAYS[0].name, way.name) }
    });
    let differences: String = differences.collect();
    assert!(differences.is_empty(), "guests differ:\n{differences}");
    WAYS.iter().zip(&snapshots).for_each(|(way, snapshot)| assert_promises(snapshot, way.name));
    for (nth, one) in snapshots.iter().enumerate() {
        for other in &snapshots[..nth] {
            let same = IDENTITIES.iter().filter(|(name, ..)| one.section(name) == other.section(name));
            assert_eq!(same.map(|(name, ..)| *name).collect::<Vec<_>>(), Vec::<&str>::new(), "two VMs share these");
        }
    }
    println!("{} sections are the same, {} identities are not", STATE.len(), IDENTITIES.len());
}

/// Makes a VM in this way, waits until its boot is wholly over, and looks at it. Then it is removed, so that each guest is
/// told of the same other VMs: none.
fn look(world: &World, way: &Way) -> Snapshot {
    world.ok("bg-tap", if way.pool { &["pool", "fill", "1"] } else { &["pool", "drain"] });
    if !way.cached {
        drop_from_memory(world, way.image);
    }
    let sizes = ["--memory", "512M", "--work-size", "2G", "--vcpu", "2"];
    let made = world.json("bg-vm", &[&["create", way.name, "--image", way.image], &sizes[..]].concat());
    let tap_made = made["timings"].as_array().unwrap().iter().any(|timing| timing["stage"] == "create_tap");
    let seeded = made["disks"]["work"]["from_seed"] == true;
    assert_eq!((tap_made, seeded), (!way.pool, way.image == "debian"), "{}: {made}", way.name);
    world.healthy(way.name);
    let running = world.guest(way.name, "systemctl is-system-running --wait || systemctl --failed");
    assert_eq!(running, "running", "{}", way.name);
    world.until("the end of the boot", || world.guest(way.name, snapshot::AT_REST) == "at rest");

    let taken = world.pipe("bg-ssh", &[way.name, "--", "bash -ls"], snapshot::script().as_bytes());
    assert!(taken.status.success(), "{}", show(&taken));
    let snapshot = Snapshot::parse(&String::from_utf8_lossy(&taken.stdout));
    assert_matches_record(&snapshot, &made);
    world.ok("bg-vm", &["rm", "--force", way.name]);
    snapshot
}

/// The guest has the identities that the host has noted for it.
fn assert_matches_record(snapshot: &Snapshot, doc: &Value) {
    for (identity, noted) in [
        ("host name", &doc["name"]),
        ("machine-id", &doc["id"]),
        ("IPv4 address", &doc["net"]["address"]),
        ("MAC address", &doc["net"]["mac"]),
    ] {
        let noted = noted.as_str().unwrap().split('/').next().unwrap();
        assert_eq!(snapshot.section(identity), noted, "{identity}: {doc}");
    }
}

/// A short boot leaves nothing out for good.
fn assert_promises(snapshot: &Snapshot, vm: &str) {
    for (section, expected) in snapshot::PROMISES {
        assert_eq!(snapshot.section(section), *expected, "{vm}: {section}");
    }
}

/// No page of the image's files is in the host's memory any more.
fn drop_from_memory(world: &World, image: &str) {
    let dir = world.path().join("state/images").join(image);
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    for file in files.filter(|path| path.is_file()) {
        let file = file.to_str().unwrap();
        let script = "sync \"$1\" && dd if=\"$1\" iflag=nocache count=0 status=none && fincore -bnro PAGES \"$1\"";
        let output = world.program("sh").args(["-c", script, "sh", file]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0", "{file}: {}", show(&output));
    }
}
