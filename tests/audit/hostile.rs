//! Links, FIFOs, devices and what is another user's, put into our directories: refused by name, with what to do, and never
//! followed, opened or waited for.

use super::{may_chown, store};
use crate::running::World;
use crate::support::fixture::{Files, WORK};
use crate::support::{Sandbox, finish};
use lib_common::error::Code;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::Value;
use std::fs::rename;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;

/// What somebody does to a thing of ours.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Attack {
    /// It becomes a symbolic link to itself, elsewhere.
    Link,
    /// It becomes a named pipe that nobody writes to.
    Fifo,
    /// It becomes a device.
    Device,
    /// It becomes another user's.
    Chown,
}

impl Attack {
    fn on(self, sandbox: &Sandbox, path: &Path) {
        let away = sandbox.path("home/away");
        match self {
            Attack::Chown => return chown(path, Some(12345), None).unwrap(),
            _ => rename(path, &away).unwrap(),
        }
        match self {
            Attack::Link => symlink(&away, path).unwrap(),
            Attack::Fifo => nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap(),
            // One that gives zeros without an end.
            _ => mknod(path, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 5)).unwrap(),
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Attack::Link => "is a symbolic link",
            Attack::Fifo => "is a FIFO",
            Attack::Device => "is a device",
            // What stands behind it is for the store's own directories another thing than for what is in them.
            Attack::Chown => "belongs to user 12345, ",
        }
    }
}

/// What is attacked, whether it is a directory, and the tools that have to refuse it.
type Case = (&'static str, bool, &'static [&'static [&'static str]]);

const CREATE: &[&str] = &["bg-vm", "create", "new", "--no-start", "--work-size", WORK];
const START: &[&str] = &["bg-vm", "start", "dev"];
const SHOW: &[&str] = &["bg-vm", "show", "dev"];
const REMOVE: &[&str] = &["bg-vm", "rm", "dev"];
const LOGS: &[&str] = &["bg-vm", "logs", "dev"];
const VERIFY: &[&str] = &["bg-verify", "--now"];
const REGISTER: &[&str] = &["bg-register", "--name", "new"];
const REPLACE: &[&str] = &["bg-register", "--name", "debian", "--replace"];
const LIST: &[&str] = &["bg-vm", "ls"];
const IMAGES: &[&str] = &["bg-image", "ls"];

const CASES: &[Case] = &[
    ("state", true, &[CREATE, VERIFY, REGISTER]),
    ("state/machines", true, &[LIST, START, SHOW, REMOVE, CREATE, VERIFY]),
    ("state/images", true, &[IMAGES, CREATE, REGISTER, &["bg-image", "rm", "debian"], VERIFY]),
    ("state/staging", true, &[CREATE, REGISTER, VERIFY]),
    ("run", true, &[CREATE, VERIFY]),
    ("state/bundle", true, &[VERIFY]),
    (
        "state/machines/dev",
        true,
        &[START, SHOW, REMOVE, LOGS, &["bg-vm", "kill", "dev"], &["bg-ssh", "dev", "--", "true"]],
    ),
    ("state/machines/dev/machine.json", false, &[START, SHOW]),
    ("state/machines/dev/journal", false, &[START]),
    ("state/machines/dev/root.ext4", false, &[START]),
    ("state/machines/dev/work.ext4", false, &[START]),
    ("state/machines/dev/vmlinux", false, &[START]),
    ("state/machines/dev/initrd", false, &[START]),
    ("state/images/debian", true, &[CREATE, REPLACE, &["bg-image", "show", "debian"], &["bg-image", "rm", "debian"]]),
    ("state/images/debian/image.json", false, &[CREATE, &["bg-image", "show", "debian"]]),
    ("state/images/debian/rootfs.ext4", false, &[CREATE]),
    ("state/images/debian/initrd", false, &[CREATE]),
    ("state/default-image", false, &[CREATE]),
];

