//! VMs that run, on a VMM that only pretends: what the verbs say and do of them, one or several, by name or by document.

#![allow(clippy::disallowed_types)]

use crate::support::fixture::{self, FOREIGN};
use crate::support::{Done, Sandbox, children, finish, like, program};
use lib_common::error::Code;
use serde_json::Value;
use std::fs::{read_to_string, write};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const NO_FILES: Vec<PathBuf> = vec![];
const NONE: Vec<Value> = vec![];

/// A store with the image `debian`, whose VMs pretend. Dropped, none of them runs.
pub struct World {
    pub sandbox: Sandbox,
}

impl World {
    pub fn new(vms: &[&str]) -> Self {
        let sandbox = Sandbox::new();
        fixture::register(&sandbox, "debian");
        std::fs::create_dir(sandbox.path("fake")).unwrap();
        for fake in ["fake-vmm", "fake-guest"] {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(fake);
            std::fs::copy(from, sandbox.path("fake").join(fake)).unwrap();
        }
        let world = World { sandbox };
        world.set_mode("runs");
        for vm in vms {
            fixture::create(&world.sandbox, vm);
        }
        world
    }

    /// What its VMMs do, from the next start on.
    pub fn set_mode(&self, mode: &str) {
        write(self.sandbox.path("fake/mode"), mode).unwrap();
    }

    pub fn command(&self, tool: &str, args: &[&str]) -> Command {
        let mut command = self.sandbox.command(tool, args);
        for variable in ["BG_QEMU", "BG_VHOST_DEVICE_VSOCK"] {
            command.env(variable, self.sandbox.path("fake/fake-vmm"));
        }
        command
    }

    pub fn vm(&self, args: &[&str], stdin: &str) -> Done {
        finish(self.command("bg-vm", args).spawn().unwrap(), stdin.as_bytes())
    }

    pub fn state_of(&self, vm: &str) -> String {
        self.vm(&["show", vm], "").json()["status"]["state"].as_str().unwrap().to_owned()
    }

    pub fn record(&self, vm: &str) -> PathBuf {
        self.sandbox.state(&format!("machines/{vm}/machine.json"))
    }

    pub fn assert_nothing_is_left(&self) {
        assert_eq!(
            (children(&self.sandbox.state("machines")), children(&self.sandbox.path("run"))),
            (NO_FILES, NO_FILES)
        );
        assert_eq!(self.sandbox.findings(&["--now"]), NONE);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for vm in children(&self.sandbox.state("machines")) {
            let name = vm.file_name().unwrap().to_str().unwrap();
            let _ = finish(self.sandbox.command("bg-vm", &["rm", "--force", name]).spawn().unwrap(), b"");
        }
    }
}

/// A `bg-vm` and a `bg-shim` of one's own: the tools look for each other where they lie.
pub struct Suite<'a> {
    world: &'a World,
    pub dir: PathBuf,
}

impl<'a> Suite<'a> {
    pub fn new(world: &'a World) -> Self {
        let dir = world.sandbox.path("bin");
        std::fs::create_dir(&dir).unwrap();
        for tool in ["bg-vm", "bg-shim"] {
            std::fs::copy(program(tool), dir.join(tool)).unwrap();
        }
        Suite { world, dir }
    }

