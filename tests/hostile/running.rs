//! What a running VM is known by, damaged while it runs: each tool still ends with little effort, the VM beside it is nobody's
//! trouble, nobody collects what runs, and whatever ends a VM ends this one.

use super::records::damages;
use super::{bounded, flipped, full};
use crate::running::World;
use crate::support::fixture;
use std::fs::{read, write};
use std::path::{Path, PathBuf};

/// What is asked, with the VM's name or without.
const ASKED: [(&str, &[&str]); 7] = [
    ("bg-vm", &["ls"]),
    ("bg-vm", &["show", "dev"]),
    ("bg-vm", &["stats", "dev"]),
    ("bg-vm", &["logs", "dev"]),
    ("bg-vm", &["start", "dev"]),
    ("bg-vm", &["rm", "dev"]),
    ("bg-verify", &["--now"]),
];

/// The pids of all that runs in a runtime directory.
fn pids(dir: &Path) -> Vec<i32> {
    let mut pids: Vec<i32> =
        lib_machine::store::processes::of_runtime_dir(dir).unwrap().iter().map(|process| process.pid).collect();
    pids.sort_unstable();
    pids
}

/// Starts that VM. Gives its runtime directory.
fn start(world: &World, name: &str) -> PathBuf {
    let doc = world.vm(&["start", name], "").json();
    Path::new(doc["vmm"]["vsock"].as_str().unwrap()).parent().unwrap().to_owned()
}

/// Asks everything of a VM one of whose files is `bad` by now; then it still runs, and so does the one beside it.
fn ask_everything(world: &World, file: &Path, (what, bad): (&str, &[u8]), dirs: [&Path; 2]) {
    let before = dirs.map(pids);
    write(file, bad).unwrap();
    for (tool, args) in ASKED {
        let done = bounded(&world.sandbox, &world.command(tool, args), b"");
        assert!(done.exit != 70 && done.exit < 128, "{what}: {tool} {args:?}: {done:?}");
        assert_eq!(dirs.map(pids), before, "{what}: {tool} {args:?}: {done:?}");
    }
    let found = world.sandbox.run("bg-verify", &["--now"], "");
    let collected = bounded(&world.sandbox, &world.command("bg-gc", &["--now"]), &found.stdout);
    assert!([0, 1].contains(&collected.exit), "{what}: {collected:?}");
    assert_eq!(dirs.map(pids), before, "{what}: {}", found.text());
    assert_eq!(world.state_of("other"), "running", "{what}");
}

/// Whole documents that say something else: another process, another directory.
fn lies(good: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let good = String::from_utf8(good.to_vec()).unwrap();
    let lies = [("\"start_time\":", "\"start_time\":9"), ("/dev/exit.json", "/dew/exit.json")];
    lies.into_iter().filter_map(move |(from, to)| {
        let bad = good.replacen(from, to, 1);
        (bad != good).then(|| (format!("{to:?}"), bad.into_bytes()))
    })
}

/// Every way to damage that file.
fn all(good: &[u8]) -> Vec<(String, Vec<u8>)> {
    let named = damages(good).into_iter().map(|(what, bad)| (what.to_owned(), bad)).chain(lies(good));
    let prefixes = (0..good.len() - 1).step_by(if full() { 7 } else { 211 });
    let prefixes = prefixes.map(|end| (format!("its first {end} bytes"), good[..end].to_vec()));
    let flips = flipped(good, if full() { 61 } else { 2003 }).map(|bad| ("a flipped bit".to_owned(), bad));
    named.chain(prefixes).chain(flips).collect()
}

/// Damages the file of that name in the runtime directory of a VM that runs in each way, and ends the VM after each other one.
fn damage(name: &str) {
    let world = World::new(&["dev", "other"]);
    let other = start(&world, "other");
    let verbs: [&[&str]; 4] =
        [&["stop", "--timeout", "1"], &["kill"], &["restart", "--timeout", "1"], &["rm", "--force"]];
    let mut dir = start(&world, "dev");
    for i in 0.. {
        let file = dir.join(name);
        let good = read(&file).unwrap();
        let Some((what, bad)) = all(&good).into_iter().nth(i) else { break };
        let what = format!("{name}, {what}");
        ask_everything(&world, &file, (&what, &bad), [&dir, &other]);
        if i % 2 == 1 {
            // As by somebody who has a copy.
            write(&file, &good).unwrap();
            assert_eq!(world.state_of("dev"), "running", "{what}");
            continue;
        }
        let verb = verbs[i / 2 % verbs.len()];
        let before = pids(&dir);
        world.vm(&[verb, &["dev"]].concat(), "").ok();
        let left = pids(&dir);
        assert!(left.iter().all(|pid| !before.contains(pid)), "{what}: {verb:?} left some of {before:?}: {left:?}");
        assert_eq!(left.is_empty(), verb[0] != "restart", "{what}: {verb:?}");
        world.sandbox.collect();
        if verb[0] == "rm" {
            fixture::create(&world.sandbox, "dev");
        }
        if verb[0] != "restart" {
            dir = start(&world, "dev");
        }
    }
    world.vm(&["rm", "--force", "dev", "other"], "").ok();
    world.assert_nothing_is_left();
}

#[test]
fn what_a_shim_has_written_of_its_vm_may_be_damaged() {
    damage("shim.json");
}

#[test]
fn what_a_vm_was_started_with_may_be_damaged() {
    damage("launch.json");
}
