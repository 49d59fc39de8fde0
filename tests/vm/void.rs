//! Void guests, from packages to a login: the test distribution of `support::xbps`, which is Debian's programs in Void's
//! clothes. It proves what banger does with such packages, and nothing about Void's own.

#![allow(clippy::disallowed_types)]

use super::files::files;
use super::image::{command as verify, message};
use super::world::{World, show};
use crate::support::served::Served;
use crate::support::xbps::full;
use crate::support::xbps::own::TOOL;
use crate::support::xbps::package::PackageSpec;
use crate::support::xbps::repository::Repository;
use serde_json::Value;
use std::path::Path;
use std::sync::OnceLock;

/// The arguments of `bg-rootfs build` for the test distribution.
pub fn arguments() -> [&'static str; 4] {
    ["--distro", "void", "--repository", full::repository().dir.to_str().unwrap()]
}

/// The image's document, built once: the first build after a change boots a VM to configure the packages.
fn image(world: &World) -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| world.build(&arguments()))
}

fn world() -> World {
    World::with("void", image)
}

#[test]
fn a_void_guest_runs_runit_and_is_entered_by_its_key_alone() {
    let world = world();
    let doc = world.boot("dev");
    for (field, value) in [("status", "ok"), ("hostname", "dev"), ("distro", "void"), ("init", "runit")] {
        assert_eq!(doc["health"][field], value, "{doc}");
    }
    for field in ["root_mounted", "work_mounted", "sshd_answers"] {
        assert_eq!(doc["health"][field], true, "{doc}");
    }
    for (line, expected) in [
        ("cat /proc/1/comm", "runit"),
        ("cat /etc/machine-id", doc["id"].as_str().unwrap()),
        ("hostname", "dev"),
        ("echo $SHELL; echo ${BASH##*/}", "/bin/bash\nbash"),
        ("locale 2>/dev/null | grep LC_CTYPE", "LC_CTYPE=\"C.UTF-8\""),
        ("stat -c '%a %U:%G' /root /tmp", "700 root:root\n1777 root:root"),
        ("test -f /root/.bashrc && echo there", "there"),
        ("passwd -S root | cut -d' ' -f2", "L"),
        ("sshd -T | grep -cix -e 'passwordauthentication no' -e 'kbdinteractiveauthentication no'", "2"),
        ("sshd -T | grep -i '^permitrootlogin'", "permitrootlogin without-password"),
        ("ls /etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_ed25519_key"),
        ("findmnt -no SOURCE,FSTYPE /root", "/dev/vdb ext4"),
        ("findmnt -no SOURCE,FSTYPE /", "/dev/vda ext4"),
        ("awk 'BEGIN { print 6 * 7 }'", "42"),
        ("readlink /usr/bin/awk", "gawk"),
        ("getent passwd sshd | cut -d: -f7", "/usr/bin/nologin"),
        ("stat -c %a /etc/shadow", "600"),
        ("stat -c %a /usr/bin/su", "4755"),
        ("pgrep -xc getty; pgrep -xc agetty", "0\n0"),
        ("ls -d /var/lib/banger /banger /newroot 2>/dev/null | wc -l", "0"),
        ("xbps-pkgdb -a && echo whole", "whole"),
        ("cat /var/db/xbps/pre", &format!("pre xbps 0.0_1 no no {}", std::env::consts::ARCH)),
        ("ls /var/db/xbps/keys | wc -l", "1"),
        ("xbps-query -l | grep -c '^ii base-files-0.145_1 '", "1"),
    ] {
        assert_eq!(world.guest("dev", &format!("{line}; true")), expected, "{line}");
    }
    assert!(world.guest("dev", "sv status sshd").starts_with("run: sshd: "));
}

#[test]
fn a_void_guest_keeps_its_agent_and_ends_in_good_order() {
    let world = world();
    world.boot("dev");
    world.run("bg-ssh", &["dev", "--", "echo before > /root/mark; sync; pkill -9 -f guest-agent"]);
    let first = world.healthy("dev");
    assert_eq!(world.guest("dev", "cat /root/mark"), "before");

    // What the kernel makes of Ctrl+Alt+Del: a signal to process 1.
    assert_eq!(world.guest("dev", "cat /proc/sys/kernel/ctrl-alt-del"), "0");
    world.run("bg-ssh", &["dev", "--", "kill -INT 1"]);
    world.until("the reboot", || {
        let health = world.run("bg-health", &["dev"]);
        let doc: Value = serde_json::from_slice(&health.stdout).unwrap_or_default();
        doc["health"]["boot_id"].is_string() && doc["health"]["boot_id"] != first["health"]["boot_id"]
    });
    let second = world.healthy("dev");
    assert_eq!(first["guest"]["host_key"], second["guest"]["host_key"], "a VM keeps its host key");

    world.ok("bg-vm", &["stop", "dev"]);
    let exit = world.status("dev")["exit"].take();
    assert_eq!((&exit["reason"], &exit["reboots"]), (&"poweroff".into(), &1.into()), "{exit}");
    assert!(world.ok("bg-vm", &["logs", "dev"]).contains("Unmounting filesystems"), "runit's third stage has run");
    let report = world.json("bg-seed", &["check", "--vm", "dev"]);
    assert_eq!(report["ok"], true, "{report}");
}

