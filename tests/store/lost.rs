//! A VM of which somebody has removed parts by hand: `bg-vm rm` removes the rest, whatever that is.

use super::{NONE, Place, World, is_full};
use crate::support::children;
use crate::support::launched::until;
use lib_common::error::Code;
use lib_common::sys::process::{ProcessId, all_pids, cmdline};
use serde_json::Value;
use std::os::unix::fs::FileExt;

/// What a running VM is made of, in the order in which it is taken away.
const PARTS: [&str; 7] = ["processes", "record", "root disk", "work disk", "runtime directory", "TAP", "lease"];

/// Takes one part of the VM of that document away.
fn take(world: &World, doc: &Value, part: &str) {
    let Place::Net(netns) = &world.place else { unreachable!("it was made so") };
    let dir = world.sandbox.state("machines/dev");
    let text = |pointer: &str| doc.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    match part {
        "processes" => {
            for field in ["shim_pid", "pid"] {
                let pid = doc["vmm"][field].as_i64().and_then(|pid| pid.try_into().ok()).unwrap();
                // The second may have ended with the first.
                let _ = ProcessId::of(pid).and_then(|process| process.end());
            }
        }
        "record" => std::fs::remove_file(dir.join("machine.json")).unwrap(),
        "root disk" => std::fs::remove_file(dir.join("root.ext4")).unwrap(),
        "work disk" => std::fs::remove_file(dir.join("work.ext4")).unwrap(),
        "runtime directory" => std::fs::remove_dir_all(world.sandbox.path("run").join(&text("/id")[..12])).unwrap(),
        "TAP" => drop(netns.ok(&format!("ip link del {}", text("/net/tap")))),
        "lease" => forget_lease(world, &text("/id")),
        other => unreachable!("{other}"),
    }
}

/// Empties the lease that has this id: 16 bytes.
fn forget_lease(world: &World, id: &str) {
    let [dir] = &children(&world.sandbox.path("net"))[..] else { panic!("not one network") };
    let id: Vec<u8> = (0..32).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()).collect();
    let file = std::fs::File::options().read(true).write(true).open(dir.join("leases")).unwrap();
    let leases = std::fs::read(dir.join("leases")).unwrap();
    let place = leases.chunks_exact(16).position(|record| record == id).unwrap();
    file.write_all_at(&[0; 16], place as u64 * 16).unwrap();
}

/// The subset whose bits are set.
fn parts(set: u32) -> Vec<&'static str> {
    (0..7).filter(|bit| set & (1 << bit) != 0).map(|bit| PARTS[bit]).collect()
}

fn processes(world: &World) -> Vec<String> {
    let run = world.sandbox.path("run").display().to_string();
    let all = all_pids().unwrap().into_iter().map(|pid| cmdline(pid).unwrap().join(" "));
    all.filter(|line| line.contains(&run)).collect()
}

#[test]
fn a_vm_of_which_any_parts_are_missing_is_removed_whole() {
    let Some(world) = World::with_network("a_vm_of_which_any_parts_are_missing_is_removed_whole") else { return };
    // Each alone, all but each, all, and what makes the others hard to find.
    let alone = (0..7).map(|bit| 1 << bit);
    let sample: Vec<u32> =
        alone.clone().chain(alone.map(|bit| 127 & !bit)).chain([127, 0b1_0010, 0b111_0010]).collect();
    for set in if is_full() { (0..128).collect() } else { sample } {
        let (gone, doc) = (parts(set), world.vm(&["create", "dev"]).json());
        gone.iter().for_each(|part| take(&world, &doc, part));
        let may_run = !gone.contains(&"processes");
        if may_run {
            // Whoever runs is not removed by the way.
            world.vm(&["rm", "dev"]).failed_with(Code::InUse);
        }
        let absent = "bg-vm: there is no VM `dev`, nothing is removed; `bg-vm ls` lists them\n";
        for said in ["", absent] {
            let removed = world.vm(&["rm", "--force", "dev"]);
            assert_eq!((removed.ok().as_str(), removed.stderr.as_str()), ("", said), "without {gone:?}");
        }
        until("its processes are gone", || processes(&world).is_empty());
        for dir in ["state/machines", "state/staging", "run"] {
            let left = children(&world.sandbox.path(dir));
            assert!(left.is_empty(), "without {gone:?}: {left:?}");
        }
        assert_eq!(world.run("bg-tap", &["ls"], "").documents(), NONE, "without {gone:?}");
        assert_eq!(world.leaks(), NONE, "without {gone:?}");
    }
}
