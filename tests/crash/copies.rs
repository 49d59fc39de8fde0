//! Two state directories that meet: at one runtime directory, or since one is a copy of the other; and documents that have the
//! id of another VM.

use super::{World, no_leaks, processes};
use crate::support::fixture::{self, WORK};
use crate::support::{Done, finish};
use lib_common::error::Code;
use serde_json::Value;

/// A tool of the same world whose state directory is another one.
fn elsewhere(world: &World, state: &str, (tool, args): (&str, &[&str]), stdin: &str) -> Done {
    let mut command = world.command(tool, args);
    command.env("BG_STATE_DIR", world.sandbox.path(state));
    finish(command.spawn().unwrap(), stdin.as_bytes())
}

#[test]
fn what_runs_for_another_state_directory_is_shown_and_left_alone() {
    let world = World::new(&["dev"]);
    world.vm(&["start", "dev"], "").ok();
    let before = processes(&world, "dev");
    let found = elsewhere(&world, "trial", ("bg-verify", &["--now"]), "");
    let about: Vec<Value> = found.documents().into_iter().filter(|f| f["kind"] == "runtime_dir").collect();
    assert_eq!((about.len(), &about[0]["owner"], &about[0]["is_leak"]), (1, &"dev".into(), &false.into()), "{found:?}");
    assert_eq!(found.exit, 0, "{found:?}");
    let lie = found.text().replace(r#""is_leak":false"#, r#""is_leak":true"#);
    elsewhere(&world, "trial", ("bg-gc", &["--now"]), &lie).ok();
    assert_eq!(processes(&world, "dev"), before);
    // Where that is gone, what runs is nobody's.
    std::fs::rename(world.sandbox.path("state"), world.sandbox.path("away")).unwrap();
    let found = elsewhere(&world, "trial", ("bg-verify", &["--now"]), "");
    assert_eq!(found.exit, 1, "{found:?}");
    std::fs::rename(world.sandbox.path("away"), world.sandbox.path("state")).unwrap();
    assert_eq!(processes(&world, "dev"), before);
}

#[test]
fn a_copy_of_a_store_does_not_end_the_vms_of_the_first() {
    let world = World::new(&["dev"]);
    world.vm(&["start", "dev"], "").ok();
    let before = processes(&world, "dev");
    let [from, to] = ["state", "copy"].map(|dir| world.sandbox.path(dir));
    assert!(std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    let show = elsewhere(&world, "copy", ("bg-vm", &["show", "dev"]), "").json();
    assert_ne!(show["status"]["state"], "running", "{show}");
    for verb in [&["stop", "dev"][..], &["kill", "dev"], &["rm", "--force", "dev"]] {
        elsewhere(&world, "copy", ("bg-vm", verb), "").ok();
        assert_eq!(processes(&world, "dev"), before, "{verb:?}");
    }
}

#[test]
fn a_document_with_the_id_of_another_vm_is_refused_and_that_vm_lives() {
    let world = World::new(&["dev"]);
    let plan = |name: &str| fixture::plan(&world.sandbox, name);
    let id = world.vm(&["show", "dev"], "").json()["id"].as_str().unwrap().to_owned();
    let with_its_id = |name: &str| {
        let mut doc: Value = serde_json::from_str(&plan(name)).unwrap();
        doc["id"] = id.clone().into();
        doc.to_string()
    };
    for running in [false, true] {
        if running {
            world.vm(&["start", "dev"], "").ok();
        }
        let said = world.sandbox.run("bg-seed", &["clone"], with_its_id("dev2")).failed_with(Code::Exists);
        assert!(said.message.contains("is that of the VM `dev`"), "{said:?}");
    }
    let before = processes(&world, "dev");
    // Of another store, whose runtime directory is the same: nobody looks through that one's VMs.
    let files = fixture::Files::new(&world.sandbox, "trial").document().to_string();
    elsewhere(&world, "trial", ("bg-register", &["--name", "debian"]), &files).ok();
    let plan = elsewhere(&world, "trial", ("bg-vm", &["plan", "dev2", "--work-size", WORK]), "").ok();
    let mut doc: Value = serde_json::from_str(&plan).unwrap();
    doc["id"] = id.clone().into();
    elsewhere(&world, "trial", ("bg-seed", &["clone"]), &doc.to_string()).failed_with(Code::Exists);
    assert_eq!(processes(&world, "dev"), before);
    // One that changes its id on the way.
    let cloned = world.sandbox.run("bg-seed", &["clone"], fixture::plan(&world.sandbox, "dev3")).ok();
    let mut changed: Value = serde_json::from_str(&cloned).unwrap();
    changed["id"] = id.into();
    world.vm(&["start"], &changed.to_string()).failed_with(Code::BadDocument);
    assert_eq!(processes(&world, "dev"), before);
    world.vm(&["start"], &cloned).ok();
    no_leaks(&world, "at the end");
}

#[test]
fn a_pipeline_that_comes_late_does_not_start_anothers_vm() {
    let world = World::new(&[]);
    let cloned = || world.sandbox.run("bg-seed", &["clone"], fixture::plan(&world.sandbox, "dev")).ok();
    let first = cloned();
    world.sandbox.collect();
    let second = cloned();
    let said = world.vm(&["start"], &first).failed_with(Code::BadDocument);
    assert!(said.message.contains("is another one by now"), "{said:?}");
    let started = world.vm(&["start"], &second).json();
    assert_eq!(started["id"], serde_json::from_str::<Value>(&second).unwrap()["id"]);
}

#[test]
fn a_seed_that_no_image_has_is_not_cloned() {
    let world = World::new(&[]);
    world.sandbox.run("bg-seed", &["build", "debian", "--size", WORK], "").ok();
    let mut doc: Value = serde_json::from_str(&fixture::plan(&world.sandbox, "dev")).unwrap();
    let other = world.sandbox.path("home/other");
    std::fs::write(&other, vec![7; 16 << 20]).unwrap();
    doc["image"]["seed"]["sizes"][0]["path"] = other.to_str().unwrap().into();
    world.sandbox.run("bg-seed", &["clone"], doc.to_string()).failed_with(Code::BadDocument);
    world.assert_nothing_is_left();
}
