//! Images that are verified: a good one passes, a broken one fails what is broken and nothing else, and whatever ends a
//! verification, nothing of it is left.

#![allow(clippy::disallowed_types)]

use super::world::{World, show};
use lib_common::digest;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const CHECKS: [&str; 11] = [
    "health",
    "init",
    "ssh",
    "shell",
    "environment",
    "work_disk",
    "units",
    "manifest",
    "shutdown",
    "file_systems",
    "untouched",
];

pub fn command(world: &World, image: &str) -> Command {
    let mut command = world.command("bg-image", &["verify", image, "--memory", "512M"]);
    command.env("BG_WORK_SIZE", "3G");
    command
}

/// The report, and the checks that failed.
fn verify(world: &World, image: &str) -> (Value, Vec<String>) {
    let output = command(world, image).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", show(&output)));
    let checks = report["checks"].as_array().unwrap();
    let names: Vec<&str> = checks.iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, CHECKS, "{report}");
    let failed: Vec<&Value> = checks.iter().filter(|c| c["ok"] == false).collect();
    assert!(failed.iter().all(|c| c["fix"].is_string()), "{report}");
    let expected = i32::from(!failed.is_empty());
    assert_eq!((output.status.code(), &report["ok"]), (Some(expected), &failed.is_empty().into()), "{report}");
    world.assert_nothing_is_left();
    let failed = failed.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect();
    (report, failed)
}

pub fn message<'a>(report: &'a Value, check: &str) -> &'a str {
    let all = report["checks"].as_array().unwrap();
    all.iter().find(|c| c["name"] == check).unwrap()["message"].as_str().unwrap()
}

fn debugfs(args: &[&str], disk: &Path) -> Output {
    let output = Command::new("debugfs").args(args).arg(disk).output().unwrap();
    assert!(output.status.success(), "{}", show(&output));
    output
}

/// The image `debian` with its root file system changed by commands of debugfs, and with more in its manifest, as `name`.
/// Without seeds, which would be another image's.
fn register(world: &World, name: &str, commands: &str, more: &str) {
    let mut doc = world.json("bg-image", &["show", "debian"]);
    let dir = world.path().join(name);
    std::fs::create_dir(&dir).unwrap();
    let (disk, manifest) = (dir.join("rootfs.ext4"), dir.join("manifest"));
    let copied =
        Command::new("cp").args(["--sparse=always", doc["rootfs"]["path"].as_str().unwrap()]).arg(&disk).status();
    assert!(copied.unwrap().success());
    let script = dir.join("commands");
    std::fs::write(&script, commands).unwrap();
    debugfs(&["-w", "-f", script.to_str().unwrap()], &disk);
    let text = std::fs::read_to_string(doc["rootfs"]["manifest"].as_str().unwrap()).unwrap();
    std::fs::write(&manifest, format!("{text}{more}")).unwrap();
    for (field, path) in [("", &disk), ("manifest_", &manifest)] {
        doc["rootfs"][format!("{field}digest")] = digest::of_file(path).unwrap().as_str().into();
        doc["rootfs"][if field.is_empty() { "path" } else { "manifest" }] = path.to_str().unwrap().into();
    }
    doc.as_object_mut().unwrap().remove("seed");
    let registered = world.pipe("bg-register", &["--name", name], doc.to_string().as_bytes());
    assert!(registered.status.success(), "{}", show(&registered));
}

