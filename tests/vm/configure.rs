//! The configure boot: what the packages of a root file system bring is run in a VM, in its order, up to the first failure,
//! and whatever ends it, nothing of the VM is left. The root is as small as can be: a shell.

#![allow(clippy::disallowed_types)]

use super::world::{World, bin_dir, boot, show};
use lib_common::doc::CONFIGURE_DIR;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The tool, beside the programs that it needs.
fn tool(world: &World) -> PathBuf {
    let bins = world.path().join("bin");
    if !bins.exists() {
        std::fs::create_dir(&bins).unwrap();
        for (name, from) in [("bg-shim", "bg-shim"), ("configure-boot", "examples/configure-boot")] {
            let from = bin_dir().join(from);
            std::fs::copy(&from, bins.join(name))
                .unwrap_or_else(|e| panic!("{}: {e}; `cargo test` without --test builds it", from.display()));
        }
    }
    bins.join("configure-boot")
}

fn start(world: &World, root: &Path, timeout: &str) -> Child {
    let mut command = world.program(tool(world).to_str().unwrap());
    command
        .args([root.to_str().unwrap(), timeout])
        .env("BG_MEMORY", "256M")
        .env("BG_EVENTS", world.path().join("events"));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the tool starts");
    let image = world.ok("bg-image", &["show", "debian"]);
    child.stdin.take().unwrap().write_all(image.as_bytes()).unwrap();
    child
}

fn configure(world: &World, root: &Path) -> Output {
    start(world, root, &boot()).wait_with_output().unwrap()
}

/// The `Error` document of one that fails, after which nothing is left.
fn fails(world: &World, output: &Output, exit: i32) -> Value {
    assert_eq!(output.status.code(), Some(exit), "{}", show(output));
    assert!(output.stdout.is_empty(), "{}", show(output));
    world.assert_nothing_is_left();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

fn run(program: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program}: {}", show(&output));
    output.stdout
}

/// A root file system with the host's dash, this list and these scripts, `001`, `002` and so on.
fn root(world: &World, name: &str, list: Option<&str>, scripts: &[&str]) -> PathBuf {
    let (tree, disk) = (world.path().join(format!("{name}.tree")), world.path().join(name));
    let configure = tree.join(CONFIGURE_DIR.trim_start_matches('/'));
    for dir in [&tree.join("usr/bin"), &tree.join("made"), &configure] {
        std::fs::create_dir_all(dir).unwrap();
    }
    std::fs::copy("/bin/dash", tree.join("usr/bin/sh")).unwrap();
    let libraries = String::from_utf8(run("ldd", &["/bin/dash"])).unwrap();
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = tree.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(library, to).unwrap();
    }
    if let Some(list) = list {
        std::fs::write(configure.join("list"), list).unwrap();
    }
    std::fs::write(configure.join("epoch"), "1700000000\n").unwrap();
    for (n, script) in scripts.iter().enumerate() {
        std::fs::write(configure.join(format!("{:03}", n + 1)), script).unwrap();
    }
    run("mke2fs", &["-q", "-t", "ext4", "-d", tree.to_str().unwrap(), disk.to_str().unwrap(), "32M"]);
    disk
}

/// What debugfs says of it; empty for a file that there is not.
fn debugfs(command: &str, disk: &Path) -> String {
    String::from_utf8(run("debugfs", &["-R", command, disk.to_str().unwrap()])).unwrap()
}

const LIST: &str = "001 base-files 0.145_1 x86_64\n002 left 1_1 x86_64\n003 talkative 2.0_3 x86_64\n";