#[test]
fn a_void_image_passes_the_checks_that_debians_does() {
    let world = world();
    let output = verify(&world, "void").output().unwrap();
    assert!(output.status.success(), "{}", show(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (check, words) in [("init", "runit"), ("shell", "/bin/bash"), ("units", "running"), ("manifest", "packages")] {
        assert!(message(&report, check).contains(words), "{check}: {report}");
    }
    world.assert_nothing_is_left();
}

#[test]
fn a_void_guest_mends_a_stale_work_disk() {
    super::nested::mends(&world());
}

#[test]
fn one_pipe_makes_an_image_with_packages_that_the_guests_own_xbps_installed() {
    let world = World::new();
    let served = Served::directory(&full::repository().dir);
    let source = world.path().join("source");
    let conf = "/etc/xbps.d/00-repository-main.conf";
    let script =
        format!("#!/bin/sh\nset -e\nmkdir -p /etc/xbps.d\necho repository=http://127.0.0.1:{} >{conf}\n", served.port);
    std::fs::write(&source, script).unwrap();
    let host = format!("127.0.0.1:{}", served.port);
    let mut command = world.program(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/void").to_str().unwrap());
    command.args(["built", "--memory", "512M", "--allow-host", &host, "--run", source.to_str().unwrap()]);
    command.args(["--packages", TOOL, "--", "--repository", full::repository().dir.to_str().unwrap()]);
    let output = command.env("BG_CACHE_DIR", world.path().join("cache")).output().unwrap();
    assert!(output.status.success(), "{}", show(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["kind"], &report["ok"]), (&"Report".into(), &true.into()), "{report}");
    let default = world.json("bg-image", &["default"]);
    assert_eq!(default["name"], "debian", "the default image stays: {default}");
    let doc = world.json("bg-image", &["show", "built"]);
    let manifest = std::fs::read_to_string(doc["rootfs"]["manifest"].as_str().unwrap()).unwrap();
    for line in [
        r#"{"name":"bgtest","version":"1.2_3","architecture":"noarch"}"#,
        r#"{"name":"bgtest-data","version":"1_1","architecture":"noarch"}"#,
    ] {
        assert!(manifest.contains(line), "{manifest}");
    }
    assert_eq!((served.asked("/bgtest-1.2_3.noarch.xbps"), served.asked("/bash-5.2.15.2.b13_1.x86_64.xbps")), (1, 0));
    world.ok("bg-vm", &["create", "dev", "--image", "built", "--memory", "512M", "--work-size", "2G"]);
    world.healthy("dev");
    for (line, expected) in [
        ("bgtest", "bgtest works"),
        ("cat /var/lib/bgtest.post", "post bgtest 1.2_3 no no x86_64 in /"),
        ("find /var/cache/xbps -type f | wc -l", "0"),
        ("env | grep -ci _proxy", "0"),
        ("hostname", "dev"),
    ] {
        assert_eq!(world.guest("dev", &format!("{line}; true")), expected, "{line}");
    }
}

/// A repository with one package, whose script fails.
fn failing(dir: &Path) -> String {
    let spec = PackageSpec::new("bgfails", "1_1")
        .needs(&["base-files>=0"])
        .install("#!/bin/sh\n[ \"$1\" = post ] || exit 0\necho going to fail\necho for a reason >&2\nexit 3\n");
    let dir = dir.join("failing");
    std::fs::create_dir(&dir).unwrap();
    Repository::new(&dir).add(&spec).write(std::env::consts::ARCH).display().to_string()
}

#[test]
fn a_script_that_fails_is_told_of_and_leaves_no_image() {
    let world = world();
    let kernel = world.ok("bg-kernel", &["build"]);
    let repository = failing(world.path());
    let args = [&["build"][..], &arguments(), &["--repository", &repository, "--packages", "bgfails"]].concat();
    let mut command = world.command("bg-rootfs", &args);
    let cache = world.path().join("cache");
    let mut child = command
        .env("BG_CACHE_DIR", &cache)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), kernel.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(71), "{}", show(&output));
    assert!(output.stdout.is_empty(), "{}", show(&output));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let doc: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let details = &doc["details"];
    assert_eq!((&doc["code"], &details["package"]), (&"command_failed".into(), &"bgfails".into()), "{doc}");
    assert_eq!((&details["version"], &details["status"]), (&"1_1".into(), &"exit 3".into()), "{doc}");
    assert_eq!(details["output"], "going to fail\nfor a reason\n", "{doc}");
    let built = std::fs::read_dir(cache.join("rootfs")).into_iter().flatten().map(|entry| entry.unwrap().path());
    let built: Vec<_> = built.filter(|path| path.is_dir()).collect();
    assert_eq!(built, Vec::<std::path::PathBuf>::new(), "no image");
    world.assert_nothing_is_left();
}

#[test]
fn two_roots_of_one_lock_file_are_the_same_when_they_are_configured() {
    let world = world();
    let lock = world.path().join("lock");
    let args = [&arguments()[..], &["--no-cache", "--lock", lock.to_str().unwrap()]].concat();
    let build = || {
        let doc: Value = serde_json::from_str(&world.build(&args)).unwrap();
        assert!(doc["timings"].as_array().unwrap().iter().any(|t| t["stage"] == "configure"), "{doc}");
        files(Path::new(doc["rootfs"]["path"].as_str().unwrap()))
    };
    let (one, two) = (build(), build());
    let differ: Vec<_> = one.iter().filter(|(name, file)| two.get(*name) != Some(file)).collect();
    let more: Vec<_> = two.keys().filter(|name| !one.contains_key(*name)).collect();
    assert!(one.len() > 1000, "{}", one.len());
    assert!(differ.is_empty() && more.is_empty(), "differ: {differ:#?}\nonly the second's: {more:#?}");
}
