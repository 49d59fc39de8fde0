//! The second thread of a creation with its start: it syncs the VM's host key and its name while the VMM begins. strace tells its
//! calls from those of the first by their files.

use super::verbs::{CREATE_AND_START, show};
use super::{World, bystander, trace};
use crate::support::finish;
use crate::support::has_strace;
use serde_json::Value;

const FAULTS: [&str; 5] = ["signal=KILL", "error=ENOSPC", "error=EIO", "error=EMFILE", "error=EACCES"];

#[test]
fn a_creation_whose_second_thread_fails_is_told_with_its_path_and_leaves_nothing() {
    let test = "a_creation_whose_second_thread_fails_is_told_with_its_path_and_leaves_nothing";
    if !has_strace(test) {
        return;
    }
    let world = World::new(&["kept"]);
    // The store's own key is there: to save it is the first thread's.
    world.vm(&["start", "kept"], "").ok();
    world.vm(&["kill", "kept"], "").ok();
    let before = bystander(&world);
    let command = world.command(CREATE_AND_START.tool, CREATE_AND_START.args);
    for file in ["machines/dev/ssh_host_ed25519_key", "machines"] {
        let (path, log) = (world.sandbox.state(file).display().to_string(), world.sandbox.path("settle"));
        for fault in FAULTS {
            let what = format!("{fault} at the sync of {file}");
            let inject = format!("inject=fsync:{fault}");
            let options = ["-f", "-P", &path, "-e", "trace=fsync", "-e", &inject];
            let done = finish(trace::under_strace(&command, &log, &options).spawn().unwrap(), b"");
            let met = std::fs::read_to_string(&log).unwrap();
            assert!(met.contains("(INJECTED)") || met.contains("killed by SIGKILL"), "{what}: {done:?} {met}");
            if fault == "signal=KILL" {
                assert_eq!(done.exit, 137, "{what}: {done:?}");
            } else {
                let doc = done.failed();
                assert!(format!("{} {:?}", doc.message, doc.causes).contains(&path), "{what}: {doc:?}");
            }
            world.sandbox.collect();
            assert_eq!(show(&world, "dev"), None, "{what}");
            assert_eq!(bystander(&world), before, "{what}");
        }
    }
    world.vm(CREATE_AND_START.args, "").ok();
    world.vm(&["rm", "--force", "dev"], "").ok();
    assert_eq!(world.sandbox.findings(&["--now"]), Vec::<Value>::new());
}
