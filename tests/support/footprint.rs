//! All that a banger has on its host: to compare before and after.

use super::children;
use super::netns::Namespace;
use lib_common::sys::process::{all_pids, cmdline, rss_bytes};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is there of one banger, in its directory and in its network namespace.
#[derive(Debug, PartialEq)]
pub struct Footprint {
    /// By pid.
    processes: BTreeMap<i32, Process>,
    links: Vec<String>,
    rules: String,
    mounts: String,
    /// With their sizes.
    files: BTreeMap<PathBuf, u64>,
}

/// The mounts that a process sees, but for those of roots that mmdebstrap(1) makes for other tests meanwhile.
fn mounts(pid: u32) -> String {
    let all = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    all.lines().filter(|line| !line.contains("/mmdebstrap.")).collect::<Vec<_>>().join("\n")
}

/// What a process has.
#[derive(Debug, PartialEq)]
struct Process {
    arguments: Vec<String>,
    descriptors: Vec<PathBuf>,
    namespaces: Vec<PathBuf>,
}

impl Process {
    fn of(pid: i32) -> Self {
        let targets = |dir| targets(&format!("/proc/{pid}/{dir}"));
        Process { arguments: cmdline(pid).unwrap(), descriptors: targets("fd"), namespaces: targets("ns") }
    }
}

/// Where the links of a directory of /proc lead, sorted.
fn targets(dir: &str) -> Vec<PathBuf> {
    let mut targets: Vec<PathBuf> =
        children(Path::new(dir)).iter().filter_map(|link| std::fs::read_link(link).ok()).collect();
    targets.sort();
    targets
}

impl Footprint {
    /// Of the banger whose directories lie in `dir`.
    pub fn of(dir: &Path, netns: &Namespace) -> Self {
        let name = dir.display().to_string();
        let of_it = |pid: &i32| cmdline(*pid).unwrap().iter().any(|arg| arg.contains(&name));
        let mut files = BTreeMap::new();
        walk(dir, &mut files);
        Footprint {
            processes: all_pids().unwrap().into_iter().filter(of_it).map(|pid| (pid, Process::of(pid))).collect(),
            links: netns.links(),
            rules: netns.ok("nft list ruleset"),
            mounts: mounts(netns.pid()),
            files,
        }
    }

    /// The resident memory of its processes, in bytes.
    pub fn resident(&self) -> Vec<u64> {
        self.processes.keys().map(|pid| rss_bytes(*pid)).collect()
    }

    /// Says that nothing has grown since: no process has a MiB more than it had.
    #[track_caller]
    pub fn assert_is_as(&self, before: &Footprint, memory: &[u64]) {
        assert_eq!(self, before);
        for (grown, was) in self.resident().iter().zip(memory) {
            assert!(*grown <= was + (1 << 20), "{was} bytes have become {grown}: {:?}", self.processes);
        }
    }
}

fn walk(dir: &Path, files: &mut BTreeMap<PathBuf, u64>) {
    for path in children(dir) {
        let meta = path.symlink_metadata().unwrap();
        // A directory's own size is the file system's business; logs and counts of starts are for growing.
        let grows = ["shim.log", "console.log", "runs", "metrics.ndjson"].iter().any(|name| path.ends_with(name));
        files.insert(path.clone(), if meta.is_dir() || grows { 0 } else { meta.len() });
        if meta.is_dir() {
            walk(&path, files);
        }
    }
}
