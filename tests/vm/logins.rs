//! Logins in a guest: many at once, a user who locks himself out, and what a login says and finds.

#![allow(clippy::disallowed_types)]

use super::world::{World, boot, show};
use serde_json::Value;
use std::process::{Child, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// Sessions that begin at once and say their number.
fn sessions(world: &World, count: usize) -> Vec<Child> {
    let timeout = boot();
    let begin = |n| {
        let mut command =
            world.command("bg-ssh", &["dev", "--connect-timeout", &timeout, "--", &format!("echo session {n}")]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    (0..count).map(begin).collect()
}

#[track_caller]
fn all_get_in(sessions: Vec<Child>) {
    let outputs: Vec<_> = sessions.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let said = |n: usize| format!("session {n}\n");
    let lost: Vec<_> = outputs.iter().enumerate().filter(|(n, o)| o.stdout != said(*n).as_bytes()).collect();
    let told: Vec<_> = lost.iter().map(|(n, output)| format!("{n}: {}", show(output))).collect();
    assert!(lost.is_empty(), "{} of {} were lost: {told:#?}", lost.len(), outputs.len());
}

#[test]
fn fifty_sessions_at_once_all_get_in() {
    let world = World::new();
    world.boot("dev");
    all_get_in(sessions(&world, 50));
    // As in a guest that was made before: sshd refuses what is too much, and bg-ssh tries again.
    world.guest("dev", "echo MaxStartups 2 > /etc/ssh/sshd_config.d/00-few.conf && systemctl reload ssh");
    all_get_in(sessions(&world, 12));
}

/// The status, and the problems in one line.
fn health(world: &World) -> (String, String) {
    let output = world.run("bg-health", &["dev"]);
    let doc: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let problems = doc["health"]["problems"].as_array().cloned().unwrap_or_default();
    let problems: Vec<&str> = problems.iter().filter_map(Value::as_str).collect();
    (doc["health"]["status"].as_str().unwrap_or_default().to_owned(), problems.join("; "))
}

#[track_caller]
fn is_degraded_by(world: &World, problem: &str) {
    let (status, problems) = health(world);
    assert!(status == "degraded" && problems.contains(problem), "{status}: {problems}");
}

#[test]
fn a_user_who_locks_himself_out_is_told_why_and_how_to_get_back() {
    let world = World::new();
    world.boot("dev");
    let mine = "/etc/ssh/sshd_config.d/00-mine.conf";
    for (line, problem) in [
        ("Foo yes", "00-mine.conf: line 1: Bad configuration option: Foo"),
        ("Port 2222", "and not on 127.0.0.1 port 22"),
        ("PermitRootLogin no", "`permitrootlogin no`, so root cannot log in"),
        ("DenyUsers root", "`denyusers root`"),
    ] {
        // sshd goes on with the settings that it was started with, so there is a way in still.
        world.guest("dev", &format!("echo {line} > {mine}"));
        is_degraded_by(&world, problem);
    }
    world.guest("dev", &format!("rm {mine}"));
    assert_eq!(health(&world), ("ok".to_owned(), String::new()));

    world.guest("dev", "chmod 777 /root");
    is_degraded_by(&world, "other users can write to /root, so sshd refuses root's key: `bg-vm restart dev` mends it");
    assert_eq!(world.run("bg-ssh", &["dev", "--", "true"]).status.code(), Some(255));
    world.ok("bg-vm", &["restart", "dev"]);
    world.healthy("dev");
    assert_eq!(world.guest("dev", "stat -c %a /root"), "755");
    world.guest("dev", "echo ssh-ed25519 AAAA mine > /root/.ssh/authorized_keys");
    is_degraded_by(&world, "/root/.ssh/authorized_keys lacks the key that bg-ssh logs in by");
    world.ok("bg-vm", &["restart", "dev"]);
    world.healthy("dev");

    // A guest whose sshd cannot start any more, and the way back in of bg-health(1).
    world.guest("dev", &format!("echo Foo yes > {mine}; systemctl restart ssh; true"));
    world.until("the reason", || health(&world).1.contains("Bad configuration option: Foo"));
    world.ok("bg-vm", &["stop", "dev"]);
    let disk = world.vm_file("dev", "root.ext4").display().to_string();
    let removed = world.program("debugfs").args(["-w", "-R", &format!("rm {mine}"), &disk]).output().unwrap();
    assert!(removed.status.success(), "{}", show(&removed));
    world.ok("bg-vm", &["start", "dev"]);
    world.healthy("dev");
    assert_eq!(world.guest("dev", "echo entered"), "entered");
}

#[test]
fn a_login_is_quiet_and_finds_its_terminal_and_the_time() {
    let world = World::new();
    world.boot("dev");
    for (line, said) in [
        ("cat /etc/motd /run/nologin 2>/dev/null; true", ""),
        ("sshd -T | grep -ci -e '^acceptenv LC_' -e '^acceptenv LANG'; true", "0"),
        ("sshd -T | grep -i '^maxstartups'", "maxstartups 256:30:256"),
        ("cat /proc/sys/fs/inotify/max_user_instances /proc/sys/fs/inotify/max_user_watches | xargs", "1024 524288"),
        ("TERM=xterm-kitty script -qec 'bash -lc \"echo \\$TERM\"' /dev/null", "xterm-256color"),
        ("TERM=screen script -qec 'bash -lc \"echo \\$TERM\"' /dev/null", "screen"),
        ("TERM=xterm-kitty bash -lc 'echo $TERM'", "xterm-kitty"),
    ] {
        assert_eq!(world.guest("dev", line), said, "{line}");
    }
    let ahead = || {
        let guest: i64 = world.guest("dev", "date +%s").parse().unwrap();
        guest - SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed()
    };
    for offset in ["-1 hour", "+1 hour"] {
        world.guest("dev", &format!("date -s '{offset}'"));
        assert!(ahead().abs() > 3000, "{}", ahead());
        world.healthy("dev");
        assert!(ahead().abs() < 60, "{offset}: {} s", ahead());
    }
}