    /// From now on its shim is begun by these lines of sh.
    pub fn begin_shim_by(&self, lines: &str) {
        let shim = self.dir.join("bg-shim");
        std::fs::remove_file(&shim).unwrap();
        write(&shim, format!("#!/bin/sh\n{lines}\n")).unwrap();
        std::fs::set_permissions(&shim, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = like(&self.world.command("bg-vm", args), self.dir.join("bg-vm"));
        command.args(args);
        command
    }

    pub fn vm(&self, args: &[&str]) -> Done {
        finish(self.command(args).spawn().unwrap(), b"")
    }
}

#[test]
fn of_several_vms_all_are_worked_on_and_one_error_names_those_that_failed() {
    let world = World::new(&["a", "b"]);
    for verb in ["start", "stop", "restart", "kill"] {
        let failed = world.vm(&[verb, "a", "no", "b", "neither"], "").failed_with(Code::NotFound);
        assert!(failed.message.contains("`no`") && failed.causes.concat().contains("`neither`"), "{verb}: {failed:?}");
        let expected = if matches!(verb, "start" | "restart") { "running" } else { "stopped" };
        assert_eq!([world.state_of("a"), world.state_of("b")], [expected, expected], "{verb}");
    }
    let both = world.vm(&["start", "a", "b"], "");
    assert_eq!(
        both.documents().iter().map(|d| d["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["a", "b"],
        "{both:?}"
    );
    world.vm(&["rm", "a", "b"], "").failed_with(Code::InUse);
    world.vm(&["rm", "--force", "a", "no", "b"], "").ok();
    world.assert_nothing_is_left();
}

#[test]
fn a_document_goes_through_with_what_others_wrote_in_it() {
    let world = World::new(&["dev"]);
    let mut doc = fixture::with_foreign(&world.vm(&["show", "dev"], "").ok());
    for verb in ["start", "start", "stats", "stop", "kill", "restart", "kill"] {
        let done = world.vm(&[verb], &doc);
        assert!(done.ok().contains(FOREIGN), "{verb}: {done:?}");
        // No number of ours is as large as theirs.
        let parsed = |doc: &str| serde_json::from_str::<Value>(&doc.replace(FOREIGN, "\"x\":0")).unwrap();
        let (before, after) = (parsed(&doc), parsed(&done.ok()));
        let times = |doc: &Value| doc["timings"].as_array().map_or(0, Vec::len);
        assert!(times(&after) > times(&before), "{verb}: {after}");
        let stages: Vec<&str> = after["timings"].as_array().unwrap()[times(&before)..]
            .iter()
            .map(|t| t["stage"].as_str().unwrap())
            .collect();
        assert!(!stages.contains(&"clone_root"), "{verb}: of this run alone: {stages:?}");
        assert_eq!(after.get("vmm").is_some(), matches!(verb, "start" | "stats" | "restart"), "{verb}: {after}");
        doc = done.text();
    }
    assert_eq!(world.sandbox.findings(&["--now"]), NONE);
}

#[test]
fn a_nested_work_disk_is_told_of_at_every_start_and_by_its_check() {
    let world = World::new(&["dev"]);
    let told = |done: &Done| done.stderr.matches("the work disk of `dev` has its content nested in /root/root").count();
    let check = || {
        let done = world.sandbox.run("bg-seed", &["check", "--vm", "dev"], "");
        let checks = done.documents()[0]["checks"].take();
        (done.exit, checks.as_array().unwrap().clone())
    };
    let names = |checks: &[Value]| checks.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let (exit, checks) = check();
    assert_eq!((exit, names(&checks)), (0, ["file", "file_system", "not_nested"].map(str::to_owned).to_vec()));
    let started = world.vm(&["start", "dev"], "");
    started.ok();
    assert_eq!(told(&started), 0, "{started:?}");
    world.vm(&["kill", "dev"], "").ok();

    let work = world.sandbox.state("machines/dev/work.ext4");
    std::fs::remove_file(&work).unwrap();
    fixture::nested_work_disk(&work);
    let (exit, checks) = check();
    let failed: Vec<&Value> = checks.iter().filter(|c| c["ok"] == false).collect();
    assert_eq!((exit, failed.len(), &failed[0]["name"]), (1, 1, &"not_nested".into()), "{checks:?}");
    assert_eq!(failed[0]["fix"], "`bg-vm start dev` mends it");
    // This VMM has no guest that would mend it.
    for verb in ["start", "restart"] {
        let started = world.vm(&[verb, "dev"], "");
        let stages = &started.json()["timings"];
        assert_eq!(told(&started), 1, "{verb}: {started:?}");
        assert!(stages.as_array().unwrap().iter().any(|t| t["stage"] == "look_at_work"), "{verb}: {stages}");
    }
    world.vm(&["kill", "dev"], "").ok();
    // What cannot be read is no reason not to start.
    write(&work, "no disk").unwrap();
    let started = world.vm(&["start", "dev"], "");
    started.ok();
    assert_eq!(told(&started), 0);
    world.vm(&["kill", "dev"], "").ok();
    assert_eq!(names(&check().1), ["file", "file_system"]);
}

#[test]
fn a_document_of_a_vm_that_was_made_anew_touches_no_other() {
    let world = World::new(&["dev"]);
    let old = world.vm(&["show", "dev"], "").ok();
    world.vm(&["rm"], &old).ok();
    world.vm(&["rm"], &old).ok();
    fixture::create(&world.sandbox, "dev");
    world.vm(&["start", "dev"], "").ok();
    for verb in ["start", "stop", "restart", "kill"] {
        let failed = world.vm(&[verb], &old).failed_with(Code::BadDocument);
        assert!(failed.message.contains("another VM"), "{verb}: {failed:?}");
    }
    world.vm(&["stats"], &old).failed_with(Code::NotRunning);
    assert!(world.vm(&["rm", "--force"], &old).stderr.contains("another one"));
    assert_eq!(world.state_of("dev"), "running");
}

#[test]
fn a_vm_whose_record_was_damaged_while_it_ran_is_removed_with_its_processes() {
    let world = World::new(&["dev"]);
    world.vm(&["start", "dev"], "").ok();
    for damage in ["junk", ""] {
        write(world.record("dev"), damage).unwrap();
        let failed = world.vm(&["rm", "dev"], "").failed_with(Code::InUse);
        assert!(failed.hint.unwrap().contains("--force"), "{damage:?}");
        // What nobody is known to have may be its.
        let found = world.sandbox.findings(&["--now"]);
        assert!(found.iter().any(|f| f["kind"] == "process" && f["fix"].as_str().unwrap().contains("rm --force dev")));
        assert!(found.iter().all(|f| f["is_leak"] == false), "{damage:?}: {found:?}");
    }
    world.vm(&["rm", "--force", "dev"], "").ok();
    world.assert_nothing_is_left();
}

#[test]
fn a_vm_that_runs_is_no_leak_and_one_whose_state_was_lost_is() {
    let world = World::new(&["dev"]);
    world.vm(&["start", "dev"], "").ok();
    assert_eq!(world.sandbox.findings(&["--now"]), NONE);
    std::fs::remove_dir_all(world.sandbox.state("")).unwrap();
    let found = world.sandbox.findings(&["--now"]);
    let kinds: Vec<&str> = found.iter().map(|f| f["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"runtime_dir") && kinds.contains(&"process"), "{found:?}");
    std::fs::remove_dir_all(world.sandbox.path("run")).unwrap();
    let found = world.sandbox.findings(&["--now"]);
    assert!(!found.is_empty() && found.iter().all(|f| f["kind"] == "process"), "{found:?}");
    world.sandbox.collect();
}

#[test]
fn the_image_of_a_vm_may_be_replaced_and_the_vm_starts_as_before() {
    let world = World::new(&["dev"]);
    let kernel = || std::fs::read(world.sandbox.state("machines/dev/vmlinux")).unwrap();
    let before = kernel();
    let other = fixture::Files::new(&world.sandbox, "other").document().to_string();
    world.sandbox.run("bg-register", &["--name", "debian", "--replace"], other).ok();
    world.vm(&["start", "dev"], "").ok();
    assert_eq!(kernel(), before);
}

/// `bg-vm logs`, with its stdout to read from.
fn follow(world: &World) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = world.command("bg-vm", &["logs", "--follow", "dev"]).stdin(Stdio::null()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

#[test]
fn logs_print_the_older_half_first_and_follow_a_log_that_turns_over() {
    let world = World::new(&["dev"]);
    let dir = world.sandbox.state("machines/dev");
    write(dir.join("console.log.1"), "one\n").unwrap();
    write(dir.join("console.log"), "two\n").unwrap();
    assert_eq!(world.vm(&["logs", "dev"], "").ok(), "one\ntwo\n");
    world.vm(&["start", "dev"], "").ok();
    let (mut child, mut out) = follow(&world);
    let mut next = || {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        line
    };
    assert_eq!([next(), next(), next()], ["one\n", "two\n", "run 1 of the guest\n"]);
    // As the shim does it: the full log becomes the older half, and is emptied in place.
    let full = read_to_string(dir.join("console.log")).unwrap() + "three\n";
    std::fs::remove_file(dir.join("console.log.1")).unwrap();
    write(dir.join("console.log.1"), full).unwrap();
    write(dir.join("console.log"), "four\n").unwrap();
    assert_eq!([next(), next()], ["three\n", "four\n"]);
    world.vm(&["kill", "dev"], "").ok();
    assert_eq!(next(), "");
    assert!(child.wait().unwrap().success());
}

/// A script beside the QEMU that pretends, as `BG_QEMU`.
fn script(world: &World, line: &str) -> PathBuf {
    let (vmm, path) = (world.sandbox.path("fake/fake-vmm"), world.sandbox.path("fake/script"));
    write(&path, format!("#!/bin/sh\n{}\n", line.replace("VMM", &vmm.display().to_string()))).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_script_has_to_become_qemu_and_is_recorded_as_what_it_became() {
    let world = World::new(&["dev"]);
    let start = |line: &str| {
        let mut command = world.command("bg-vm", &["start", "dev"]);
        finish(command.env("BG_QEMU", script(&world, line)).spawn().unwrap(), b"")
    };
    let refused = start("VMM \"$@\"\nexit $?").failed_with(Code::VmmFailed);
    assert!(refused.causes.concat().contains("fake/script started the VMM as another process"), "{refused:?}");
    assert!(refused.hint.unwrap().contains("begin its last line with exec"));
    assert_eq!((world.state_of("dev").as_str(), children(&world.sandbox.path("run"))), ("stopped", NO_FILES));
    assert_eq!(world.sandbox.findings(&["--now"]), NONE);

    let vmm = start("exec VMM \"$@\"").json()["vmm"].take();
    assert!(vmm["exe"].as_str().unwrap().contains("perl"), "{vmm}");
    assert_eq!(world.sandbox.findings(&["--now"]), NONE);
    world.vm(&["kill", "dev"], "").ok();
    assert_eq!(world.state_of("dev"), "stopped");
}

#[test]
fn a_stop_waits_for_the_agent_of_a_guest_that_boots() {
    let world = World::new(&["dev"]);
    world.set_mode("silent");
    world.vm(&["start", "dev"], "").ok();
    let begun = std::time::Instant::now();
    let stopped = world.vm(&["stop", "--timeout", "1", "dev"], "");
    assert!(stopped.stderr.contains("its guest was not up after 1 s) and was killed"), "{stopped:?}");
    assert!(begun.elapsed().as_secs_f32() >= 1.0, "{:?}", begun.elapsed());
    // Once the guest is up its agent is asked, which this one has not got.
    let run = world.vm(&["start", "dev"], "").json()["vmm"]["vsock"].as_str().unwrap().to_owned();
    let begun = std::time::Instant::now();
    let stopping = world.command("bg-vm", &["stop", "--timeout", "60", "dev"]).spawn().unwrap();
    drop(std::os::unix::net::UnixStream::connect(format!("{run}_51")).unwrap());
    let stopped = finish(stopping, b"");
    assert!(stopped.stderr.contains("and was killed") && !stopped.stderr.contains("was not up"), "{stopped:?}");
    assert!(begun.elapsed().as_secs() < 50, "{:?}", begun.elapsed());
    // A guest that ends while its agent is waited for has not been killed.
    world.set_mode("ends-early");
    world.vm(&["start", "dev"], "").ok();
    let stopping = world.command("bg-vm", &["stop", "dev"]).spawn().unwrap();
    write(world.sandbox.path("fake/go"), "").unwrap();
    let stopped = finish(stopping, b"");
    assert_eq!(stopped.json()["status"]["exit"]["reason"], "poweroff", "{stopped:?}");
}

#[test]
fn what_is_made_and_started_is_printed_with_its_status() {
    let world = World::new(&[]);
    let made = world.vm(&["create", "dev", "--no-start", "--work-size", fixture::WORK], "").json();
    assert_eq!(made["status"], serde_json::json!({"state": "stopped"}));
    let running = serde_json::json!({"state": "running"});
    let made = world.vm(&["create", "two", "--work-size", fixture::WORK], "").json();
    assert_eq!(made["status"], running);
    assert_eq!(world.vm(&["start", "dev"], "").json()["status"], running);
    assert_eq!(world.vm(&["restart", "--timeout", "1", "dev"], "").json()["status"], running);
    let cloned = world.sandbox.run("bg-seed", &["clone"], fixture::plan(&world.sandbox, "three")).ok();
    assert_eq!(world.vm(&["start"], &cloned).json()["status"], running);
    assert!(!read_to_string(world.record("dev")).unwrap().contains("\"status\""), "it is never stored");
}

#[test]
fn a_guest_whose_init_gives_up_has_failed_and_says_why() {
    let world = World::new(&["dev"]);
    world.set_mode("init-fails");
    world.vm(&["start", "dev"], "").ok();
    write(world.sandbox.path("fake/go"), "").unwrap();
    crate::support::launched::until("it has ended", || world.state_of("dev") != "running");
    let status = world.vm(&["show", "dev"], "").json()["status"].take();
    let why = "the guest's /init gave up: cannot mount the root disk: /dev/vda at /newroot: Invalid argument";
    assert_eq!((&status["state"], &status["exit"]["reason"]), (&"crashed".into(), &"crashed".into()), "{status}");
    assert_eq!(status["exit"]["status"], why);
    let health = world.sandbox.run("bg-health", &["dev"], "").failed_with(Code::NotRunning);
    assert!(health.causes.concat().contains(why), "{health:?}");
}

#[test]
fn a_build_that_is_under_way_is_no_vm_in_the_list_and_keeps_its_image() {
    let world = World::new(&["dev"]);
    world.vm(&["rm", "dev"], "").ok();
    let dir = world.sandbox.state("machines/build-01234567");
    std::fs::create_dir(&dir).unwrap();
    let lock = lib_common::sys::lock::Lock::take(&dir.join("lock"), std::time::Duration::ZERO).unwrap();
    let undo = vec![lib_common::doc::Undo::RemoveObject];
    let journal = lib_machine::store::Journal::in_dir(&dir, lib_machine::net::give_back_all);
    journal.begin_with("image_build", undo).unwrap().hand_on();
    assert_eq!(world.vm(&["ls"], "").ok(), "");
    assert_eq!(world.vm(&["ls", "--output", "table"], "").ok().lines().count(), 1);
    let used = world.sandbox.run("bg-image", &["rm", "debian"], "").failed_with(Code::InUse);
    assert!(used.message.contains("used by bg-image-build (in `build-01234567`)"), "{used:?}");
    let hint = used.hint.unwrap();
    assert_eq!(hint, format!("wait until that has ended, or end it: kill {}", std::process::id()));
    // One that was killed is left to the audit, and shown.
    drop(lock);
    assert_eq!(world.vm(&["ls"], "").json()["status"]["state"], "incomplete");
    world.sandbox.collect();
    world.sandbox.run("bg-image", &["rm", "debian"], "").ok();
}
