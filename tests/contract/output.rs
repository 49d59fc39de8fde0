//! Stdout and stderr: documents or nothing, an `Error` document at the end of every failure, a reader that is gone.

use super::FILTERS;
use crate::support::fixture;
use crate::support::{NoArgs, Sandbox, TOOLS, Terminals, finish};
use lib_common::error::Code;
use lib_tools::cli::{Answer, Context};
use std::process::Stdio;

#[test]
fn a_command_line_that_cannot_be_understood_is_64_with_a_hint() {
    let cases: &[(&str, &[&str], &str)] = &[
        ("bg-vm", &[], "a verb is needed"),
        ("bg-image", &[], "a verb is needed"),
        ("bg-seed", &[], "a verb is needed"),
        ("bg-vm", &["strat"], "strat"),
        ("bg-vm", &["plan"], "required"),
        ("bg-vm", &["plan", "a", "--vcpu", "0"], "1 to 32"),
        ("bg-vm", &["plan", "a", "--memory", "100"], "MiB"),
        ("bg-vm", &["plan", "a", "--work-size", "8GB"], "8GB"),
        ("bg-vm", &["plan", "a", "--vmm", "bochs"], "bochs"),
        ("bg-vm", &["stop", "a", "--timeout", "-1"], "-1"),
        ("bg-vm", &["rm", "a", "--file", "b"], "cannot be used with"),
        ("bg-vm", &["ls", "--output", "yaml"], "yaml"),
        ("bg-vm", &["ports", "--output", "yaml"], "yaml"),
        ("bg-ssh", &["dev", "--via", "wifi"], "auto, tap, vsock"),
        ("bg-ssh", &["--stdio"], "required"),
        ("bg-ssh", &["--stdio", "--fdpass", "dev"], "cannot be used with"),
        ("bg-ssh", &["--known-hosts", "dev", "--", "true"], "cannot be used with"),
        ("bg-ssh", &["--config", "dev"], "cannot be used with"),
        ("bg-ssh", &["dev.example"], "not a name"),
        ("bg-image", &["rm"], "required"),
        ("bg-image", &["diff", "a"], "required"),
        ("bg-image", &["diff", "a", "B"], "not a name"),
        ("bg-image", &["verify", "a", "--timeout", "soon"], "soon"),
        ("bg-seed", &["check", "a", "--vm", "b"], "cannot be used with"),
        ("bg-register", &["--nmae", "a"], "--nmae"),
        ("bg-bench", &[], "a verb is needed"),
        ("bg-bench", &["tap", "--runs", "0"], "1.."),
        ("bg-bench", &["tap", "--devices", "1,1001"], "1001"),
        ("bg-tap", &[], "a verb is needed"),
        ("bg-tap", &["pool"], "a verb is needed"),
        ("bg-tap", &["up", "--subnet", "172.16.225.9/20"], "172.16.224.0/20"),
        ("bg-tap", &["up", "--subnet", "10.0.0.0/8"], "18 to 29"),
        ("bg-tap", &["release", "dev", "--tap", "tap-pool-1"], "cannot be used with"),
        ("bg-tap", &["acquire", "--owner", "no-such-user"], "no-such-user"),
        ("bg-verify", &["extra"], "extra"),
        ("bg-gc", &["--dry"], "--dry"),
        ("bg-doctor", &["--command-line", "quiet"], "--image"),
        ("bg-doctor", &["--image", "a", "--print-config"], "cannot be used with"),
        ("bg-doctor", &["--image", "A"], "not a name"),
    ];
    for (tool, args, word) in cases {
        let sandbox = Sandbox::new();
        let doc = sandbox.run(tool, args, "").failed_with(Code::Usage);
        assert!(format!("{doc:?}").contains(word), "{tool} {args:?}: {doc:?}");
        assert!(doc.hint.is_some(), "{tool} {args:?}: {doc:?}");
        sandbox.assert_untouched(tool);
    }
}

#[test]
fn a_wrong_setting_is_78_and_says_where_it_stands() {
    for (tool, _) in TOOLS.iter().filter(|(tool, _)| *tool != "bg-shim") {
        let sandbox = Sandbox::new();
        let args: &[&str] = match *tool {
            "bg-vm" | "bg-image" | "bg-tap" => &["ls"],
            "bg-bench" => &["tap"],
            "bg-seed" => &["check"],
            "bg-kernel" => &["build"],
            "bg-rootfs" => &["build", "--distro", "debian"],
            _ => &[],
        };
        let child = sandbox.command(tool, args).env("BG_MEMORY", "1000").spawn().unwrap();
        let doc = finish(child, b"").failed_with(Code::BadConfig);
        assert!(doc.message.contains("BG_MEMORY"), "{tool}: {doc:?}");
        sandbox.assert_untouched(tool);
    }
}