fn refused(case: &Case, attack: Attack) {
    let (place, _, tools) = *case;
    let world = World::new(&["dev"]);
    let sandbox = &world.sandbox;
    let document = Files::new(sandbox, "other").document().to_string();
    // The runtime directory is made when it is needed, and a bundle when it is wanted.
    for dir in ["run", "state/bundle"] {
        std::fs::create_dir_all(sandbox.path(dir)).unwrap();
    }
    let path = sandbox.path(place);
    attack.on(sandbox, &path);
    let was = path.symlink_metadata().unwrap().file_type();
    for tool in tools {
        let input = if tool[0] == "bg-register" { document.as_str() } else { "" };
        let done = finish(world.command(tool[0], &tool[1..]).spawn().unwrap(), input.as_bytes());
        let said = done.failed_with(Code::Permission);
        let what = format!("{attack:?} {place} {tool:?}: {said:?}");
        assert_eq!(said.exit, 77, "{what}");
        let all = format!("{} {}", said.message, said.causes.join(" "));
        assert!(all.contains(&format!("{} {}", path.display(), attack.in_words())), "{what}");
        assert!(
            said.hint.as_deref().is_some_and(|hint| hint.contains(&format!("ls -ld {}", path.display()))),
            "{what}"
        );
        assert_eq!(path.symlink_metadata().unwrap().file_type(), was, "{what}: it was touched");
    }
    // What was found in one VM or image is a finding; it is no leak, and what it leads to is left alone.
    if !tools.contains(&VERIFY) {
        let found = sandbox.findings(&["--now"]);
        let about = |f: &&Value| f["evidence"].as_str().unwrap().contains(attack.in_words());
        assert!(found.iter().any(|f| about(&f)), "{attack:?} {place}: {found:?}");
        assert!(found.iter().all(|f| f["is_leak"] == false), "{attack:?} {place}: {found:?}");
        assert_eq!(super::collect(sandbox, &found), Vec::<Value>::new());
    }
}

#[test]
fn symbolic_links_are_refused() {
    CASES.iter().for_each(|case| refused(case, Attack::Link));
}

#[test]
fn pipes_are_refused_and_nobody_waits_for_them() {
    CASES.iter().filter(|(_, is_dir, _)| !is_dir).for_each(|case| refused(case, Attack::Fifo));
}

#[test]
fn devices_are_refused_and_never_read() {
    if may_chown("devices_are_refused_and_never_read") {
        CASES.iter().filter(|(_, is_dir, _)| !is_dir).for_each(|case| refused(case, Attack::Device));
    }
}

#[test]
fn what_is_another_users_is_refused() {
    if may_chown("what_is_another_users_is_refused") {
        CASES.iter().for_each(|case| refused(case, Attack::Chown));
    }
}

#[test]
fn one_vm_that_is_refused_does_not_hide_the_others() {
    let sandbox = store();
    crate::support::fixture::create(&sandbox, "fine");
    Attack::Link.on(&sandbox, &sandbox.state("machines/dev"));
    let done = sandbox.run("bg-vm", &["ls"], "");
    assert_eq!(done.documents().iter().map(|d| d["name"].as_str().unwrap()).collect::<Vec<_>>(), ["fine"], "{done:?}");
    assert!(done.stderr.contains("dev is a symbolic link"), "{done:?}");
    sandbox.run("bg-vm", &["rm", "fine"], "").ok();
}

#[test]
fn a_lock_or_a_log_that_is_a_link_or_a_pipe_is_neither_followed_nor_waited_for() {
    let world = World::new(&["dev"]);
    let precious = world.sandbox.path("home/precious");
    std::fs::write(&precious, "precious").unwrap();
    for name in ["lock", "shim.log", "console.log", "exit.json", "ssh_host_ed25519_key", "known_hosts"] {
        for attack in [Attack::Link, Attack::Fifo] {
            let path = world.sandbox.state("machines/dev").join(name);
            let _ = std::fs::remove_file(&path);
            match attack {
                Attack::Link => symlink(&precious, &path).unwrap(),
                _ => nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap(),
            }
            // Some are replaced by a plain file, others refused; none is waited for.
            let started = world.vm(&["start", "dev"], "");
            assert!(started.exit == 0 || started.exit == i32::from(started.failed().exit), "{name}: {started:?}");
            if started.exit == 0 {
                // It asks for the key that the VM's known_hosts has.
                let ssh = world.command("bg-ssh", &["--connect-timeout", "0.1", "dev", "--", "true"]);
                let _ = finish({ ssh }.spawn().unwrap(), b"");
            }
            let _ = world.vm(&["kill", "dev"], "");
            world.sandbox.findings(&["--now"]);
            assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious", "{name} {attack:?}");
            let _ = std::fs::remove_file(&path);
        }
    }
    world.vm(&["start", "dev"], "").ok();
}

