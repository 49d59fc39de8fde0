//! Images that are built: what was asked for is in them and nothing of the build is, and a build that fails or is ended
//! leaves nothing.

#![allow(clippy::disallowed_types)]

use super::repository::{PACKAGE, Repository};
use super::world::{World, show, vsock_device};
use lib_common::digest::of_bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// On the image `debian`, with a cache of the test's own.
fn command(world: &World, args: &[&str]) -> Command {
    let base = ["--base", "debian", "--memory", "512M"];
    let mut command = world.command("bg-image-build", &[&base, args].concat());
    command.env("BG_CACHE_DIR", world.path().join("cache")).env("BG_VHOST_DEVICE_VSOCK", vsock_device());
    command
}

fn run(world: &World, args: &[&str]) -> Output {
    command(world, args).output().unwrap()
}

fn build(world: &World, args: &[&str]) -> (Value, String) {
    let output = run(world, args);
    assert!(output.status.success(), "{args:?}: {}", show(&output));
    (serde_json::from_slice(&output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The `Error` document of a build that failed, after which nothing is left.
fn fails(world: &World, args: &[&str], exit: i32) -> Value {
    let output = run(world, args);
    assert_eq!(output.status.code(), Some(exit), "{args:?}: {}", show(&output));
    assert!(output.stdout.is_empty(), "{}", show(&output));
    assert_nothing_is_left(world);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

fn assert_nothing_is_left(world: &World) {
    assert_eq!(world.processes(), Vec::<String>::new());
    assert_eq!(world.findings(), Vec::<Value>::new());
    for dir in ["state/machines", "state/staging", "run"] {
        let left: Vec<_> = std::fs::read_dir(world.path().join(dir)).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(left, Vec::<PathBuf>::new());
    }
}

fn script(world: &World, name: &str, text: &str) -> String {
    let path = world.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Files whose names, owners, modes and sizes are odd, and a script that says whether they have come as they are.
fn odd_files(dir: &Path) -> String {
    let tree = dir.join("tree");
    std::fs::create_dir_all(tree.join("closed")).unwrap();
    let file = |name: &[u8], content: &[u8], mode: u32| {
        let path = tree.join(OsString::from_vec(name.to_vec()));
        std::fs::write(&path, content).unwrap();
        // An ordinary user has one owner to give.
        if nix::unistd::geteuid().is_root() {
            chown(&path, Some(1234), Some(4321)).unwrap();
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let meta = std::os::unix::fs::MetadataExt::uid(&path.metadata().unwrap());
        (meta, std::os::unix::fs::MetadataExt::gid(&path.metadata().unwrap()))
    };
    let (uid, gid) = file(b"-odd\nna me", b"x", 0o4711);
    file(b"\xff\xfe", b"y", 0o600);
    file("l".repeat(250).as_bytes(), b"z", 0o644);
    let big: Vec<u8> = (0..6_000_000_u32).map(|n| (n % 251) as u8).collect();
    file(b"big", &big, 0o640);
    symlink("../nowhere else", tree.join("link")).unwrap();
    std::fs::set_permissions(tree.join("closed"), PermissionsExt::from_mode(0o2750)).unwrap();
    format!(
        "#!/bin/sh\nset -e\ncd /srv/tree\n\
         test \"$(stat -c '%a %u:%g' -- \"$(printf -- '-odd\\nna me')\")\" = '4711 {uid}:{gid}'\n\
         test -f \"$(printf '\\377\\376')\"\n\
         test -f \"$(printf 'l%.0s' $(seq 250))\"\n\
         echo '{}  big' | sha256sum -c --quiet\n\
         test \"$(readlink link)\" = '../nowhere else'\n\
         test \"$(stat -c %a closed)\" = 2750\n\
         test \"$(stat -c '%a %U' /srv)\" = '755 root'\n\
         test -L /bin && test -f /bin/-odd-too\n\
         echo the files are right\n",
        of_bytes(&big).hex()
    )
}

#[test]
fn an_image_has_what_was_asked_for_and_nothing_of_its_build() {
    let world = World::new();
    let repository = Repository::serve(world.path());
    let source = script(&world, "source", &repository.becomes_the_only_source());
    let check = odd_files(world.path());
    let check =
        script(&world, "check", &format!("{check}{PACKAGE}\ncat /srv/order; echo secret >/root/.bash_history\n"));
    let order = script(&world, "order", "#!/bin/bash\ncommand -v bgtest || echo first >/srv/order\n");
    let tree = format!("{}:/srv/", world.path().join("tree").display());
    let file = format!("{}:/bin/-odd-too", world.path().join("tree/-odd\nna me").display());
    let host = format!("127.0.0.1:{}", repository.port);
    let steps =
        ["--run", &source, "--run", &order, "--packages", PACKAGE, "--copy", &tree, "--copy", &file, "--run", &check];
    let args = [&["--size", "3G", "--allow-host", &host][..], &steps].concat();
    let (doc, said) = build(&world, &args);
    assert_nothing_is_left(&world);
    let at = |what: &str| said.find(what).unwrap_or_else(|| panic!("{what} is missing: {said}"));
    assert!(at("Setting up bgtest") < at("the files are right") && at("bgtest works") < at("first"), "{said}");
    let kinds: Vec<_> = doc["build"]["steps"].as_array().unwrap().iter().map(|s| s["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["run", "run", "packages", "copy", "copy", "run"]);
    assert_eq!(doc["build"]["packages"], serde_json::json!([PACKAGE]));
    assert_eq!(doc["rootfs"]["size_bytes"], 3_u64 << 30);

    let begun = Instant::now();
    let (again, _) = build(&world, &args);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?} from the cache", begun.elapsed());
    assert_eq!(again["rootfs"], doc["rootfs"]);
    let (forced, _) = build(&world, &[&["--force"], &args[..]].concat());
    assert_eq!(forced["rootfs"]["manifest_digest"], doc["rootfs"]["manifest_digest"], "the same packages");
    assert_eq!(repository.downloads(), 1, "what was fetched once is in the cache");

    let manifest = std::fs::read_to_string(forced["rootfs"]["manifest"].as_str().unwrap()).unwrap();
    assert!(manifest.contains(r#"{"name":"bgtest","version":"1.2-3","architecture":"all"}"#), "{manifest}");
    let registered = world.pipe("bg-register", &["--name", "built"], forced.to_string().as_bytes());
    assert!(registered.status.success(), "{}", show(&registered));
    world.ok("bg-vm", &["create", "dev", "--image", "built", "--memory", "512M", "--work-size", "2G"]);
    world.healthy("dev");
    let id = world.json("bg-vm", &["show", "dev"])["id"].as_str().unwrap().to_owned();
    for (line, expected) in [
        ("bgtest", "bgtest works"),
        ("hostname; cat /etc/hostname", "dev\ndev"),
        ("cat /etc/machine-id", &id),
        ("grep -c banger /etc/hosts", "1"),
        ("cat /root/.bash_history /usr/sbin/policy-rc.d /mnt/nothing 2>&1 | grep -c 'No such file'", "3"),
        ("wc -l < /root/.ssh/authorized_keys", "1"),
        ("find /var/lib/apt/lists -type f; find /tmp /var/tmp -name 'build*'; ls /var/lib/dpkg/*-old 2>/dev/null", ""),
        ("ls /var/log/journal | grep -v $(cat /etc/machine-id)", ""),
        ("systemctl is-system-running --wait; systemctl --failed --no-legend --plain", "running"),
        ("df --output=size -m / | tail -1 | awk '{print ($1 > 2800)}'", "1"),
    ] {
        let line = format!("{line}; true");
        assert_eq!(world.guest("dev", &line), expected, "{line}");
    }
}

#[test]
fn a_build_that_fails_says_why_and_leaves_nothing() {
    let world = World::new();
    let first = script(&world, "first", "#!/bin/sh\nfor n in $(seq 30); do echo \"first $n\"; done\n");
    let failing = script(&world, "failing", "#!/bin/sh\necho at last >&2; printf 'no line feed'; exit 3\n");
    let never = script(&world, "never", "#!/bin/sh\necho never\n");
    let doc = fails(&world, &["--run", &first, "--run", &failing, "--run", &never], 71);
    assert_eq!(doc["code"], "command_failed", "{doc}");
    let details = &doc["details"];
    assert_eq!((&details["step"], &details["status"]), (&format!("run {failing}").into(), &"exit 3".into()), "{doc}");
    assert_eq!(details["output"], "at last\nno line feed", "the lines of this step alone: {doc}");
    assert_eq!(doc["causes"], serde_json::json!(["no line feed"]));

    let repository = Repository::serve(world.path());
    let source = script(&world, "source", &repository.becomes_the_only_source());
    let doc = fails(&world, &["--run", &source, "--packages", PACKAGE], 71);
    let host = format!("127.0.0.1:{}", repository.port);
    assert!(doc["causes"].to_string().contains(&host), "the refused host is named: {doc}");
    assert!(doc["hint"].as_str().unwrap().contains("--allow-host"), "{doc}");
    assert_eq!(repository.downloads(), 0);

    let kept = run(&world, &["--keep-failed", "--run", &failing]);
    assert_eq!(kept.status.code(), Some(71), "{}", show(&kept));
    let listed = world.json("bg-vm", &["ls", "--output", "json"]);
    let name = listed["name"].as_str().unwrap().to_owned();
    assert!(show(&kept).contains(&format!("bg-vm rm --force {name}")), "{}", show(&kept));
    assert_eq!(world.guest(&name, "hostname"), name);
    assert_eq!(world.findings(), Vec::<Value>::new(), "a VM that was left on purpose is no leak");
    world.ok("bg-vm", &["rm", "--force", &name]);
    assert_nothing_is_left(&world);
}

#[test]
fn a_build_that_is_ended_leaves_nothing() {
    let world = World::new();
    let waiting = script(&world, "waiting", "#!/bin/sh\necho waiting; exec sleep 1000\n");
    let early = ["claim", "clone_root", "vmm_choice"].map(|stage| (stage, Signal::SIGTERM));
    let late = [("login", Signal::SIGINT), ("login", Signal::SIGKILL)];
    for (n, (stage, signal)) in early.into_iter().chain(late).enumerate() {
        let events = world.path().join(format!("events-{n}"));
        let mut command = command(&world, &["--run", &waiting]);
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
        match signal {
            Signal::SIGKILL => {
                world.until("the VM's end", || world.processes().is_empty());
                world.collect();
            }
            _ => assert_eq!(output.status.code(), Some(128 + signal as i32), "{stage}: {}", show(&output)),
        }
        assert_nothing_is_left(&world);
    }
}
