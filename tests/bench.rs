//! `bg-bench create --fake-vmm` and `bg-bench compare`: what they print, and that nothing is left. How long anything takes is
//! not tested: it says nothing where others work at the same time.

#![allow(clippy::disallowed_types, reason = "a test may start programs itself")]

use crate::support::fixture::{self, WORK};
use crate::support::launched::fake_firecracker;
use crate::support::{Done, Sandbox, children, finish};
use lib_common::doc::{Bench, BenchDiff, Measure, Unit, strict};
use lib_common::error::Code;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "debian");
    sandbox
}

fn command(sandbox: &Sandbox, args: &[&str]) -> Command {
    let mut command = sandbox.command("bg-bench", args);
    command.env("BG_FIRECRACKER", fake_firecracker()).env("BG_WORK_SIZE", WORK);
    command
}

fn bench(sandbox: &Sandbox, args: &[&str]) -> Done {
    finish(command(sandbox, args).spawn().unwrap(), b"")
}

fn assert_nothing_left(sandbox: &Sandbox) {
    assert_eq!(sandbox.staged(), Vec::<PathBuf>::new());
    assert_eq!(children(&sandbox.path("run")), Vec::<PathBuf>::new());
    assert_eq!(sandbox.findings(&["--now"]).len(), 0);
}

#[test]
fn the_hosts_part_is_measured_by_stage_and_leaves_nothing() {
    let sandbox = sandbox();
    let args = ["create", "--fake-vmm", "--runs", "2", "--existing", "0,3", "--no-seed", "--parallel", "2"];
    let bench: Bench = strict(&bench(&sandbox, &args).ok()).unwrap();
    assert_eq!((bench.subject.as_str(), bench.runs, bench.setup["image"].as_str()), ("host_part", 2, "debian"));
    assert!(bench.host.file_system.is_some() && bench.host.reflink.is_some() && bench.host.accel.is_none());
    let of = |name: &str, existing| -> &Measure {
        let found = bench.measures.iter().find(|m| m.name == name && m.existing == existing);
        found.unwrap_or_else(|| panic!("no {name} with {existing}: {bench:?}"))
    };
    for existing in [0, 3] {
        let names = [
            "create",
            "create_exit",
            "no_seed.create",
            "rm_running",
            "cp_sparse",
            "ls",
            "show",
            "verify",
            "bg-vm.lock",
        ];
        for name in names {
            let m = of(name, existing);
            assert_eq!((m.unit, m.n, m.samples.len()), (Unit::Ms, 2, 2), "{m:?}");
            assert!(0.0 < m.p50 && m.p50 <= m.p95 && m.p95 <= m.max, "{m:?}");
        }
        assert_eq!((of("parallel_creates", existing).unit, of("parallel_create", existing).n), (Unit::PerS, 4));
        // A stage begins where the one before it ends, and all of them lie within the process's time.
        let whole =
            |m: &&Measure| m.existing == existing && m.name.starts_with("bg-vm.") && m.name.matches('.').count() == 1;
        for (run, wall) in of("create_exit", existing).samples.iter().enumerate() {
            let sum: f64 = bench.measures.iter().filter(whole).map(|m| m.samples[run]).sum();
            assert!(0.0 < sum && sum <= *wall, "{sum} of {wall}");
        }
    }
    assert_eq!((of("rm", 3).n, of("rm_floor", 3).n), (2, 2));
    assert!(bench.measures.iter().all(|m| m.name != "rm" || m.existing == 3), "of nothing nothing is removed");
    let against: Vec<(&str, u32)> = bench.against.iter().map(|c| (c.measure.as_str(), c.existing)).collect();
    let expected = [("no_seed.create", 0), ("no_seed.create", 3), ("cp_sparse", 0), ("cp_sparse", 3), ("rm_floor", 3)];
    assert_eq!(against, expected);
    assert!(bench.against.iter().all(|c| c.low.unwrap() <= c.ratio && c.ratio <= c.high.unwrap()));
    assert_nothing_left(&sandbox);
    assert_eq!(children(&sandbox.state("machines")), Vec::<PathBuf>::new());
}

