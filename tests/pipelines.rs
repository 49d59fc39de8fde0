//! Pipelines of the tools in a shell: the leftmost failure is the one that counts, and the only one that speaks.

#![allow(clippy::disallowed_types)]

use crate::support::fixture;
use crate::support::source::root;
use crate::support::{Done, Sandbox, TOOLS};
use lib_common::error::Code;
use std::path::Path;
use std::process::Command;

/// A line of bash with the tools in PATH and `pipelines/lib.sh` at hand.
fn bash(sandbox: &Sandbox, line: &str) -> Done {
    let bin_dir = Path::new(TOOLS[0].1).parent().unwrap();
    let line = format!(". '{}'\n{line}", root("pipelines/lib.sh").display());
    let mut command = Command::new("bash");
    command.args(["-uc", &line]).env_clear().envs(sandbox.env()).current_dir(sandbox.path("home"));
    command.env("PATH", format!("{}:{}", bin_dir.display(), std::env::var("PATH").unwrap()));
    command.output().unwrap().into()
}

#[test]
fn the_leftmost_real_failure_is_the_pipelines_status() {
    let sandbox = Sandbox::new();
    for (statuses, expected) in
        [("0 0 0", 0), ("0 65 66", 65), ("64 66 66", 64), ("66 66", 66), ("0 66 75", 75), ("1 66", 1), ("143 66", 143)]
    {
        assert_eq!(bash(&sandbox, &format!("leftmost {statuses}")).exit, expected, "{statuses}");
    }
}

#[test]
fn in_a_pipe_that_fails_one_tool_speaks() {
    let sandbox = Sandbox::new();
    for (line, tool, code) in [
        ("bg-vm plan dev | bg-seed clone | bg-vm start | bg-health", "bg-vm", Code::NotFound),
        ("echo junk | bg-seed build | bg-register --name a", "bg-seed", Code::BadDocument),
    ] {
        let done = bash(&sandbox, &format!("{line}; leftmost \"${{PIPESTATUS[@]}}\""));
        assert_eq!(done.stderr.lines().count(), 1, "{line}: {}", done.stderr);
        assert_eq!(done.failed_with(code).tool, tool, "{line}");
    }
    sandbox.assert_untouched("pipes that failed");
}

#[test]
fn the_pipeline_that_creates_ends_as_its_first_failure() {
    let sandbox = Sandbox::new();
    let create = root("pipelines/create");
    let usage = bash(&sandbox, &format!("'{}'", create.display()));
    assert!(usage.exit == 64 && usage.stdout.is_empty() && usage.stderr.starts_with("usage: "), "{usage:?}");
    let line = format!("'{}' dev --work-size {}", create.display(), fixture::WORK);
    bash(&sandbox, &line).failed_with(Code::NotFound);
    fixture::register(&sandbox, "debian");
    fixture::create(&sandbox, "dev");
    bash(&sandbox, &line).failed_with(Code::Exists);
    sandbox.run("bg-vm", &["rm", "dev"], "").ok();
    // The VM cannot start: what the pipeline made is gone again.
    let line = format!("BG_QEMU=/bin/false BG_VHOST_DEVICE_VSOCK=/bin/false {line}");
    assert_eq!(bash(&sandbox, &line).failed().exit, 69);
    assert!(!sandbox.state("machines/dev").exists());
    assert_eq!(sandbox.findings(&["--now"]), Vec::<serde_json::Value>::new());
}
