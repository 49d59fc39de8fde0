//! Names that are none: refused wherever one can be given, before anything is read, made or started.

use crate::contract::FILTERS;
use crate::running::World;
use crate::support::fixture::{self, Files};
use crate::support::{Done, Sandbox, finish};
use lib_common::doc::{Kind, Name};
use std::os::unix::fs::PermissionsExt;

fn bad_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "-rf",
        "--help",
        "-",
        ".",
        "..",
        "../a",
        "a/b",
        "/etc",
        "a\nb",
        "a\n",
        " a",
        "a b",
        "a\u{1b}[2J",
        "a\u{7f}",
        "\u{e9}",
        "\u{202e}a",
        "\u{430}",
        "A",
        "a_b",
        "a.b",
        "a%h",
        "${HOME}",
        "$(id)",
        "a;id",
        "a,b",
        "*",
        "-oProxyCommand=id",
        "a-",
    ]
    .map(str::to_owned)
    .into();
    names.extend(["x".repeat(64), "x".repeat(300)]);
    names
}

/// Where a name stands on a command line: `{}` is where.
const PLACES: &[(&str, &[&str])] = &[
    ("bg-vm", &["plan", "{}"]),
    ("bg-vm", &["plan", "new", "--image={}"]),
    ("bg-vm", &["create", "{}"]),
    ("bg-vm", &["create", "new", "--image={}"]),
    ("bg-vm", &["start", "{}"]),
    ("bg-vm", &["stop", "{}"]),
    ("bg-vm", &["restart", "{}"]),
    ("bg-vm", &["kill", "{}"]),
    ("bg-vm", &["rm", "--force", "{}"]),
    ("bg-vm", &["rm", "dev", "{}"]),
    ("bg-vm", &["show", "{}"]),
    ("bg-vm", &["logs", "{}"]),
    ("bg-vm", &["stats", "{}"]),
    ("bg-vm", &["ports", "{}"]),
    ("bg-health", &["{}"]),
    ("bg-ssh", &["{}"]),
    ("bg-ssh", &["--stdio", "{}"]),
    ("bg-ssh", &["--fdpass", "{}"]),
    ("bg-ssh", &["--known-hosts", "{}"]),
    ("bg-seed", &["build", "{}"]),
    ("bg-seed", &["check", "{}"]),
    ("bg-seed", &["check", "--vm={}"]),
    ("bg-tap", &["release", "{}"]),
    ("bg-register", &["--name={}"]),
    ("bg-image", &["show", "{}"]),
    ("bg-image", &["rm", "{}"]),
    ("bg-image", &["default", "{}"]),
    ("bg-image", &["verify", "{}"]),
    ("bg-image", &["diff", "{}", "debian"]),
    ("bg-image", &["diff", "debian", "{}"]),
    ("bg-image", &["reconcile", "{}"]),
    ("bg-image", &["bundle", "{}"]),
    ("bg-image-build", &["--base={}"]),
    ("bg-doctor", &["--image={}"]),
];

/// Where no program but ours is found, and what stands for each of the others notes that it was called.
struct Alone {
    sandbox: Sandbox,
}

