//! Names of VMs: a slip in one, one that is taken, and the host name in its place.

use crate::running::World;
use crate::support::finish;
use lib_common::error::Code;

#[test]
fn what_is_removed_and_is_not_there_is_told_with_the_nearest_name() {
    let world = World::new(&["dev"]);
    let done = world.vm(&["rm", "dve"], "");
    done.ok();
    let said = "bg-vm: there is no VM `dve`, nothing is removed; did you mean `dev`? `bg-vm ls` lists them all\n";
    assert_eq!(done.stderr, said);
    assert_eq!(world.state_of("dev"), "stopped");
    let done = world.sandbox.run("bg-image", &["rm", "debain"], "");
    done.ok();
    assert!(done.stderr.contains("there is no image `debain`") && done.stderr.contains("`debian`?"), "{done:?}");
}

#[test]
fn a_name_that_is_taken_says_what_can_be_typed() {
    let world = World::new(&["dev"]);
    let taken = |world: &World| world.vm(&["create", "dev"], "").failed_with(Code::Exists);
    let error = taken(&world);
    assert!(error.hint.as_deref().is_some_and(|hint| hint.starts_with("`bg-vm start dev` starts it")), "{error:?}");
    world.vm(&["start", "dev"], "").ok();
    let error = taken(&world);
    assert_eq!(error.message, "there is a VM `dev` already, and it runs");
    let hint = error.hint.unwrap();
    for word in ["`bg-ssh dev`", "`bg-vm rm --force dev`", "another name"] {
        assert!(hint.contains(word), "{hint}");
    }
}

#[test]
fn the_host_name_of_a_vm_is_taken_wherever_a_vm_is_named() {
    let world = World::new(&["dev"]);
    for verb in ["start", "show", "logs", "ports", "stats", "kill"] {
        let done = world.vm(&[verb, "dev.vm"], "");
        assert!(!done.stderr.contains("is not a name") && !done.stderr.contains("there is no VM"), "{verb}: {done:?}");
        if matches!(verb, "start" | "show" | "kill") {
            assert_eq!(done.json()["name"], "dev", "{verb}: documents keep the name");
        }
    }
    for (tool, args) in [
        ("bg-health", &["dev.vm"][..]),
        ("bg-ssh", &["dev.vm", "true"]),
        ("bg-tap", &["release", "dev.vm"]),
        ("bg-seed", &["check", "--vm", "dev.vm"]),
    ] {
        let done = finish(world.command(tool, args).spawn().unwrap(), b"");
        assert!(!done.stderr.contains("is not a name") && !done.stderr.contains("there is no VM"), "{tool}: {done:?}");
    }
    for verb in ["create", "plan"] {
        let error = world.vm(&[verb, "new.vm"], "").failed_with(Code::Usage);
        assert!(error.hint.as_deref().is_some_and(|hint| hint.starts_with("name it `new`")), "{error:?}");
    }
    world.vm(&["rm", "dev.vm"], "").ok();
    world.assert_nothing_is_left();
}
