//! A real VM in a pid namespace of its own, asked from outside, and after that has ended.

use super::world::{World, show};
use crate::support::not_run;
use crate::support::source::root;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

#[test]
fn a_vm_in_in_netns_is_left_alone_from_outside_and_starts_there_afterwards() {
    let world = World::new();
    world.ok("bg-vm", &["create", "dev", "--no-start", "--memory", "384M", "--work-size", "2G"]);
    let mut command = world.program(root("pipelines/in-netns").to_str().unwrap());
    command.args(["sh", "-c", "bg-vm start dev >/dev/null && echo up && read line"]);
    let mut inside = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(inside.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    if line != "up\n" {
        inside.wait().unwrap();
        not_run("a_vm_in_in_netns_is_left_alone_from_outside_and_starts_there_afterwards", "no pid namespace here");
        return;
    }
    assert_eq!(world.status("dev")["state"], "running_elsewhere");
    for verb in [&["start"][..], &["stop"], &["kill"], &["rm"], &["rm", "--force"]] {
        let refused = world.run("bg-vm", &[verb, &["dev"]].concat());
        assert_eq!(refused.status.code(), Some(77), "{verb:?}: {}", show(&refused));
    }
    assert_eq!(world.findings(), Vec::<serde_json::Value>::new());
    world.collect();
    assert!(world.vm_file("dev", "root.ext4").exists());
    world.until("its guest to be up", || {
        world.path().join("run").read_dir().unwrap().flatten().any(|dir| dir.path().join("vm.vsock").exists())
    });
    assert_eq!(world.status("dev")["state"], "running_elsewhere");

    drop(inside.stdin.take());
    inside.wait().unwrap();
    assert_eq!(world.status("dev")["state"], "crashed");
    world.collect();
    world.ok("bg-vm", &["start", "dev"]);
    world.healthy("dev");
    world.ok("bg-vm", &["stop", "dev"]);
    assert_eq!(world.status("dev")["exit"]["reason"], "poweroff");
    world.ok("bg-vm", &["rm", "dev"]);
}
