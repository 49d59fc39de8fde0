//! What has lost its record: a VM, running or not, an image, and what a user keeps beside them. None of it is a leak.

use super::{collect, make_old, store};
use crate::running::World;
use crate::support::Sandbox;
use lib_machine::config::Config;
use lib_machine::store::Store;
use lib_tools::ops::audit::{VerifyArgs, audit, mend};
use serde_json::Value;
use std::fs::{create_dir, remove_file, rename, write};

const NONE: Vec<Value> = vec![];

/// Says that of all that is found nothing is a leak, old as it is, that each of these is among it, and that nothing is removed.
fn assert_kept(sandbox: &Sandbox, ids: &[&str]) -> Vec<Value> {
    let found = sandbox.findings(&["--now"]);
    assert!(found.iter().all(|f| f["is_leak"] == false), "{found:?}");
    for id in ids {
        let id = sandbox.state(id).display().to_string();
        assert!(found.iter().any(|f| f["id"] == id.as_str()), "{id}: {found:?}");
    }
    assert_eq!(collect(sandbox, &found), NONE);
    found
}

#[test]
fn a_running_vm_that_has_lost_its_record_lives_on_with_its_disks() {
    let world = World::new(&["dev"]);
    world.vm(&["start", "dev"], "").ok();
    let (dir, away) = (world.sandbox.state("machines/dev"), world.sandbox.path("home/machine.json"));
    rename(world.record("dev"), &away).unwrap();
    let found = assert_kept(&world.sandbox, &["machines/dev"]);
    assert!(found.iter().any(|f| f["kind"] == "process"), "{found:?}");
    let lost = found.iter().find(|f| f["kind"] == "machine").unwrap();
    assert!(lost["evidence"].as_str().unwrap().contains("machine.json is missing"), "{lost}");
    assert!(lost["fix"].as_str().unwrap().contains("bg-vm rm --force dev"), "{lost}");
    assert!(dir.join("root.ext4").exists() && dir.join("work.ext4").exists());
    rename(&away, world.record("dev")).unwrap();
    assert_eq!((world.state_of("dev").as_str(), world.sandbox.findings(&["--now"])), ("running", NONE));
    // What is printed removes it.
    remove_file(world.record("dev")).unwrap();
    world.vm(&["rm", "--force", "dev"], "").ok();
    world.assert_nothing_is_left();
}

#[test]
fn a_vm_and_an_image_without_a_record_and_what_a_user_keeps_beside_them_stay() {
    let sandbox = store();
    for record in ["machines/dev/machine.json", "images/debian/image.json"] {
        remove_file(sandbox.state(record)).unwrap();
    }
    for dir in ["machines/backup", "machines/My Backups", "images/backup"] {
        create_dir(sandbox.state(dir)).unwrap();
        write(sandbox.state(dir).join("precious"), "").unwrap();
        make_old(&sandbox.state(dir));
    }
    let ids = ["machines/dev", "machines/backup", "machines/My Backups", "images/debian", "images/backup"];
    assert_kept(&sandbox, &ids);
    for (tool, args) in [("bg-vm", ["rm", "dev"]), ("bg-image", ["rm", "debian"])] {
        sandbox.run(tool, &args, "").ok();
    }
    assert!(!sandbox.state("machines/dev").exists() && !sandbox.state("images/debian").exists());
    assert!(ids[1..3].iter().all(|dir| sandbox.state(dir).join("precious").exists()));
}

#[test]
fn an_image_that_has_lost_its_record_is_registered_again() {
    let sandbox = store();
    remove_file(sandbox.state("images/debian/image.json")).unwrap();
    assert_kept(&sandbox, &["images/debian"]);
    let document = crate::support::fixture::Files::new(&sandbox, "again").document().to_string();
    sandbox.run("bg-register", &["--name", "debian", "--replace"], document).ok();
    assert_eq!(sandbox.findings(&["--now"]), NONE);
}

#[test]
fn an_empty_directory_is_a_leak_until_somebody_puts_something_into_it() {
    let sandbox = Sandbox::new();
    let config = Config::load(&sandbox.env(), false).unwrap();
    let store = Store::new(&config, lib_machine::net::give_back_all);
    store.prepare().unwrap();
    for kind in ["machines", "images"] {
        let dir = sandbox.state(kind).join("half");
        create_dir(&dir).unwrap();
        write(dir.join("lock"), "").unwrap();
        let look = || {
            let found = audit(&store, &config, VerifyArgs { now: true, deep: false }).unwrap();
            found.into_iter().find(|f| f.finding.id == dir.display().to_string()).unwrap()
        };
        let found = look();
        assert!(found.finding.is_leak, "{found:?}");
        write(dir.join("precious"), "").unwrap();
        assert!(!mend(&store, &config, &found).unwrap() && dir.join("precious").exists(), "{kind}");
        assert!(!look().finding.is_leak, "{kind}");
        remove_file(dir.join("precious")).unwrap();
        assert!(mend(&store, &config, &found).unwrap() && !dir.exists(), "{kind}");
    }
}