#[test]
fn every_script_is_run_in_the_guest_and_what_it_has_made_is_on_the_disk() {
    let world = World::new();
    let first = "#!/bin/false\n\
        [ -c /dev/null ] && [ -e /proc/1/comm ] && [ -d /sys/class ] && [ -r /dev/stdin ] || exit 9\n\
        read -r line && exit 8\n\
        was=none; [ ! -e /made/pre ] || read -r was </made/pre\n\
        echo \"$1 $was\" >>/made/order; [ \"$1\" = post ] || exit 0\n\
        echo \"$* $PWD $PATH $LANG $SOURCE_DATE_EPOCH $$ $HOME\" >/made/first\n\
        echo for in stdout; echo for stderr >&2\n";
    let left = "[ $1 = post ] || { echo pre-of-left >/made/pre; exit 0; }\n\
        while :; do :; done & echo left >/made/left; echo x >/run/volatile\n";
    let talkative = "[ $1 = post ] || exit 0; n=0; while [ $n -lt 2000 ]; do echo \"line $n\"; n=$((n + 1)); done; echo late >/tmp/late\n";
    let disk = root(&world, "root", Some(LIST), &[first, left, talkative]);
    let output = configure(&world, &disk);
    assert!(output.status.success(), "{}", show(&output));
    world.assert_nothing_is_left();
    let scripts: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = scripts.iter().map(|script| script["package"].as_str().unwrap()).collect();
    assert_eq!(names, ["base-files", "left", "talkative", "base-files", "left", "talkative"]);
    let actions: Vec<&str> = scripts.iter().map(|script| script["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["pre", "pre", "pre", "post", "post", "post"]);
    for script in &scripts {
        assert_eq!((&script["status"], &script["ended"]), (&0.into(), &"exit 0".into()), "{script}");
    }
    assert_eq!(
        (&scripts[3]["version"], &scripts[3]["output"]),
        (&"0.145_1".into(), &"for in stdout\nfor stderr\n".into())
    );
    let output = scripts[5]["output"].as_str().unwrap();
    assert!(output.len() == 4096 && output.ends_with("line 1999\n"), "{output}");

    let first = debugfs("cat /made/first", &disk);
    let words: Vec<&str> = first.split_whitespace().collect();
    let expected =
        ["post", "base-files", "0.145_1", "no", "no", "x86_64", "/", "/usr/bin:/usr/sbin:/bin:/sbin", "C.UTF-8"];
    assert_eq!(words[..9], expected);
    assert_eq!(debugfs("cat /made/order", &disk), "pre none\npost pre-of-left\n", "every `pre` runs before any `post`");
    assert_eq!((words[9], words.len()), ("1700000000", 11), "nothing else is in the environment: {first}");
    assert_eq!(
        (debugfs("cat /made/left", &disk).as_str(), debugfs("cat /tmp/late", &disk).as_str()),
        ("left\n", "late\n")
    );
    assert!(debugfs("stat /tmp", &disk).contains("Mode:  01777"), "{}", debugfs("stat /tmp", &disk));
    assert_eq!(debugfs(&format!("stat {CONFIGURE_DIR}"), &disk), "", "what was run is gone");
    assert_eq!(debugfs("cat /run/volatile", &disk), "", "it is in memory");
    run("e2fsck", &["-f", "-n", disk.to_str().unwrap()]);
}

#[test]
fn a_script_that_fails_is_the_last_one_and_is_named() {
    let world = World::new();
    let disk = root(
        &world,
        "root",
        Some(LIST),
        &["echo 1 >/made/first", "echo it breaks; echo here >&2; exit 3", "echo 3 >/made/third"],
    );
    let doc = fails(&world, &configure(&world, &disk), 71);
    assert_eq!((&doc["code"], &doc["causes"]), (&"command_failed".into(), &serde_json::json!(["here"])), "{doc}");
    let details = &doc["details"];
    assert_eq!((&details["package"], &details["version"]), (&"left".into(), &"1_1".into()), "{doc}");
    assert_eq!((&details["status"], &details["output"]), (&"exit 3".into(), &"it breaks\nhere\n".into()), "{doc}");
    assert!(doc["message"].as_str().unwrap().contains("`left`"), "{doc}");
    assert_eq!(details["action"], "pre", "{doc}");
    assert_eq!(debugfs("cat /made/third", &disk), "", "it never ran");

    let without = root(&world, "without", None, &[]);
    let doc = fails(&world, &configure(&world, &without), 69);
    assert_eq!(doc["code"], "not_running", "{doc}");
    assert!(doc["causes"].to_string().contains("list of the packages' scripts"), "the console's end: {doc}");
}

#[test]
fn a_script_without_end_is_ended_and_so_is_a_configuration_that_nobody_wants_any_more() {
    let world = World::new();
    let list = "001 fine 1_1 x86_64\n002 endless 1_1 x86_64\n";
    let scripts = ["echo well", "while :; do :; done"];
    let late = start(&world, &root(&world, "late", Some(list), &scripts), "30").wait_with_output().unwrap();
    let doc = fails(&world, &late, 75);
    assert_eq!(doc["code"], "timed_out", "{doc}");

    let disk = root(&world, "killed", Some(list), &scripts);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let _ = std::fs::remove_file(world.path().join("events"));
        let child = start(&world, &disk, &boot());
        world.until("the boot", || {
            std::fs::read_to_string(world.path().join("events")).unwrap_or_default().contains(r#""stage":"boot_guest""#)
        });
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        if signal == Signal::SIGKILL {
            world.until("the VM's end", || world.processes().is_empty());
            world.collect();
        } else {
            assert_eq!(output.status.code(), Some(143), "{}", show(&output));
        }
        world.assert_nothing_is_left();
    }
}