#[test]
fn a_setting_that_does_not_exist_is_78_and_the_nearest_is_named() {
    let sandbox = Sandbox::new();
    let dir = sandbox.path("home/.config/banger");
    std::fs::create_dir_all(&dir).unwrap();
    for (text, words) in [
        ("memmory = \"2G\"\n", ["memmory", "did you mean `memory`?"]),
        ("memory = [1]\n", ["`memory`", "array"]),
        ("memory = \n", ["config.toml", "config.toml"]),
        ("work_size = \"8GB\"\n", ["config.toml", "8GB"]),
    ] {
        std::fs::write(dir.join("config.toml"), text).unwrap();
        let doc = sandbox.run("bg-vm", &["ls"], "").failed_with(Code::BadConfig);
        assert!(words.iter().all(|word| format!("{doc:?}").contains(word)), "{text}: {doc:?}");
    }
    std::fs::write(dir.join("config.toml"), "vcpu = 4\n").unwrap();
    fixture::register(&sandbox, "debian");
    assert_eq!(sandbox.run("bg-vm", &["plan", "dev"], "").json()["spec"]["vcpu"], 4);
}

#[test]
fn a_stdout_that_nobody_reads_is_74() {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "debian");
    fixture::create(&sandbox, "dev");
    std::fs::create_dir(sandbox.state("machines/half")).unwrap();
    for (tool, args) in [
        ("bg-vm", &["--help"][..]),
        ("bg-vm", &["--version"]),
        ("bg-vm", &["plan", "new"]),
        ("bg-vm", &["ls", "--output", "json"]),
        ("bg-vm", &["ls", "--output", "table"]),
        ("bg-vm", &["show", "dev"]),
        ("bg-image", &["show"]),
        ("bg-image", &["default", "debian"]),
        ("bg-image", &["diff", "debian", "debian"]),
        ("bg-image", &["diff", "debian", "debian", "--output", "table"]),
        ("bg-image", &["reconcile", "debian"]),
        ("bg-verify", &["--now"]),
        ("bg-ssh", &["--config"]),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = sandbox.command(tool, args).stdout(writer).spawn().unwrap();
        let doc = finish(child, b"").failed_with(Code::ClosedStdout);
        assert_eq!(doc.message, "nobody reads the output", "{tool} {args:?}");
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let child = sandbox.command(tool, args).stdout(full).spawn().unwrap();
        finish(child, b"").failed_with(Code::Io);
    }
}

#[test]
fn a_stderr_that_nobody_reads_changes_no_status() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let sandbox = Sandbox::new();
    let done = finish(sandbox.command("bg-vm", &["show", "dev"]).stderr(writer).spawn().unwrap(), b"");
    assert_eq!((done.exit, done.stdout.len()), (64, 0));
}

#[test]
fn no_stdin_at_all_is_an_empty_one() {
    for filter in FILTERS {
        let sandbox = Sandbox::new();
        let done = finish(sandbox.command(filter.tool, filter.args).stdin(Stdio::null()).spawn().unwrap(), b"");
        assert_eq!((done.exit, done.stderr.as_str()), (66, ""), "{}", filter.label());
    }
}

#[test]
fn a_panic_is_a_bug_that_still_ends_as_an_error_document() {
    fn panics(_: NoArgs, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
        cx.emit_line("{}");
        panic!("of two lines,\nthis one too")
    }
    let sandbox = Sandbox::new();
    let doc = sandbox.inside(panics, b"", Terminals::default()).failed_with(Code::Internal);
    assert_eq!(doc.exit, 70);
    let causes = doc.causes.join("");
    assert!(causes.contains("output.rs") && causes.contains("this one too"), "where, and what: {doc:?}");
    let fine = sandbox.inside(|_, _| Ok(Answer::Done), b"", Terminals::default());
    assert_eq!((fine.exit, fine.stderr.as_str()), (0, ""));
}

#[test]
fn removing_what_is_gone_is_done_already() {
    let sandbox = Sandbox::new();
    for _ in 0..2 {
        assert_eq!(sandbox.run("bg-vm", &["rm", "never", "there"], "").ok(), "");
        assert_eq!(sandbox.run("bg-image", &["rm", "never", "there"], "").ok(), "");
    }
    fixture::register(&sandbox, "debian");
    let doc = fixture::create(&sandbox, "dev").text();
    for args in [&["rm", "dev"][..], &["rm", "dev", "--force"], &["rm"]] {
        assert_eq!(sandbox.run("bg-vm", args, &doc).ok(), "");
        assert!(!sandbox.state("machines/dev").exists());
    }
    for _ in 0..2 {
        assert_eq!(sandbox.run("bg-image", &["rm", "debian"], "").ok(), "");
    }
    assert_eq!(sandbox.findings(&["--now"]), Vec::<serde_json::Value>::new());
    assert_eq!(sandbox.staged(), Vec::<std::path::PathBuf>::new());
}