impl Alone {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let bin = sandbox.path("bin");
        std::fs::create_dir(&bin).unwrap();
        for program in
            ["ssh", "mke2fs", "e2fsck", "mmdebstrap", "qemu-system-x86_64", "vhost-device-vsock", "cp", "tar"]
        {
            let path = bin.join(program);
            let called = sandbox.path("called").display().to_string();
            std::fs::write(&path, format!("#!/bin/sh\necho \"$0 $*\" >> '{called}'\nexit 1\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        Alone { sandbox }
    }

    fn run(&self, tool: &str, args: &[&str], stdin: &str) -> Done {
        let mut command = self.sandbox.command(tool, args);
        finish(command.env("PATH", self.sandbox.path("bin")).spawn().unwrap(), stdin.as_bytes())
    }

    #[track_caller]
    fn assert_untouched(&self, what: &str) {
        assert!(
            !self.sandbox.path("called").exists(),
            "{what}: {:?}",
            std::fs::read_to_string(self.sandbox.path("called"))
        );
        self.sandbox.assert_untouched(what);
    }
}

#[test]
fn what_is_no_name_is_refused_on_every_command_line() {
    let alone = Alone::new();
    for name in bad_names() {
        assert!(Name::parse(&name).is_err(), "{name:?}");
        for (tool, args) in PLACES {
            // `bg-ssh` takes `NAME.vm` where ssh calls it; `-` is stdin to some; `--help` is no name, but an option.
            let args: Vec<String> = args.iter().map(|arg| arg.replace("{}", &name)).collect();
            // What has a slash is a file to `diff`.
            let is_file = args[0] == "diff" && name.contains('/');
            if is_file
                || name == "--help" && args.contains(&name)
                || name == "-" && args.iter().any(|a| a == "--base=-")
            {
                continue;
            }
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let done = alone.run(tool, &args, "");
            let what = format!("{tool} {args:?}");
            assert_eq!(done.exit, 64, "{what}: {done:?}");
            let raw = |c: char| c.is_control() && c != '\n';
            assert!(!done.stderr.contains(raw) && done.stderr.lines().count() == 1, "{what}: {done:?}");
            assert_eq!(done.failed().code, "usage", "{what}");
        }
    }
    alone.assert_untouched("names");
}

/// The document with each of its names in turn replaced by another text.
fn spoilt(doc: &serde_json::Value, kind: Kind, name: &str) -> Vec<(String, &'static str)> {
    let places: &[&str] = match kind {
        Kind::Image => &["/name"],
        Kind::Machine => &["/name", "/spec/image", "/image/name"],
    };
    let spoil = |place: &&'static str| {
        let mut doc = doc.clone();
        *doc.pointer_mut(place).unwrap() = name.into();
        (doc.to_string(), *place)
    };
    places.iter().map(spoil).collect()
}

#[test]
fn what_is_no_name_is_refused_in_every_document() {
    let source = Sandbox::new();
    let mut image = Files::new(&source, "a").document();
    image["name"] = "a".into();
    fixture::register(&source, "debian");
    let machine = serde_json::from_str(&fixture::plan(&source, "dev")).unwrap();
    let alone = Alone::new();
    for name in bad_names() {
        for filter in FILTERS.iter().filter(|f| !matches!(f.tool, "bg-rootfs" | "bg-image-build")) {
            let doc = if filter.kind == Kind::Image { &image } else { &machine };
            for (text, place) in spoilt(doc, filter.kind, &name) {
                let done = alone.run(filter.tool, filter.args, &text);
                let what = format!("{}: {place}: {name:?}: {done:?}", filter.label());
                // Who needs no section of the document does not read it; the VM is not there.
                if place == "/name" && filter.kind == Kind::Machine {
                    assert_eq!(done.failed().code, "bad_document", "{what}");
                }
                assert!(!done.stderr.contains(|c: char| c.is_control() && c != '\n'), "{what}");
                assert!(done.exit < 2 || done.failed().code != "internal", "{what}");
            }
        }
    }
    let called = std::fs::read_to_string(alone.sandbox.path("called")).unwrap_or_default();
    for name in bad_names().iter().filter(|n| n.len() > 3) {
        assert!(!called.contains(name.as_str()), "{name:?} reached a program: {called}");
    }
}

#[test]
fn what_is_no_name_is_refused_in_a_record_and_in_the_store() {
    let world = World::new(&["dev"]);
    let sandbox = &world.sandbox;
    let record = sandbox.state("machines/dev/machine.json");
    let good = std::fs::read_to_string(&record).unwrap();
    for name in bad_names() {
        let doc: serde_json::Value = serde_json::from_str(&good).unwrap();
        for (text, place) in spoilt(&doc, Kind::Machine, &name) {
            std::fs::write(&record, &text).unwrap();
            let failed = world.vm(&["start", "dev"], "").failed();
            assert_eq!(failed.code, "bad_document", "{place}: {name:?}: {failed:?}");
        }
        std::fs::write(&record, &good).unwrap();
        std::fs::write(sandbox.state("default-image"), &name).unwrap();
        // A line feed at its end, and blanks, are not part of the name there.
        if Name::parse(name.trim()).is_err() {
            let failed = sandbox.run("bg-vm", &["plan", "new"], "").failed();
            assert_eq!(failed.code, "bad_document", "{name:?}: {failed:?}");
        }
        std::fs::remove_file(sandbox.state("default-image")).unwrap();
    }
    // A directory of such a name is nobody's VM, and does not hide one.
    for name in bad_names().iter().filter(|n| !n.contains('/') && !n.starts_with('.') && n.len() < 256) {
        std::fs::create_dir(sandbox.state("machines").join(name)).unwrap();
    }
    assert_eq!(sandbox.run("bg-vm", &["ls"], "").json()["name"], "dev");
    let told = sandbox.run("bg-verify", &["--now"], "").text();
    assert!(!told.contains(|c: char| c < ' ' && c != '\n'), "{told:?}");
}
