//! What guests, VMMs and file names say, on a terminal: nothing of it steers one. In a pipe each byte is what it was.

use super::guests::{Behaviour, Guest, answers};
use super::started;
use crate::running::World;
use serde_json::Value;
use std::fs::{File, write};
use std::io::Read;
use std::process::Command;

/// Sets a title, clears, rings, goes back, deletes; by the eight-bit form of CSI too, which JSON allows as it is.
const EVIL: &str = "\u{1b}]0;evil\u{7}\u{1b}[2J\u{9b}2J\u{8}\u{7f}\u{85}";

/// Both outputs of a command that has a terminal for all three streams, its own line ends as they were.
fn on_a_terminal(mut command: Command) -> String {
    let pty = nix::pty::openpty(None, None).unwrap();
    let streams = [0; 2].map(|_| pty.slave.try_clone().unwrap());
    let [out, err] = streams;
    let mut child = command.stdin(pty.slave).stdout(out).stderr(err).spawn().unwrap();
    // It has the other side, too.
    drop(command);
    let (mut said, mut chunk) = (vec![], [0; 4096]);
    let mut master = File::from(pty.master);
    // EIO is the end of a terminal that nobody has any more (pty(7)).
    while let Ok(n @ 1..) = master.read(&mut chunk) {
        said.extend_from_slice(&chunk[..n]);
    }
    child.wait().unwrap();
    String::from_utf8(said).unwrap().replace("\r\n", "\n")
}

#[track_caller]
fn assert_harmless(what: &str, said: &str) {
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!said.contains(steers), "{what}: {said:?}");
}

const EVIL_HEALTH: Behaviour = |stream| {
    let health = serde_json::json!({"status": "degraded", "agent_version": EVIL, "boot_id": EVIL, "uptime_ms": 1, "hostname": EVIL,
            "distro": EVIL, "init": EVIL, "root_mounted": true, "work_mounted": true, "sshd_answers": true, "clock_unix_ms": 1,
            "root_used_bytes": 1, "work_used_bytes": 1, "memory_available_bytes": 1, "problems": [EVIL], "notes": [EVIL]});
    answers(stream, "200 OK", &health.to_string());
};

const EVIL_FIELD: Behaviour = |stream| answers(stream, "200 OK", &serde_json::json!({ EVIL: EVIL }).to_string());

const EVIL_LISTENERS: Behaviour = |stream| {
    let listener = serde_json::json!({"protocol": "tcp", "address": "::", "port": 80, "process": EVIL, "pid": 7});
    answers(stream, "200 OK", &serde_json::json!({"listeners": [listener], "omitted": 0}).to_string());
};

#[test]
fn an_agents_words_do_not_steer_a_terminal() {
    let world = World::new(&["dev"]);
    let guest = Guest::at(&started(&world), drop);
    for (behaviour, tool, args) in [
        (EVIL_HEALTH, "bg-health", &["dev"][..]),
        (EVIL_HEALTH, "bg-health", &["--wait", "0.3", "dev"]),
        (EVIL_FIELD, "bg-health", &["dev"]),
        (EVIL_LISTENERS, "bg-vm", &["ports", "dev"]),
        (EVIL_LISTENERS, "bg-vm", &["ports", "--output", "json", "dev"]),
        (EVIL_FIELD, "bg-vm", &["ports", "dev"]),
    ] {
        guest.behaves(behaviour);
        let said = on_a_terminal(world.command(tool, args));
        assert!(!said.is_empty(), "{tool} {args:?}");
        assert_harmless(&format!("{tool} {args:?}"), &said);
    }
    guest.behaves(EVIL_FIELD);
    let failed = world.sandbox.run("bg-health", &["dev"], "").failed();
    assert!(failed.causes.concat().contains(EVIL), "in a pipe it is what it was: {failed:?}");
}

#[test]
fn a_console_and_a_vmms_last_words_do_not_steer_a_terminal() {
    let world = World::new(&["dev"]);
    let console = [EVIL.as_bytes(), b"\xff\r\n\rx\xc2"].concat();
    for name in ["console.log", "console.log.1"] {
        write(world.sandbox.state("machines/dev").join(name), &console).unwrap();
    }
    assert_harmless("bg-vm logs", &on_a_terminal(world.command("bg-vm", &["logs", "dev"])));
    let piped = world.command("bg-vm", &["logs", "dev"]).output().unwrap();
    assert!(piped.stdout == console.repeat(2), "in a pipe it is what it was");
    world.set_mode("evil");
    let said = on_a_terminal(world.command("bg-vm", &["start", "dev"]));
    assert!(said.contains("cannot start the VM `dev`"), "{said}");
    assert_harmless("bg-vm start", &said);
    let failed = world.vm(&["start", "dev"], "").failed();
    assert!(format!("{failed:?}").contains("evil"), "{failed:?}");
}

#[test]
fn names_of_files_and_what_others_wrote_do_not_steer_a_terminal() {
    let world = World::new(&["dev"]);
    let (sandbox, name) = (&world.sandbox, format!("x{EVIL}"));
    for dir in ["machines", "images", "staging"] {
        let dir = sandbox.state(dir).join(&name);
        std::fs::create_dir(&dir).unwrap();
        write(dir.join(&name), EVIL).unwrap();
    }
    std::fs::create_dir(sandbox.path("run").join(&name)).unwrap();
    let record = world.record("dev");
    let good = std::fs::read_to_string(&record).unwrap();
    // In a string JSON has to escape what is below U+0020, and nothing else.
    let foreign = r#""x":"\u001b[2J"#.to_owned() + "\u{9b}2J\u{7f}\"";
    write(&record, format!("{},{foreign}}}\n", good.trim_end().strip_suffix('}').unwrap())).unwrap();
    let missing = sandbox.path(&name).display().to_string();
    for (tool, args) in [
        ("bg-vm", &["show", "dev"][..]),
        ("bg-vm", &["ls"]),
        ("bg-vm", &["ls", "--output", "json"]),
        ("bg-image", &["ls"]),
        ("bg-verify", &["--now"]),
        ("bg-vm", &["show", &name]),
        ("bg-vm", &["start", "--file", &missing]),
        ("bg-register", &["--file", &missing]),
        ("bg-kernel", &["build", "--deb", &missing]),
        ("bg-doctor", &["--print-config"]),
    ] {
        let mut command = world.command(tool, args);
        command.env("BG_IMAGE", EVIL).env_remove("BG_IMAGE").env("BG_WORK_SIZE", "16M");
        assert_harmless(&format!("{tool} {args:?}"), &on_a_terminal(command));
    }
    assert!(sandbox.run("bg-vm", &["show", "dev"], "").ok().contains(&foreign), "in a pipe it is what it was");
    for line in sandbox.run("bg-verify", &["--now"], "").text().lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
    // On a terminal a document is still the same document.
    let shown: Value = serde_json::from_str(&on_a_terminal(world.command("bg-vm", &["show", "dev"]))).unwrap();
    assert_eq!(shown["x"], "\u{1b}[2J\u{9b}2J\u{7f}");
}
