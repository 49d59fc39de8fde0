//! Secrets: in files of mode 0600 in directories of mode 0700, and nowhere else: no argument, environment, log or error.

use crate::running::World;
use crate::support::children;
use crate::support::launched::until;
use lib_common::error::Code;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Files that a secret may be in: the keys themselves, and what the shim appends to the initrd at each boot of the guest.
const ALLOWED: [&str; 3] = ["id_ed25519", "ssh_host_ed25519_key", "identity.json"];

/// What is secret in an OpenSSH private key: the lines that hold it, without those that every key begins with.
fn secret_lines(key: &str) -> Vec<String> {
    let lines: Vec<String> = key.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned).collect();
    assert!(lines.len() >= 4, "{} lines", lines.len());
    // The first two say the format, and the public half.
    lines[2..].to_vec()
}

fn assert_has_none(secrets: &[String], bytes: &[u8], what: &str) {
    let text = String::from_utf8_lossy(bytes);
    assert!(secrets.iter().all(|secret| !text.contains(secret)), "{what} has a private key");
}

/// Reads all files below a directory; those with a secret are private and allowed. Gives the names of these.
fn look_below(secrets: &[String], dir: &Path) -> Vec<String> {
    let mut with = vec![];
    for path in children(dir) {
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            with.extend(look_below(secrets, &path));
        }
        // Sockets and pipes have no content of their own.
        if !meta.is_file() {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !ALLOWED.contains(&name.as_str()) {
            assert_has_none(secrets, &bytes, &path.display().to_string());
            continue;
        }
        assert_eq!((mode_of(&path), mode_of(dir)), (0o600, 0o700), "{}", path.display());
        let text = String::from_utf8_lossy(&bytes);
        if secrets.iter().any(|secret| text.contains(secret)) {
            with.push(name);
        }
    }
    with.sort();
    with
}

fn mode_of(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn assert_kept(world: &World, said: &[Vec<u8>]) {
    let read = |path: &str| std::fs::read_to_string(world.sandbox.state(path)).unwrap();
    let secrets =
        [secret_lines(&read("ssh/id_ed25519")), secret_lines(&read("machines/dev/ssh_host_ed25519_key"))].concat();
    for dir in ["state", "state/ssh", "state/machines", "state/machines/dev", "run"] {
        assert_eq!(mode_of(&world.sandbox.path(dir)), 0o700, "{dir}");
    }
    // Whoever may read a file can lock it.
    for lock in ["machines/dev/lock", "machines/dev/vm.lock"] {
        assert_eq!(mode_of(&world.sandbox.state(lock)), 0o600, "{lock}");
    }
    let with = [look_below(&secrets, &world.sandbox.path("state")), look_below(&secrets, &world.sandbox.path("run"))];
    assert_eq!(with.concat(), ["id_ed25519", "ssh_host_ed25519_key", "identity.json"], "else this test sees nothing");
    let pids: Vec<i32> = lib_common::sys::process::all_pids().unwrap();
    let ours = world.sandbox.path("").display().to_string();
    let mut seen = vec![];
    for pid in pids.into_iter().filter(|pid| *pid != std::process::id() as i32) {
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let (args, environment) = (read("cmdline"), read("environ"));
        if String::from_utf8_lossy(&args).contains(&ours) {
            assert_has_none(&secrets, &args, "a command line");
            assert_has_none(&secrets, &environment, "an environment");
            seen.push(pid);
        }
    }
    let running: Value = serde_json::from_slice(said.last().unwrap()).unwrap();
    for pid in ["pid", "shim_pid"] {
        let pid = i32::try_from(running["vmm"][pid].as_i64().unwrap()).unwrap();
        assert!(seen.contains(&pid), "the process {pid} was not looked at: {seen:?}");
    }
    said.iter().for_each(|text| assert_has_none(&secrets, text, "what a tool said"));
}

#[test]
fn private_keys_are_in_private_files_and_nowhere_else() {
    let world = World::new(&["dev"]);
    let mut said = vec![];
    // A VMM that refuses the start is quoted in an error, and the shim's log has its words.
    std::fs::write(world.sandbox.path("fake/mode"), "refuses").unwrap();
    let done = world.vm(&["start", "dev"], "");
    done.failed_with(Code::VmmFailed);
    said.push(done.stderr.into_bytes());
    std::fs::write(world.sandbox.path("fake/mode"), "runs").unwrap();
    for verb in [&["start", "dev"][..], &["stats", "dev"], &["ls"], &["logs", "dev"], &["show", "dev"]] {
        let done = world.vm(verb, "");
        done.ok();
        said.extend([done.stderr.clone().into_bytes(), done.stdout.clone()]);
    }
    until("the guest runs", || {
        std::fs::read_to_string(world.sandbox.state("machines/dev/console.log"))
            .is_ok_and(|text| text.contains("run 1"))
    });
    assert_kept(&world, &said);
}

#[test]
fn a_private_key_that_others_may_read_is_refused() {
    let world = World::new(&["dev"]);
    world.vm(&["start", "dev"], "").ok();
    let key = world.sandbox.state("ssh/id_ed25519");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let said = world.vm(&["restart", "dev"], "").failed_with(Code::Permission);
    assert!(said.hint.unwrap().starts_with(&format!("chmod 600 {}", key.display())));
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    world.vm(&["start", "dev"], "").ok();
}
