//! One system call of `bg-tap` that fails: it says what it could not do, leaves nothing that the audit does not take, and does it
//! the next time.

use super::{Bystander, Host, machine};
use crate::faults::{sampled, trace};
use crate::support::has_strace;
use crate::support::program;
use std::process::Command;

/// How many points of each verb are tried, unless all are.
const SAMPLE: usize = 3;

const FAULTS: [&str; 4] = ["error=ENOSPC", "error=EIO", "error=EMFILE", "error=EACCES"];

fn command(host: &Host, args: &[&str]) -> Command {
    host.netns.tool(&host.sandbox, "bg-tap", args)
}

/// Runs a verb with each fault at its points. `begin` makes what it begins with, and gives its stdin. The bystander, where there
/// is one, does not notice.
fn fails(host: &Host, bystander: Option<&Bystander>, args: &[&str], begin: impl Fn() -> String) {
    let command = command(host, args);
    let stdin = begin();
    let (done, calls) = trace::calls(&host.sandbox, &command, &stdin, (trace::CALLS, false));
    done.ok();
    // What nsenter(1) does before it becomes the tool changes nothing.
    let of_network = |point: &trace::Point| ["sendto", "sendmsg", "ioctl"].contains(&&*point.call);
    let points: Vec<trace::Point> = trace::points(&calls).into_iter().filter(trace::Point::may_fail).collect();
    let tried = sampled(&points, SAMPLE);
    let mut met = 0;
    for point in &tried {
        for fault in FAULTS {
            host.collect();
            let stdin = begin();
            let what = format!("bg-tap {args:?}: {fault} at {point:?}");
            let (done, has_met) = trace::with_fault(&host.sandbox, &command, &stdin, point, fault);
            if done.exit != 0 {
                let doc = done.failed();
                let said = format!("{} {:?} {:?}", doc.message, doc.causes, doc.details);
                assert!(doc.code != "internal", "{what}: {said}");
                // Of the kernel's network and of a thread nothing has a path; of a program that cannot be started its name is told.
                let named =
                    said.contains('/') || said.contains("cannot start nft") || said.contains("cannot start a thread");
                assert!(named || of_network(point), "{what}: {} {said}", doc.code);
            }
            met += usize::from(has_met);
            host.collect();
            let again = host.tap(args, begin());
            assert_eq!(again.exit, 0, "{what}: {again:?}");
            bystander.iter().for_each(|vm| vm.assert_untouched(host, &what));
        }
    }
    println!("bg-tap {args:?}: {} of {} points, {met} of {} runs met", tried.len(), points.len(), tried.len() * 4);
    assert!(points.len() > 3 && met * 2 >= tried.len() * 4, "{} {args:?}: {calls:?}", program("bg-tap"));
}

fn down(host: &Host) -> String {
    host.tap(&["down", "--force"], "").ok();
    String::new()
}

fn up(host: &Host) -> String {
    host.tap(&["up"], "").ok();
    host.tap(&["pool", "fill", "2"], "").ok();
    String::new()
}

/// Gives back what others than the bystander have.
fn back(host: &Host) {
    for tap in host.others().iter().filter_map(|tap| tap["tap"].as_str()) {
        host.tap(&["release", "--with-address", "--tap", tap], "").ok();
    }
}

fn host(test: &str) -> Option<Host> {
    Host::new(test).filter(|_| has_strace(test))
}

#[test]
fn a_call_of_up_or_down_that_fails_is_told_and_leaves_nothing() {
    let Some(host) = host("a_call_of_up_or_down_that_fails_is_told_and_leaves_nothing") else { return };
    fails(&host, None, &["up"], || down(&host));
    up(&host);
    fails(&host, None, &["down"], || up(&host));
    host.down(&["--force"]);
}

/// Does that beside a VM.
fn beside_a_vm(host: &Host, work: impl FnOnce(&Bystander)) {
    up(host);
    let bystander = host.bystander();
    work(&bystander);
    back(host);
    bystander.end(host);
    host.collect();
    host.down(&["--force"]);
}

#[test]
fn a_call_of_acquire_or_release_that_fails_is_told_and_leaves_nothing() {
    let Some(host) = host("a_call_of_acquire_or_release_that_fails_is_told_and_leaves_nothing") else { return };
    beside_a_vm(&host, |vm| {
        fails(&host, Some(vm), &["acquire"], || {
            up(&host);
            back(&host);
            machine(1)
        });
        fails(&host, Some(vm), &["release", "--with-address"], || {
            up(&host);
            back(&host);
            host.acquire(1).to_string()
        });
    });
}

#[test]
fn a_call_of_the_pool_that_fails_is_told_and_leaves_nothing() {
    let Some(host) = host("a_call_of_the_pool_that_fails_is_told_and_leaves_nothing") else { return };
    beside_a_vm(&host, |vm| {
        fails(&host, Some(vm), &["pool", "fill", "4"], || {
            host.tap(&["pool", "drain"], "").ok();
            up(&host)
        });
        fails(&host, Some(vm), &["pool", "drain"], || up(&host));
    });
}