#[test]
fn another_directory_is_left_as_it_was() {
    let sandbox = sandbox();
    let dir = sandbox.path("elsewhere");
    std::fs::create_dir(&dir).unwrap();
    bench(&sandbox, &["create", "--fake-vmm", "--runs", "1", "--dir", dir.to_str().unwrap()]).ok();
    assert_eq!(children(&dir), Vec::<PathBuf>::new());
    assert_nothing_left(&sandbox);
}

/// Waits until it measures.
fn begun(sandbox: &Sandbox, args: &[&str]) -> Child {
    let events = sandbox.path("events");
    let child = command(sandbox, args).env("BG_EVENTS", &events).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !std::fs::read_to_string(&events).unwrap_or_default().contains(r#""stage":"clone_root""#) {
        assert!(Instant::now() < deadline, "it did not begin");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    child
}

#[test]
fn a_signal_ends_it_with_its_vms() {
    let sandbox = sandbox();
    let child = begun(&sandbox, &["create", "--fake-vmm", "--runs", "1000", "--existing", "2"]);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    finish(child, b"").failed_with(Code::Terminated);
    assert_nothing_left(&sandbox);
}

#[test]
fn what_cannot_be_measured_is_refused_with_what_to_type() {
    let sandbox = sandbox();
    let refused = |args: &[&str], code, hint: &str| {
        let e = bench(&sandbox, args).failed_with(code);
        assert!(e.hint.clone().unwrap_or_default().contains(hint), "{args:?}: {e:?}");
        assert_nothing_left(&sandbox);
    };
    refused(&["create", "--fake-vmm", "--against", "qemu"], Code::Usage, "leave one out");
    refused(&["create", "--existing", "3"], Code::Usage, "--fake-vmm");
    refused(&["create", "--against", "xen"], Code::Usage, "");
    refused(&["create", "--image", "debain", "--fake-vmm"], Code::NotFound, "debian");
    let elsewhere = sandbox.path("empty");
    std::fs::create_dir(&elsewhere).unwrap();
    let mut without = command(&sandbox, &["create", "--against", "debvm"]);
    let e = finish(without.env("PATH", &elsewhere).spawn().unwrap(), b"").failed_with(Code::MissingProgram);
    assert!(e.hint.as_deref() == Some("apt-get install debvm"), "{e:?}");
}

#[test]
fn two_documents_are_compared() {
    let sandbox = sandbox();
    let text = bench(&sandbox, &["create", "--fake-vmm", "--runs", "5"]).ok();
    let mut slower: Bench = strict(&text).unwrap();
    for m in &mut slower.measures {
        m.samples.iter_mut().for_each(|sample| *sample *= 100.0);
    }
    let file = |name: &str, text: &str| {
        std::fs::write(sandbox.path(name), text).unwrap();
        sandbox.path(name).display().to_string()
    };
    let (a, b) = (file("a", &text), file("b", &lib_common::doc::to_json(&slower)));
    let same = bench(&sandbox, &["compare", &a, &a, "--measure", "create", "--fail-above", "1.05"]);
    let diff: BenchDiff = strict(&same.ok()).unwrap();
    assert_eq!((diff.ok, diff.measures.len(), diff.measures[0].ratio), (true, 1, 1.0));
    let worse = bench(&sandbox, &["compare", &a, &b, "--fail-above", "1.05"]);
    let diff: BenchDiff = strict(&worse.text()).unwrap();
    let created = diff.measures.iter().find(|m| m.name == "create").unwrap();
    assert_eq!((worse.exit, created.judged, created.ok, created.ratio), (1, true, false, 100.0));
    bench(&sandbox, &["compare", &a, &b]).ok();
    let e = bench(&sandbox, &["compare", &a, &b, "--measure", "creat"]).failed_with(Code::NotFound);
    assert!(e.hint.unwrap().contains("create_exit"));
    for m in &mut slower.measures {
        m.samples.clear();
    }
    let none = file("none", &lib_common::doc::to_json(&slower));
    let e = bench(&sandbox, &["compare", &a, &none]).failed_with(Code::BadDocument);
    assert!(e.hint.unwrap().contains("--samples"));
    bench(&sandbox, &["compare", &a, &file("junk", "{}")]).failed_with(Code::BadDocument);
}
