//! Stop, start, reboot, poweroff: what is on the disks stays.

use super::world::{World, show};

#[test]
fn disks_outlive_stop_start_reboot_and_poweroff() {
    let world = World::new();
    let args = "banger.test=\"a b\" loglevel=5";
    world.ok("bg-vm", &["create", "dev", "--memory", "512M", "--work-size", "2G", "--kernel-args", args]);
    let first = world.healthy("dev");
    let line = world.guest("dev", "cat /proc/cmdline");
    // What follows may be what Firecracker has appended.
    let end = line.split(" pci=off").next().unwrap();
    assert!(end.ends_with(args), "{line}");
    world.guest("dev", "echo one > /root/work; echo one > /srv/root");
    world.ok("bg-vm", &["stop", "dev"]);
    let status = world.status("dev");
    assert_eq!((&status["state"], &status["exit"]["reason"]), (&"stopped".into(), &"poweroff".into()), "{status}");
    assert_eq!(world.processes(), Vec::<String>::new());
    let report = world.json("bg-seed", &["check", "--vm", "dev"]);
    assert_eq!(report["ok"], true, "{report}");

    world.ok("bg-vm", &["start", "dev"]);
    let second = world.healthy("dev");
    assert_ne!(first["health"]["boot_id"], second["health"]["boot_id"]);
    assert_eq!(first["guest"]["host_key"], second["guest"]["host_key"], "a VM keeps its host key");
    assert_eq!(world.guest("dev", "cat /root/work /srv/root"), "one\none");

    let before = world.json("bg-vm", &["show", "dev"]);
    world.run("bg-ssh", &["dev", "--", "systemctl reboot"]);
    world.until("the reboot", || {
        let health = world.run("bg-health", &["dev"]);
        let doc: serde_json::Value = serde_json::from_slice(&health.stdout).unwrap_or_default();
        doc["health"]["boot_id"].is_string() && doc["health"]["boot_id"] != second["health"]["boot_id"]
    });
    world.healthy("dev");
    let after = world.json("bg-vm", &["show", "dev"]);
    assert_eq!(after["status"]["state"], "running");
    assert_eq!(before["vmm"]["shim_pid"], after["vmm"]["shim_pid"], "the shim stays over a reboot");
    assert_ne!(before["vmm"]["pid"], after["vmm"]["pid"], "a reboot is a new VMM");
    assert_eq!(world.guest("dev", "cat /root/work /srv/root"), "one\none");

    world.run("bg-ssh", &["dev", "--", "systemctl poweroff"]);
    world.until("the poweroff", || world.status("dev")["state"] == "stopped");
    let exit = world.status("dev")["exit"].take();
    assert_eq!((&exit["reason"], &exit["reboots"]), (&"poweroff".into(), &1.into()), "{exit}");
    let stopped = world.run("bg-ssh", &["dev", "--", "true"]);
    assert_eq!(stopped.status.code(), Some(69), "{}", show(&stopped));
    world.ok("bg-vm", &["rm", "dev"]);
    world.ok("bg-vm", &["rm", "dev"]);
}

#[test]
fn two_vms_run_beside_each_other_and_a_stop_that_cannot_wait_says_that_it_killed() {
    let world = World::new();
    for name in ["one", "two"] {
        world.ok("bg-vm", &["create", name, "--memory", "384M", "--work-size", "2G"]);
    }
    let docs = ["one", "two"].map(|name| world.healthy(name));
    for field in ["/id", "/guest/host_key", "/health/boot_id", "/vmm/vsock", "/vmm/pid"] {
        assert_ne!(docs[0].pointer(field), docs[1].pointer(field), "{field}");
    }
    assert_eq!(world.guest("one", "hostname"), "one");
    assert_eq!(world.guest("two", "hostname"), "two");
    let refused = world.run("bg-vm", &["rm", "one"]);
    assert_eq!(refused.status.code(), Some(75), "a running VM is not removed: {}", show(&refused));
    let output = world.run("bg-vm", &["stop", "one", "--timeout", "0"]);
    assert!(output.status.success() && show(&output).contains("was killed"), "{}", show(&output));
    assert_eq!(world.status("one")["exit"]["reason"], "killed");
    assert_eq!(world.guest("two", "hostname"), "two", "the other one is untouched");
}

#[test]
fn a_stop_right_after_a_creation_shuts_the_guest_down() {
    let world = World::new();
    let made = world.json("bg-vm", &["create", "dev", "--memory", "384M", "--work-size", "2G"]);
    assert_eq!(made["status"]["state"], "running");
    let output = world.run("bg-vm", &["stop", "dev"]);
    assert!(output.status.success() && !show(&output).contains("was killed"), "{}", show(&output));
    assert_eq!(world.status("dev")["exit"]["reason"], "poweroff");
}

#[test]
fn a_guest_that_cannot_mount_its_root_has_failed_and_says_why() {
    let world = World::new();
    world.ok("bg-vm", &["create", "dev", "--no-start", "--memory", "384M", "--work-size", "2G"]);
    let disk = std::fs::OpenOptions::new().write(true).open(world.vm_file("dev", "root.ext4")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&disk, &[0; 4096], 0).unwrap();
    world.ok("bg-vm", &["start", "dev"]);
    world.until("its end", || world.status("dev")["state"] != "running");
    let status = world.status("dev");
    assert_eq!(status["state"], "crashed", "{status}");
    let why = status["exit"]["status"].as_str().unwrap();
    assert!(why.starts_with("the guest's /init gave up: cannot mount the root disk"), "{why}");
}
