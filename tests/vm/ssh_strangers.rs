//! Who answers in place of a VM is refused, whether it has the VM's address or its disk.

use super::world::{World, boot, show};
use std::process::Output;

#[track_caller]
fn is_refused(output: &Output) {
    assert_eq!((output.status.code(), output.stdout.len()), (Some(255), 0), "{}", show(output));
    assert!(show(output).contains("Host key verification failed"), "{}", show(output));
    assert!(show(output).contains("`bg-vm restart one` gives `one` its own key again"), "{}", show(output));
}

#[test]
fn a_vm_at_another_ones_address_or_with_its_disk_is_refused() {
    let Some(world) = World::in_netns("a_vm_at_another_ones_address_or_with_its_disk_is_refused") else { return };
    let small = ["--memory", "384M", "--work-size", "2G"];
    for name in ["one", "two"] {
        world.ok("bg-vm", &[&["create", name], &small[..]].concat());
        world.healthy(name);
    }
    let enter = |way: &str| world.run("bg-ssh", &["one", "--via", way, "--", "hostname"]);
    assert_eq!(String::from_utf8_lossy(&enter("tap").stdout), "one\n");

    // The other one takes its address; whatever remembers where that was is made to forget it.
    let address = world.json("bg-vm", &["show", "one"])["net"]["address"].as_str().unwrap().to_owned();
    world.ok("bg-ssh", &["one", "--via", "vsock", "--", &format!("ip addr del {address} dev eth0")]);
    world.ok("bg-ssh", &["two", "--via", "vsock", "--", &format!("ip addr add {address} dev eth0")]);
    world.netns().ok("ip neigh flush all");
    is_refused(&enter("tap"));
    assert_eq!(String::from_utf8_lossy(&enter("vsock").stdout), "one\n", "it is no less reached by vsock");

    // The other one's disk, on which sshd has a key of its own, that no boot replaces.
    let own =
        "ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/own && echo HostKey /etc/ssh/own >/etc/ssh/sshd_config.d/0.conf";
    world.guest("two", &format!("{own} && sync"));
    world.ok("bg-vm", &["stop", "--timeout", &boot(), "one", "two"]);
    std::fs::rename(world.vm_file("two", "root.ext4"), world.vm_file("one", "root.ext4")).unwrap();
    world.ok("bg-vm", &["start", "one"]);
    world.healthy("one");
    is_refused(&enter("vsock"));
    is_refused(&enter("tap"));
}
