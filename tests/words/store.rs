//! Records that are damaged, a full disk, sizes, and what a signal leaves to say.

use crate::running::World;
use crate::support::launched::until;
use crate::support::{Sandbox, finish, fixture};
use lib_common::error::Code;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::write;

#[test]
fn a_vm_whose_record_is_damaged_keeps_its_row_and_has_a_hint() {
    let world = World::new(&["bad", "good"]);
    write(world.record("bad"), "{").unwrap();
    let table = world.vm(&["ls", "--output", "table"], "");
    let row = table.ok().lines().find(|line| line.starts_with("bad ")).map(str::to_owned);
    assert!(row.is_some_and(|row| row.contains("damaged")), "{table:?}");
    assert!(table.stderr.contains("bg-vm rm --force bad"), "{table:?}");
    let listed = world.vm(&["ls", "--output", "json"], "");
    assert_eq!(listed.json()["name"], "good", "a document has more to say than a name");
    let error = world.vm(&["show", "bad"], "").failed_with(Code::BadDocument);
    assert!(error.hint.is_some_and(|hint| hint.contains("bg-vm rm --force bad")));
}

#[test]
fn an_image_whose_record_is_damaged_keeps_its_row_and_has_a_hint() {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "debian");
    fixture::register(&sandbox, "other");
    write(sandbox.state("images/other/image.json"), r#"{"api_version":"banger/v1","kind":"Image","name":"other"}"#)
        .unwrap();
    let table = sandbox.run("bg-image", &["ls", "--output", "table"], "");
    assert!(table.ok().lines().any(|line| line.starts_with("debian ")), "{table:?}");
    write(sandbox.state("images/other/image.json"), "{").unwrap();
    let table = sandbox.run("bg-image", &["ls", "--output", "table"], "");
    assert!(table.ok().lines().any(|line| line.starts_with("other ") && line.contains("damaged")), "{table:?}");
    assert!(table.stderr.contains("`bg-image rm other`"), "{table:?}");
}

#[test]
fn sizes_in_messages_have_units() {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "debian");
    let error = sandbox.run("bg-vm", &["create", "dev", "--root-size", "8"], "").failed_with(Code::BadValue);
    assert!(error.message.contains("8 bytes") && error.hint.as_deref().unwrap().contains("iB"), "{error:?}");
    let error =
        sandbox.run("bg-vm", &["create", "dev", "--no-start", "--work-size", "8"], "").failed_with(Code::BadValue);
    assert_eq!(error.causes, ["a disk cannot have 8 bytes"], "{error:?}");
    assert!(error.hint.is_some_and(|hint| hint.contains("8G is 8 GiB")));
    let long = format!("{{\"x\":\"{}\"}}", "y".repeat(2 << 20));
    let error = sandbox.run("bg-vm", &["stop"], long).failed_with(Code::BadDocument);
    assert_eq!(error.message, "the document is larger than 1 MiB");
}

#[test]
fn who_is_interrupted_while_it_waits_claims_to_have_undone_nothing() {
    let world = World::new(&["dev"]);
    world.vm(&["start", "dev"], "").ok();
    let event = world.sandbox.path("events");
    let mut command = world.command("bg-health", &["--wait", "60", "dev"]);
    let child = command.env("BG_EVENTS", &event).spawn().unwrap();
    until("it waits", || event.exists());
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let error = finish(child, b"").failed_with(Code::Interrupted);
    assert_eq!(error.message, "interrupted");
}

#[test]
fn what_was_begun_and_undone_is_told() {
    let world = World::new(&[]);
    world.set_mode("mute");
    let child = world.command("bg-vm", &["create", "dev", "--work-size", fixture::WORK]).spawn().unwrap();
    until("it has begun", || world.sandbox.state("machines/dev").exists());
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let error = finish(child, b"").failed_with(Code::Terminated);
    assert!(error.message.ends_with("what was begun has been undone"), "{error:?}");
    world.assert_nothing_is_left();
}
