//! A session that fails, with the system's ssh: bg-ssh speaks last, and says whose failure it is.

use crate::faults::build::has_guest;
use crate::running::World;
use crate::support::launched::until;
use crate::support::{Done, finish};
use lib_common::error::Code;
use std::path::PathBuf;

/// The VM `dev`, whose guest is an SSH server that pretends.
fn with_guest(test: &str) -> Option<World> {
    if !has_guest(test) {
        return None;
    }
    let world = World::new(&["dev"]);
    world.set_mode("guest");
    let doc = world.vm(&["start", "dev"], "").json();
    let vsock = PathBuf::from(doc["vmm"]["vsock"].as_str().unwrap());
    until("the guest is up", || vsock.exists());
    Some(world)
}

fn ssh(world: &World, args: &[&str], stdin: &str) -> Done {
    finish(world.command("bg-ssh", args).spawn().unwrap(), stdin.as_bytes())
}

#[test]
fn the_status_255_of_a_command_is_told_from_a_failure_of_ssh() {
    let Some(world) = with_guest("the_status_255_of_a_command_is_told_from_a_failure_of_ssh") else { return };
    let done = ssh(&world, &["dev", "--", "sh"], "end with 255");
    assert_eq!((done.exit, done.stderr.as_str()), (255, ""), "the command's own: {done:?}");
    let done = ssh(&world, &["dev", "--", "sh"], "be killed");
    assert_eq!((done.exit, done.stderr.as_str()), (255, "bg-ssh: a signal ended the command in the VM `dev`\n"));
    let done = ssh(&world, &["dev", "--", "sh"], "break the connection");
    let error = done.failed_with(Code::SshFailed);
    assert_eq!(done.stderr.lines().count(), 1, "{done:?}");
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("bg-health dev")), "{error:?}");
}

#[test]
fn a_guest_that_does_not_answer_is_the_last_thing_said_and_said_once() {
    let world = World::new(&["dev"]);
    world.vm(&["start", "dev"], "").ok();
    let done = ssh(&world, &["--connect-timeout", "0.3", "dev", "--", "true"], "");
    let error = done.failed_with(Code::SshFailed);
    assert_eq!(done.stderr.lines().count(), 1, "{done:?}");
    assert!(error.message.starts_with("the VM `dev` is not ready after"), "{error:?}");
    assert_eq!((error.details["reason"].as_str(), error.tool.as_str()), (Some("timed_out"), "bg-ssh"));
    // ssh's own complaint is kept, where programs look.
    assert!(error.details["child"]["stderr"].as_str().is_some_and(|text| text.contains("mm_receive_fd")), "{error:?}");
}

#[test]
fn a_guest_with_another_key_is_named_last_with_what_mends_it() {
    let Some(world) = with_guest("a_guest_with_another_key_is_named_last_with_what_mends_it") else { return };
    let record = std::fs::read_to_string(world.record("dev")).unwrap();
    let key = lib_common::guest::ssh::keys::new_host_key().unwrap();
    let old =
        serde_json::from_str::<serde_json::Value>(&record).unwrap()["guest"]["host_key"].as_str().unwrap().to_owned();
    std::fs::write(world.record("dev"), record.replace(&old, key.public_line())).unwrap();
    let done = ssh(&world, &["dev", "--", "true"], "");
    let error = done.failed_with(Code::SshFailed);
    assert_eq!(done.stderr.lines().count(), 1, "{done:?}");
    assert!(error.causes.iter().any(|cause| cause == "Host key verification failed."), "{error:?}");
    assert_eq!(error.hint.as_deref(), Some("`bg-vm restart dev` gives `dev` its own key again"));
}

#[test]
fn a_command_needs_no_dashes_behind_the_name() {
    let Some(world) = with_guest("a_command_needs_no_dashes_behind_the_name") else { return };
    for args in [&["dev", "sh", "-x", "--via"][..], &["--via", "vsock", "dev", "sh"], &["dev", "--", "sh", "-x"]] {
        assert_eq!(ssh(&world, args, "print it").ok(), "print it", "{args:?}");
    }
    let done = ssh(&world, &["dev", "--vai", "tap", "sh"], "");
    done.failed_with(Code::Usage);
}