#[test]
fn a_bundle_is_nobody_elses() {
    let world = World::new(&["dev"]);
    let bundle = world.sandbox.state("bundle");
    std::fs::create_dir(&bundle).unwrap();
    let json = bundle.join("bundle.json");
    // A pipe that nobody writes to: every tool looks for a bundle.
    nix::unistd::mkfifo(&json, Mode::S_IRWXU).unwrap();
    world.vm(&["ls"], "").ok();
    std::fs::remove_file(&json).unwrap();
    if may_chown("a_bundle_is_nobody_elses") {
        std::fs::write(&json, "{}").unwrap();
        chown(&json, Some(12345), None).unwrap();
        let said = world.command("bg-vm", &["create", "new", "--vmm", "firecracker"]);
        let said = finish({ said }.spawn().unwrap(), b"").failed_with(Code::Permission);
        assert!(
            format!("{} {:?}", said.message, said.causes).contains("bundle.json belongs to user 12345"),
            "{said:?}"
        );
    }
}

#[test]
fn a_store_that_others_can_change_is_not_worked_on() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(&["dev"]);
    let open = |path: &Path, mode: u32| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    for place in ["state", ""] {
        let path = world.sandbox.path(place);
        let path = Path::new(path.to_str().unwrap().trim_end_matches('/'));
        open(path, 0o777);
        for (tool, args) in
            [("bg-vm", &["rm", "dev"][..]), ("bg-vm", &["ls"]), ("bg-verify", &[]), (CREATE[0], &CREATE[1..])]
        {
            let said = finish(world.command(tool, args).spawn().unwrap(), b"").failed_with(Code::Permission);
            let expected = format!("{} can be written to by others", path.display());
            assert!(said.message.contains(&expected) && said.hint.unwrap().contains("chmod go-w"), "{tool} {args:?}");
        }
        open(path, 0o755);
    }
    // What an image's files are taken from, too.
    let cache = world.sandbox.path("cache");
    std::fs::create_dir_all(&cache).unwrap();
    open(&cache, 0o777);
    let document = Files::new(&world.sandbox, "other").document().to_string();
    let said = world.sandbox.run("bg-seed", &["build", "--size", WORK], &document).failed_with(Code::Permission);
    assert!(said.hint.unwrap().contains("BG_CACHE_DIR"));
    open(&cache, 0o755);
    world.sandbox.run("bg-seed", &["build", "--size", WORK], &document).ok();
    world.vm(&["rm", "dev"], "").ok();
}

#[test]
fn programs_are_not_taken_from_where_one_is() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(&["dev"]);
    let home = world.sandbox.path("home");
    for program in ["e2fsck", "mke2fs", "resize2fs", "debugfs", "vhost-device-vsock"] {
        let path = home.join(program);
        std::fs::write(&path, "#!/bin/sh\n: > ran\nexit 3\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let path = format!(":.:{}", std::env::var("PATH").unwrap());
    for (tool, args) in
        [("bg-seed", &["check", "--vm", "dev"][..]), ("bg-vm", &["create", "new", "--no-start", "--work-size", "32M"])]
    {
        let mut command = world.command(tool, args);
        command.env("PATH", &path);
        finish(command.spawn().unwrap(), b"").ok();
    }
    assert!(!home.join("ran").exists(), "what lies in the working directory was run");
}
