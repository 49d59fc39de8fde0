//! A user's first day on a host where root has run `make install`: an ordinary user with Debian's default `PATH` finds all of the
//! suite, and what it runs, and has directories of his own in a user namespace, too.

#![allow(clippy::disallowed_types)]

use crate::support::fresh::Fresh;
use crate::support::source::{bins, children_of};
use crate::support::{Done, not_run};
use serde_json::Value;
use std::process::Command;

/// The value of a setting, as `bg-doctor --print-config` says it to this user.
fn setting(done: &Done, key: &str) -> String {
    done.ok();
    let found = done.documents().into_iter().find(|doc| doc["key"] == key).unwrap_or(Value::Null);
    found["value"].as_str().unwrap_or_else(|| panic!("{key}: {done:?}")).to_owned()
}

#[test]
fn an_ordinary_user_finds_all_of_an_installed_suite() {
    let Some(fresh) = Fresh::new("an_ordinary_user_finds_all_of_an_installed_suite") else { return };
    let prefix = fresh.prefix();
    for tool in bins() {
        assert_eq!(
            fresh.run(&format!("command -v {tool}")).ok().trim(),
            prefix.join("bin").join(&tool).to_str().unwrap()
        );
        fresh.run(&format!("{tool} --version")).ok();
    }
    for page in children_of("man") {
        let file = prefix.join(format!("share/man/man{}", page.rsplit('.').next().unwrap())).join(page);
        fresh.run(&format!("cat '{}'", file.display())).ok();
    }
    let pipelines = prefix.join("libexec/banger/pipelines");
    // It needs the source tree.
    for pipeline in children_of("pipelines").into_iter().filter(|name| name != "test-defects") {
        let wanted = if pipeline == "lib.sh" { "-r" } else { "-x" };
        assert_eq!(fresh.run(&format!("test {wanted} '{}/{pipeline}'", pipelines.display())).exit, 0, "{pipeline}");
    }
    let usage = fresh.run(&format!("{}/customize", pipelines.display()));
    assert!(usage.exit == 64 && usage.stderr.contains(pipelines.to_str().unwrap()), "{usage:?}");
    let config = fresh.run("bg-doctor --print-config --output json");
    assert_eq!(setting(&config, "guest_agent"), prefix.join("libexec/banger/guest-agent").to_str().unwrap());
    if fresh.run("command -v vhost-device-vsock").exit != 0 {
        let installed = prefix.join("libexec/banger/vhost-device-vsock");
        assert_eq!(setting(&config, "vhost_device_vsock"), installed.to_str().unwrap());
    }
    let report: Value = serde_json::from_slice(&fresh.run("bg-doctor --output json").stdout).unwrap();
    for name in ["qemu", "vhost_device_vsock", "e2fsprogs", "ssh", "suite"] {
        let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
        assert_eq!(check["ok"], true, "{check}");
    }
}

#[test]
fn hints_name_the_installed_pipelines() {
    let Some(fresh) = Fresh::new("hints_name_the_installed_pipelines") else { return };
    let done = fresh.run("BG_BUNDLE=/nowhere/bundle.json bg-image reconcile");
    let pipeline = fresh.prefix().join("libexec/banger/pipelines/bundle");
    assert_eq!(done.failed().hint.as_deref(), Some(pipeline.to_str().unwrap()));
}

#[test]
fn programs_that_a_program_starts_are_found_in_sbin() {
    let Some(fresh) = Fresh::new("programs_that_a_program_starts_are_found_in_sbin") else { return };
    let script = fresh.home().join("wrapped-qemu");
    let text = "#!/bin/sh\ncase $1 in -M) echo 'microvm   microvm';; *) mke2fs -V 2>&1;; esac\n";
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let done = fresh.run("! command -v mke2fs && PATH=$PATH:$HOME BG_QEMU=wrapped-qemu bg-doctor --output json");
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "qemu").unwrap();
    assert_eq!(check["ok"], true, "{check}");
}

#[test]
fn directories_are_the_users_own_where_the_user_is_root_by_name() {
    let test = "directories_are_the_users_own_where_the_user_is_root_by_name";
    let Some(fresh) = Fresh::new(test) else { return };
    if fresh.run("unshare --map-root-user true").exit != 0 {
        return not_run(test, "unshare --user is refused");
    }
    let in_netns = format!("{}/libexec/banger/pipelines/in-netns", fresh.prefix().display());
    let outside = fresh.run("bg-doctor --print-config --output json");
    for inside in ["unshare --map-root-user", "unshare --map-root-user env -u HOME", &in_netns] {
        let config = fresh.run(&format!("{inside} bg-doctor --print-config --output json"));
        for key in ["state_dir", "runtime_dir", "cache_dir"] {
            assert_eq!(setting(&config, key), setting(&outside, key), "{inside}: {key}");
            assert!(setting(&config, key).starts_with(fresh.home().to_str().unwrap()), "{inside}: {config:?}");
        }
    }
    fresh.run(&format!("{in_netns} bg-image ls")).ok();
    let hint = fresh.run(&format!("{in_netns} bg-vm create dev")).failed().hint.unwrap();
    assert!(hint.contains("bg-register --name debian"), "the store can be read: {hint}");
}

#[test]
fn root_of_a_user_namespace_that_root_made_stays_root() {
    let test = "root_of_a_user_namespace_that_root_made_stays_root";
    if !nix::unistd::geteuid().is_root() {
        return not_run(test, "it takes root");
    }
    let Some(fresh) = Fresh::new(test) else { return };
    let mut command = Command::new("unshare");
    command.arg("--map-root-user").arg(fresh.prefix().join("bin/bg-doctor")).args([
        "--print-config",
        "--output",
        "json",
    ]);
    let done = command.env_clear().env("HOME", fresh.home()).output();
    assert_eq!(setting(&done.unwrap().into(), "state_dir"), "/var/lib/banger");
}
