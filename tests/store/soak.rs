//! Thousands of lives beside one VM that lives through all of them: nothing grows, and everything is as it was.

use super::{NONE, Place, World, is_full};
use lib_common::sys::process::{all_pids, cmdline, rss_bytes};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a life may not leave behind.
#[derive(Debug, PartialEq)]
struct Footprint {
    /// By pid: arguments, descriptors, and namespaces of each process of this world.
    processes: BTreeMap<i32, (Vec<String>, Vec<PathBuf>, Vec<PathBuf>)>,
    links: Vec<String>,
    rules: String,
    mounts: String,
    /// With their sizes.
    files: BTreeMap<PathBuf, u64>,
    taps: usize,
}

/// Where the links of a directory of /proc lead, sorted.
fn targets(dir: &str) -> Vec<PathBuf> {
    let mut targets: Vec<PathBuf> =
        super::children(Path::new(dir)).iter().filter_map(|link| std::fs::read_link(link).ok()).collect();
    targets.sort();
    targets
}

impl Footprint {
    fn of(world: &World) -> Self {
        let Place::Net(netns) = &world.place else { unreachable!("it was made so") };
        let dir = world.sandbox.path("").display().to_string();
        let of_world = |pid: &i32| cmdline(*pid).iter().any(|arg| arg.contains(&dir));
        let process =
            |pid| (pid, (cmdline(pid), targets(&format!("/proc/{pid}/fd")), targets(&format!("/proc/{pid}/ns"))));
        let mut files = BTreeMap::new();
        walk(&world.sandbox.path(""), &mut files);
        Footprint {
            processes: all_pids().unwrap().into_iter().filter(of_world).map(process).collect(),
            links: netns.links(),
            rules: netns.ok("nft list ruleset"),
            mounts: std::fs::read_to_string(format!("/proc/{}/mountinfo", netns.pid())).unwrap(),
            files,
            taps: world.run("bg-tap", &["ls"], "").documents().len(),
        }
    }
}

fn walk(dir: &Path, files: &mut BTreeMap<PathBuf, u64>) {
    for path in super::children(dir) {
        let meta = path.symlink_metadata().unwrap();
        // A directory's own size is the file system's business; logs and counts of starts are for growing.
        let grows = ["shim.log", "console.log", "runs", "metrics.ndjson"].iter().any(|name| path.ends_with(name));
        files.insert(path.clone(), if meta.is_dir() || grows { 0 } else { meta.len() });
        if meta.is_dir() {
            walk(&path, files);
        }
    }
}

#[test]
fn thousands_of_lives_leave_nothing() {
    let Some(world) = World::with_network("thousands_of_lives_leave_nothing") else { return };
    world.vm(&["create", "stays"]).ok();
    let cycle = || {
        world.vm(&["create", "comes"]).ok();
        world.vm(&["rm", "--force", "comes"]).ok();
    };
    // What there is from the first one on: locks, an idle TAP.
    (0..3).for_each(|_| cycle());
    let before = Footprint::of(&world);
    let resident = || before.processes.keys().map(|pid| rss_bytes(*pid)).collect::<Vec<_>>();
    let memory = resident();
    (0..if is_full() { 2_000 } else { 40 }).for_each(|_| cycle());
    let after = Footprint::of(&world);
    assert_eq!(after, before);
    for (grown, was) in resident().iter().zip(&memory) {
        assert!(*grown <= was + (1 << 20), "{was} bytes have become {grown}: {:?}", before.processes);
    }
    assert_eq!(world.leaks(), NONE);
}
