//! VMs whose runtime directory is gone or damaged, or whose programs have other names by now.

use super::{Suite, World, no_leaks, processes, runtime_dir, shims};
use lib_common::error::Code;
use lib_machine::store::processes::of_runtime_dir;
use std::fs::{remove_dir_all, rename, write};
use std::time::Duration;

#[test]
fn a_vm_whose_runtime_directory_is_gone_is_not_started_twice() {
    let world = World::new(&["dev"]);
    world.vm(&["start", "dev"], "").ok();
    let (before, dir) = (processes(&world, "dev"), runtime_dir(&world, "dev"));
    // As logind does with an ordinary user's last session.
    remove_dir_all(world.sandbox.path("run")).unwrap();
    assert_eq!(processes(&world, "dev"), before);
    let said = world.vm(&["start", "dev"], "").failed_with(Code::InUse);
    assert_eq!(said.hint.as_deref(), Some("bg-vm restart dev"), "{said:?}");
    let found = world.sandbox.findings(&["--now"]);
    let lost: Vec<_> = found.iter().filter(|f| f["kind"] == "runtime_dir").collect();
    assert_eq!((lost.len(), &lost[0]["owner"], &lost[0]["fix"]), (1, &"dev".into(), &"bg-vm restart dev".into()));
    no_leaks(&world, "nothing of it is a leak");
    world.sandbox.run("bg-gc", &["--now"], found.iter().map(|f| format!("{f}\n")).collect::<String>()).ok();
    assert_eq!((processes(&world, "dev"), shims(&dir)), (before.clone(), 1));
    world.vm(&["restart", "--timeout", "1", "dev"], "").ok();
    assert_ne!(processes(&world, "dev"), before);
    assert_eq!(shims(&dir), 1);
    for verb in [&["kill", "dev"][..], &["rm", "--force", "dev"]] {
        remove_dir_all(world.sandbox.path("run")).unwrap();
        world.vm(verb, "").ok();
        assert_eq!(shims(&dir), 0, "{verb:?}");
        if verb[0] == "kill" {
            assert_eq!(world.state_of("dev"), "stopped");
            world.vm(&["start", "dev"], "").ok();
        }
    }
    world.assert_nothing_is_left();
}

#[test]
fn who_comes_while_a_shim_leaves_waits_for_its_end() {
    let world = World::new(&["dev"]);
    for verb in ["start", "rm"] {
        world.vm(&["start", "dev"], "").ok();
        let dir = runtime_dir(&world, "dev");
        // As far as a shim gets whose processor is taken away between its last work and its exit.
        remove_dir_all(&dir).unwrap();
        let exit = r#"{"at":"2026-01-01T00:00:00Z","reason":"poweroff","status":"exit status 0","reboots":0}"#;
        write(world.sandbox.state("machines/dev/exit.json"), exit).unwrap();
        let leaving =
            of_runtime_dir(&dir).unwrap().into_iter().find(|process| process.exe.ends_with("bg-shim")).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(500));
                leaving.end().unwrap();
            });
            world.vm(&[verb, "dev"], "").ok();
        });
        assert_eq!(shims(&dir), usize::from(verb == "start"), "{verb}");
        if verb == "start" {
            world.vm(&["kill", "dev"], "").ok();
        }
    }
    world.assert_nothing_is_left();
}

#[test]
fn a_vm_whose_state_is_damaged_is_ended_by_any_verb_that_ends_one() {
    for damaged in ["", "{}", "junk"] {
        for verb in [&["stop", "--timeout", "1", "dev"][..], &["kill", "dev"], &["rm", "--force", "dev"]] {
            let world = World::new(&["dev"]);
            world.vm(&["start", "dev"], "").ok();
            let dir = runtime_dir(&world, "dev");
            write(dir.join("shim.json"), damaged).unwrap();
            assert_eq!(world.state_of("dev"), "running", "{damaged:?}");
            world.vm(&["start", "dev"], "").failed_with(Code::InUse);
            world.vm(&["rm", "dev"], "").failed_with(Code::InUse);
            no_leaks(&world, damaged);
            world.vm(verb, "").ok();
            assert_eq!(shims(&dir), 0, "{damaged:?} {verb:?}");
            world.sandbox.collect();
            world.vm(&["rm", "dev"], "").ok();
            world.assert_nothing_is_left();
        }
    }
}

#[test]
fn a_vm_lives_on_when_its_programs_are_renamed_or_replaced() {
    let world = World::new(&["dev"]);
    let suite = Suite::new(&world);
    suite.vm(&["start", "dev"]).ok();
    let before = processes(&world, "dev");
    for (shim, what) in [("bg-shim", "renamed"), ("bg-shim.old", "removed")] {
        match what {
            "renamed" => {
                rename(suite.dir.join(shim), suite.dir.join("bg-shim.old")).unwrap();
                std::fs::copy(suite.dir.join("bg-shim.old"), suite.dir.join("bg-shim")).unwrap();
            }
            _ => std::fs::remove_file(suite.dir.join(shim)).unwrap(),
        }
        assert_eq!(processes(&world, "dev"), before, "{what}");
        assert!(suite.vm(&["start", "dev"]).stderr.contains("dev runs already"), "{what}");
        no_leaks(&world, what);
        world.sandbox.collect();
        assert_eq!(processes(&world, "dev"), before, "{what}");
    }
    suite.vm(&["stop", "--timeout", "1", "dev"]).ok();
    assert_eq!(world.state_of("dev"), "stopped");
}
