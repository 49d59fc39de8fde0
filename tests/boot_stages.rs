//! What `bg-shim` notes of a guest's boot, on both VMMs, from guests that say of it what they like.

use crate::support::launched::{Machine, until};
use lib_common::doc::{Boot, strict};
use lib_machine::vmm;
use std::io::Write;
use std::os::unix::net::UnixStream;

const RUN: &str = "0123456789ab";

fn boot(machine: &Machine) -> Option<Boot> {
    strict(&machine.read(&format!("{RUN}/boot.json"))).ok()
}

fn stages(boot: &Boot) -> Vec<&str> {
    boot.timings.iter().map(|t| t.stage.as_str()).collect()
}

#[test]
fn a_guest_is_up_at_once_whatever_it_says_of_its_boot_and_when() {
    let line = "{\"init_us\":0,\"handover_us\":1000,\"agent_us\":2000}\n";
    type Make = fn(&str) -> Machine;
    for make in [Machine::new as Make, Machine::firecracker] {
        for (said, expected) in [
            (line.to_owned(), &["kernel", "init", "agent"][..]),
            ("{\"init_us\":-1e400}\n".into(), &["boot"]),
            ("x".repeat(1 << 20), &["boot"]),
        ] {
            let machine = make("silent");
            let state = machine.run();
            let run = machine.file(RUN);
            assert!(boot(&machine).is_none());
            let mut guest = UnixStream::connect(run.join("vm.vsock_51")).unwrap();
            // Before it has said anything.
            until("the guest is up", || run.join("vm.vsock").exists());
            assert!(boot(&machine).is_none());
            // A line that is too long is not read to its end.
            let _ = guest.write_all(said.as_bytes());
            until("the stages are noted", || boot(&machine).is_some());
            let first = boot(&machine).unwrap();
            assert_eq!((stages(&first), first.reboots), (expected.to_vec(), 0));
            assert!(first.timings.iter().all(|t| t.tool == "guest" && t.ms >= 0.0), "{first:?}");
            // An agent that was started again says nothing new.
            let mut again = UnixStream::connect(run.join("vm.vsock_51")).unwrap();
            let _ = again.write_all(line.as_bytes());
            let mut end = [0];
            let _ = std::io::Read::read(&mut again, &mut end);
            assert_eq!(boot(&machine), Some(first));
            vmm::end(&run).unwrap();
            machine.exit(&state);
        }
    }
}

#[test]
fn a_guest_that_never_says_more_is_not_waited_for_without_end() {
    let machine = Machine::firecracker("silent");
    let state = machine.run();
    let guest = UnixStream::connect(machine.file(RUN).join("vm.vsock_51")).unwrap();
    until("the stages are noted", || boot(&machine).is_some());
    assert_eq!(stages(&boot(&machine).unwrap()), ["boot"]);
    drop(guest);
    vmm::end(&machine.file(RUN)).unwrap();
    machine.exit(&state);
}

#[test]
fn a_reboot_has_stages_of_its_own() {
    let machine = Machine::firecracker("resets-once");
    let state = machine.run();
    until("the stages of the second boot", || boot(&machine).is_some_and(|boot| boot.reboots == 1));
    vmm::end(&machine.file(RUN)).unwrap();
    machine.exit(&state);
}
