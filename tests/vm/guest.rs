//! What the guest is: an ordinary Debian with the identity that the host gave it.

use super::world::World;
use crate::support::launched::until;
use lib_common::doc::HEALTH_PORT;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

#[test]
fn the_guest_is_an_ordinary_debian_with_its_own_identity() {
    let world = World::new();
    world.ok("bg-vm", &["create", "dev", "--memory", "512M", "--work-size", "2G"]);
    // The agent answers before sshd does: the first answer says so.
    let mut first = None;
    world.until("the agent's first answer", || {
        let output = world.run("bg-health", &["dev"]);
        first = serde_json::from_slice::<serde_json::Value>(&output.stdout).ok();
        first.is_some()
    });
    let first = &first.unwrap()["health"];
    assert_eq!((&first["status"], &first["sshd_answers"]), (&"starting".into(), &false.into()), "{first}");
    let doc = world.healthy("dev");
    let health = &doc["health"];
    for (field, value) in [("status", "ok"), ("hostname", "dev"), ("distro", "debian"), ("init", "systemd")] {
        assert_eq!(health[field], value, "{health}");
    }
    for field in ["root_mounted", "work_mounted", "sshd_answers"] {
        assert_eq!(health[field], true, "{health}");
    }
    assert_eq!(health["agent_version"], env!("CARGO_PKG_VERSION"));
    let id = doc["id"].as_str().unwrap();
    let running = world.guest("dev", "systemctl is-system-running --wait");
    let failed = world.guest("dev", "systemctl --failed --no-legend --plain");
    assert_eq!((running.as_str(), failed.as_str()), ("running", ""));
    for (line, expected) in [
        ("cat /etc/machine-id", id),
        ("hostname", "dev"),
        ("cat /proc/sys/kernel/random/boot_id", health["boot_id"].as_str().unwrap()),
        ("echo $SHELL", "/bin/bash"),
        ("locale 2>/dev/null | grep LC_CTYPE", "LC_CTYPE=\"C.UTF-8\""),
        ("echo $PATH | tr : '\\n' | grep -cx -e /usr/sbin -e /usr/bin", "2"),
        ("stat -c '%a %U:%G' /root", "700 root:root"),
        ("test -f /root/.bashrc && test -f /root/.profile && echo both", "both"),
        ("passwd -S root | cut -d' ' -f2", "L"),
        (
            "sshd -T | grep -cix -e 'passwordauthentication no' -e 'strictmodes yes' -e 'kbdinteractiveauthentication no'",
            "3",
        ),
        ("ls /etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_ed25519_key"),
        ("findmnt -no SOURCE,FSTYPE /root", "/dev/vdb ext4"),
        ("findmnt -no SOURCE,FSTYPE /", "/dev/vda ext4"),
        ("find /banger /newroot 2>/dev/null | wc -l", "0"),
        ("ls /sys/class/net", "lo"),
        // Kept by anything else, the guest's clock falls behind on a busy host.
        ("cat /sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc"),
    ] {
        let said = world.guest("dev", line);
        assert_eq!(said, expected, "{line}");
    }
}

#[test]
fn an_agent_that_is_killed_comes_back_and_stats_and_logs_tell() {
    let world = World::new();
    world.boot("dev");
    // The relay of this very session dies with the agent, so its status is of no interest.
    world.run("bg-ssh", &["dev", "--", "echo before > /root/mark; sync; pkill -9 -f guest-agent"]);
    world.healthy("dev");
    assert_eq!(world.guest("dev", "cat /root/mark"), "before");
    let stats = || world.json("bg-vm", &["stats", "dev"])["stats"].take();
    let before = stats();
    for field in ["cpu_ms", "rss_bytes", "root_allocated_bytes", "work_allocated_bytes", "guest_uptime_ms"] {
        assert!(before[field].as_u64().is_some_and(|n| n > 0), "{field}: {before}");
    }
    // What the guest reads and writes past its own cache is counted, whatever the host's cache holds.
    world.guest("dev", "dd if=/dev/vda of=/root/big bs=1M count=8 iflag=direct oflag=direct status=none");
    let after = stats();
    for field in ["io_read_bytes", "io_write_bytes"] {
        let grown = after[field].as_u64().unwrap() - before[field].as_u64().unwrap();
        assert!((8 << 20..64 << 20).contains(&grown), "{field} grew by {grown}");
    }
    world.guest("dev", "echo hello from the guest > /dev/ttyS0");
    assert!(world.ok("bg-vm", &["logs", "dev"]).contains("hello from the guest"));
}

#[test]
fn an_sshd_that_is_slow_is_said_to_be_slow_and_is_healthy_where_it_is_given_the_time() {
    let world = World::new();
    world.boot("dev");
    // Stopped, it takes connections and sends no banner.
    world.guest(
        "dev",
        "setsid sh -c 'pkill -STOP -o -x sshd; sleep 60; pkill -CONT -o -x sshd' >/dev/null 2>&1 </dev/null &",
    );
    let ask = |timeout: &str| {
        let output = world.run("bg-health", &["--timeout", timeout, "dev"]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    until("sshd is said to be slow", || {
        let (exit, said) = ask("6");
        exit == Some(1) && said.contains("sshd is slow: no banner on 127.0.0.1 port 22 within 2.0 s")
    });
    let (exit, said) = ask("360");
    assert!(exit == Some(0) && said.contains("\"sshd_answers\":true"), "{said}");
}

/// A connection to the agent that says so much, and waits; `None` where the guest has too many that it has not accepted yet.
fn slow_client(vsock: &Path) -> Option<UnixStream> {
    let mut stream = UnixStream::connect(vsock).ok()?;
    stream.write_all(format!("CONNECT {HEALTH_PORT}\n").as_bytes()).ok()?;
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).ok()?;
    }
    // Whoever had to make room by now is not heard any more.
    let _ = stream.write_all(b"GET /healthz HT");
    Some(stream)
}

#[test]
fn slow_clients_of_the_agent_keep_nobody_out_and_cost_little() {
    let world = World::new();
    let vsock = world.boot("dev")["vmm"]["vsock"].as_str().unwrap().to_owned();
    let mut slow = vec![];
    world.until("256 slow clients", || {
        slow.extend(slow_client(Path::new(&vsock)));
        slow.len() == 256
    });
    for _ in 0..10 {
        let begun = Instant::now();
        assert_eq!(world.json("bg-health", &["dev"])["health"]["status"], "ok");
        println!("bg-health beside 256 slow clients: {} ms", begun.elapsed().as_millis());
    }
    assert_eq!(world.guest("dev", "echo entered"), "entered");
    let kib: u64 =
        world.guest("dev", "awk '/^VmHWM/ {print $2}' /proc/$(pgrep -o guest-agent)/status").parse().unwrap();
    println!("the agent's resident memory at its most: {kib} KiB");
    assert!(kib < 16 << 10, "{kib} KiB");
    drop(slow);
}
