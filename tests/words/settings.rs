//! Settings by variables: a program that is not there, and a variable that nothing reads.

use crate::running::World;
use crate::support::{Sandbox, fixture};
use lib_common::error::Code;

#[test]
fn a_program_that_is_not_there_is_told_with_the_variable_that_names_it() {
    let world = World::new(&["dev"]);
    for variable in ["BG_QEMU", "BG_VHOST_DEVICE_VSOCK", "BG_FIRECRACKER"] {
        let mut command = world.command("bg-vm", &["create", "new", "--work-size", fixture::WORK]);
        if variable == "BG_FIRECRACKER" {
            command.args(["--vmm", "firecracker"]);
        }
        let child = command.env(variable, "/nope").spawn().unwrap();
        let error = crate::support::finish(child, b"").failed_with(Code::MissingProgram);
        assert!(error.message.starts_with(&format!("{variable} names /nope")), "{error:?}");
        assert!(error.hint.as_deref().is_some_and(|hint| hint.contains(&format!("unset {variable}"))), "{error:?}");
    }
    let child = world.command("bg-doctor", &[]).env("BG_QEMU", "/nope").spawn().unwrap();
    let done = crate::support::finish(child, b"");
    assert!(done.text().contains("BG_QEMU names /nope"), "{done:?}");
}

#[test]
fn a_program_that_the_file_names_is_told_with_the_file() {
    let world = World::new(&["dev"]);
    let dir = world.sandbox.path("home/.config/banger");
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("config.toml");
    std::fs::write(&file, "vhost_device_vsock = '/nope'\n").unwrap();
    let mut command = world.command("bg-vm", &["start", "dev"]);
    let error = crate::support::finish(command.env_remove("BG_VHOST_DEVICE_VSOCK").spawn().unwrap(), b"")
        .failed_with(Code::MissingProgram);
    let said = format!("`vhost_device_vsock` in {} names /nope", file.display());
    assert!(error.message.starts_with(&said), "{error:?}");
}

#[test]
fn a_guest_agent_that_is_not_there_is_told_with_its_variable() {
    let sandbox = Sandbox::new();
    let child = sandbox.command("bg-kernel", &["build"]).env("BG_GUEST_AGENT", "/nope").spawn().unwrap();
    let error = crate::support::finish(child, b"").failed_with(Code::MissingFile);
    assert!(error.message.contains("BG_GUEST_AGENT"), "{error:?}");
}

#[test]
fn a_variable_that_nothing_reads_is_a_remark_with_the_nearest_one() {
    let sandbox = Sandbox::new();
    let run = |tool: &str, args: &[&str], variable: &str| {
        let child = sandbox.command(tool, args).env(variable, "2G").spawn().unwrap();
        crate::support::finish(child, b"")
    };
    let done = run("bg-vm", &["ls"], "BG_MEMMORY");
    assert_eq!((done.exit, done.text().as_str()), (0, ""));
    assert_eq!(done.stderr, "bg-vm: BG_MEMMORY is no setting of banger; did you mean BG_MEMORY?\n");
    assert!(run("bg-vm", &["ls"], "BG_QQ").stderr.contains("bg-doctor --print-config"));
    for known in ["BG_TEST_ANYTHING", "BG_UPDATE", "BG_BENCH_RUNS"] {
        assert_eq!(run("bg-vm", &["ls"], known).stderr, "", "{known}");
    }
    // ssh calls it, in the middle of somebody's session.
    let done = run("bg-ssh", &["--known-hosts", "dev"], "BG_MEMMORY");
    assert_eq!(done.stderr.lines().count(), 1, "{done:?}");
    done.failed_with(Code::NotFound);
}
