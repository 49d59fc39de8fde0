//! The audit and what acts on it: what `bg-verify` finds, what `bg-gc` will not touch, and that nobody follows a link or takes
//! what is another user's in our directories.

#![allow(clippy::disallowed_types)]

mod finds;
mod fixes;
mod gc;
mod hostile;
mod lost;
mod namespaces;
mod secrets;

use crate::support::fixture;
use crate::support::{Sandbox, is_of_network};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

/// A store with the image `debian` and the stopped VM `dev`.
fn store() -> Sandbox {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "debian");
    fixture::create(&sandbox, "dev");
    assert_eq!(sandbox.findings(&["--now"]), Vec::<Value>::new());
    sandbox
}

/// What findings say to type begins with one of these, or with the directory that a tool is to look at.
const COMMANDS: &str = "bg-gc bg-image bg-tap bg-verify bg-vm cat cp grep ip losetup ls ps rm sudo umount";

/// Says of each finding that its `fix` is a command that a shell takes as it is.
pub fn assert_can_be_pasted(findings: &[Value]) {
    for finding in findings {
        let fix = finding["fix"].as_str().unwrap();
        let command = fix.split(' ').next().unwrap();
        let is_known = COMMANDS.split(' ').any(|known| known == command)
            || ["BG_STATE_DIR=", "BG_NET_DIR="].iter().any(|dir| fix.starts_with(dir));
        let parses = Command::new("sh").args(["-n", "-c", fix]).status().unwrap().success();
        assert!(is_known && parses, "{finding}");
    }
}

/// `bg-gc --now` of these findings; what it removed.
fn collect(sandbox: &Sandbox, findings: &[Value]) -> Vec<Value> {
    assert_can_be_pasted(&findings.iter().filter(|f| f["evidence"] != "by hand").cloned().collect::<Vec<_>>());
    let list: String = findings.iter().map(|f| format!("{f}\n")).collect();
    let done = sandbox.run("bg-gc", &["--now"], list);
    done.ok();
    done.documents().into_iter().filter(|f| !is_of_network(f)).collect()
}

/// A finding that somebody has written by hand.
fn by_hand(kind: &str, id: &str) -> Value {
    serde_json::json!({
        "api_version": "banger/v1", "kind": kind, "id": id, "owner": "", "age_ms": 1_000_000,
        "evidence": "by hand", "is_leak": true, "fix": "",
    })
}

/// Makes a file or directory older than whatever is spared for being young.
fn make_old(path: &Path) {
    std::fs::File::open(path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(600)).unwrap();
}

/// Whether tests may give files to others; says which one did not run where they may not.
fn may_chown(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        crate::support::not_run(test, "it takes root to give a file to somebody else");
    }
    root
}