#[test]
fn a_good_image_passes_every_check() {
    let world = World::new();
    let record = std::fs::read(world.path().join("state/images/debian/image.json")).unwrap();
    let (report, failed) = verify(&world, "debian");
    assert_eq!(failed, Vec::<String>::new(), "{report}");
    assert_eq!(report["subject"], "image debian");
    let bytes = (3_u64 << 30).to_string();
    for (check, words) in [
        ("init", "systemd"),
        ("shell", "/bin/bash"),
        ("environment", "UTF-8"),
        ("work_disk", bytes.as_str()),
        ("units", "running"),
        ("manifest", "packages"),
    ] {
        assert!(message(&report, check).contains(words), "{check}: {report}");
    }
    let stages: Vec<&str> =
        report["timings"].as_array().unwrap().iter().map(|t| t["stage"].as_str().unwrap()).collect();
    for stage in ["clone_work", "boot_guest", "login", "shutdown", "untouched"] {
        assert!(stages.contains(&stage), "{stages:?}");
    }
    assert_eq!(std::fs::read(world.path().join("state/images/debian/image.json")).unwrap(), record);
}

#[test]
fn a_broken_image_fails_what_is_broken_and_nothing_else() {
    let world = World::new();
    let original = world.path().join("state/images/debian/rootfs.ext4");
    let passwd = debugfs(&["-R", "cat /etc/passwd"], &original).stdout;
    let file = |name: &str, text: &str| {
        let path = world.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let changed = String::from_utf8(passwd).unwrap().replace(":/root:/bin/bash", ":/root:/usr/local/bin/noisy");
    let passwd = file("passwd", &changed);
    let noisy = file("noisy", "#!/bin/sh\necho a word of welcome\nexec /bin/bash \"$@\"\n");
    let unit = file("unit", "[Service]\nType=oneshot\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n");
    let commands = format!(
        "rm /etc/passwd\nwrite {passwd} /etc/passwd\nsif /etc/passwd mode 0100644\n\
         write {noisy} /usr/local/bin/noisy\nsif /usr/local/bin/noisy mode 0100755\n\
         write {unit} /etc/systemd/system/broken.service\nsif /etc/systemd/system/broken.service mode 0100644\n\
         cd /etc/systemd/system/multi-user.target.wants\nsymlink broken.service /etc/systemd/system/broken.service\n"
    );
    let more = "{\"name\":\"zz-nowhere\",\"version\":\"1\",\"architecture\":\"all\"}\n";
    register(&world, "broken", &commands, more);
    let (report, failed) = verify(&world, "broken");
    assert_eq!(failed, ["shell", "units", "manifest"], "{report}");
    assert!(message(&report, "shell").contains("a word of welcome"), "{report}");
    assert!(message(&report, "units").contains("broken.service"), "{report}");
    assert_eq!(message(&report, "manifest"), "missing: zz-nowhere", "{report}");

    register(&world, "dead", "rm /usr/lib/systemd/systemd\n", "");
    let (report, failed) = verify(&world, "dead");
    assert_eq!(failed, CHECKS[..10], "only its files are as they should be: {report}");
    assert!(message(&report, "health").contains("console ends with"), "{report}");
    assert!(message(&report, "ssh").starts_with("not checked: "), "{report}");
}

#[test]
fn a_verification_that_is_ended_leaves_nothing() {
    let world = World::new();
    let points = [
        ("lock", Signal::SIGTERM),
        ("vmm_choice", Signal::SIGINT),
        ("boot_guest", Signal::SIGINT),
        ("login", Signal::SIGKILL),
        ("manifest", Signal::SIGINT),
    ];
    for (n, (stage, signal)) in points.into_iter().enumerate() {
        let events = world.path().join(format!("events-{n}"));
        let mut command = command(&world, "debian");
        command.env("BG_EVENTS", &events).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let needle = format!("\"stage\":\"{stage}\"");
        let begun = Instant::now();
        while !std::fs::read_to_string(&events).unwrap_or_default().contains(&needle) {
            assert!(child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(240), "{stage}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.stdout.is_empty(), "{stage}: {}", show(&output));
        if signal == Signal::SIGKILL {
            world.until("the VM's end", || world.processes().is_empty());
            world.collect();
        } else {
            assert_eq!(output.status.code(), Some(128 + signal as i32), "{stage}: {}", show(&output));
        }
        world.assert_nothing_is_left();
    }
}
