//! The README's commands, taken from its text, in its order: as root in a network namespace, and as an ordinary user who has never
//! used banger, on a suite that `make install` has installed.

#![allow(clippy::disallowed_types)]

use super::world::World;
use crate::support::Done;
use crate::support::fresh::Fresh;
use crate::support::netns::Namespace;
use crate::support::source::text;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Commands that are not run, by what they have in them, and why.
const LEFT_OUT: [(&str, &str); 3] = [
    ("make demo", "CI runs it"),
    ("make test", "this test is a part of it"),
    ("bg-ssh dev", "a shell on a terminal: vm::ssh and vm::customize have one"),
];

/// Commands that take a minute each, by what they have in them: only `BG_TEST_FULL=1` runs them, as `make test-image-build` does.
/// `vm::image_build` and `vm::image` test the same without the README.
const SLOW: [&str; 3] = ["bg-image-build ", "bg-image verify ", "bg-image diff "];

/// What stands in place of words of the README, and why.
const INSTEAD: [(&str, &str, &str); 4] = [
    ("@dev", "tree", "ten minutes and a gigabyte: make test-dev-image"),
    ("rsync,git,curl", "file", "a minute of downloads: the package's name is all that differs"),
    ("--wait 60", "--wait 240", "guests are emulated, on a busy machine"),
    ("pipelines/", "$LIBEXEC/pipelines/", "where make install puts them"),
];

/// Commands whose answer is no, and their status.
const ANSWERS_NO: [(&str, i32); 1] = [("bg-image diff ", 1)];

/// A command of the README and what it shows of its output.
#[derive(Debug)]
struct Step {
    command: String,
    shown: Vec<String>,
}

/// The commands of the fenced blocks below a heading. A block whose lines begin with a prompt (`$`, or root's `#`) shows output, too; in
/// any other block each line is a command.
fn steps(readme: &str, heading: &str) -> Vec<Step> {
    let from = readme.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("README has no section {heading}"));
    let section = &readme[from + 4..];
    let section = &section[..section.find("\n## ").unwrap_or(section.len())];
    let mut steps: Vec<Step> = vec![];
    for block in section.split("```").skip(1).step_by(2) {
        let lines = || block.lines().filter(|line| !line.is_empty());
        let prompt = |line: &str| line.strip_prefix("$ ").or(line.strip_prefix("# ")).map(str::to_owned);
        let has_prompts = lines().any(|line| prompt(line).is_some());
        for line in lines() {
            match (has_prompts, prompt(line)) {
                (true, None) => steps.last_mut().expect("output follows a command").shown.push(line.to_owned()),
                (_, command) => steps.push(Step { command: command.unwrap_or(line.to_owned()), shown: vec![] }),
            }
        }
    }
    let full = std::env::var_os("BG_TEST_FULL").is_some_and(|v| v == "1");
    steps.retain(|step| !LEFT_OUT.iter().any(|(what, _)| step.command == *what));
    steps.retain(|step| full || !SLOW.iter().any(|what| step.command.contains(what)));
    steps
}

/// One script of all of them, which stops at the first that ends otherwise than the README says.
fn script(steps: &[Step]) -> String {
    let mut script = String::new();
    for (n, step) in steps.iter().enumerate() {
        let mut command = step.command.clone();
        for (what, other, _) in INSTEAD {
            command = command.replace(what, other);
        }
        let fails = step.shown.iter().any(|line| line.contains(": error: "));
        let expected = match ANSWERS_NO.iter().find(|(what, _)| step.command.starts_with(what)) {
            Some((_, status)) => format!("-eq {status}"),
            None if fails => "-ne 0".to_owned(),
            None => "-eq 0".to_owned(),
        };
        script += &format!("echo '@@ {n}'\n{command}\nstatus=$?; echo \"$SECONDS s: step {n}: $status\" >&2\n");
        script += &format!("[ $status {expected} ] || exit 99\n");
    }
    script
}

/// Says that each step ended as the README says, and printed the words that it shows: lines of small letters, not versions and times.
#[track_caller]
fn compare(steps: &[Step], done: &Done) {
    assert_eq!(done.exit, 0, "{steps:#?}\n{}\n{}", done.text(), done.stderr);
    let text = done.text();
    let printed: Vec<&str> = text.split("@@ ").skip(1).collect();
    for (step, printed) in steps.iter().zip(printed) {
        let words = |line: &&String| line.chars().all(|c| c.is_ascii_lowercase() || c == ' ');
        for line in step.shown.iter().filter(words) {
            assert!(printed.lines().any(|l| l == line), "{}: no `{line}` in {printed}", step.command);
        }
    }
}

/// Runs the commands, removes the VMs that they leave, whatever went wrong, and says that nothing else is left.
#[track_caller]
fn run_all(steps: &[Step], run: impl Fn(&str) -> Done) {
    let done = run(&script(steps));
    run("bg-vm ls --output json | jq -r .name | xargs -r bg-vm rm --force; [ $(id -u) -ne 0 ] || bg-tap down");
    compare(steps, &done);
    assert_eq!(run("bg-verify --now").ok(), "");
}

/// Gives the user what is built already, as if he had built it: the kernel, the Debian root and its seeds, in his own cache.
fn copy_cache(world: &World, fresh: &Fresh) {
    let image: Value = serde_json::from_str(&world.build(&["--distro", "debian"])).unwrap();
    let files = [&image["kernel"]["vmlinux"], &image["rootfs"]["path"], &image["seed"]["sizes"][0]["path"]];
    let dirs: Vec<&Path> = files.iter().map(|file| Path::new(file.as_str().unwrap()).parent().unwrap()).collect();
    let cache = dirs[0].ancestors().nth(2).unwrap();
    let own = fresh.home().join(".cache/banger");
    for dir in &dirs {
        let kind = own.join(dir.strip_prefix(cache).unwrap().parent().unwrap());
        std::fs::create_dir_all(&kind).unwrap();
        assert!(Command::new("cp").args(["-a", "--sparse=always"]).args([*dir, &kind]).status().unwrap().success());
    }
    // Records name their files.
    for record in ["kernel", "rootfs"] {
        let line = "grep -rlF --include '*.json' \"$1\" \"$2\" | xargs -r sed -i \"s#$1#$3#g\"";
        let mut command = Command::new("sh");
        command.args(["-c", line, "sh"]).arg(cache).arg(own.join(record)).arg(&own);
        assert!(command.status().unwrap().success());
    }
    fresh.own_home();
}

#[test]
fn its_commands_work_for_an_ordinary_user() {
    let test = "its_commands_work_for_an_ordinary_user";
    // Of real guests there is one at a time.
    let world = World::new();
    let Some(fresh) = Fresh::new(test) else { return };
    copy_cache(&world, &fresh);
    let readme = text("README.md");
    let mut all = steps(&readme, "A first VM");
    all.extend(steps(&readme, "An image of one's own"));
    // Those with root's prompt need root.
    all.extend(steps(&readme, "A network").into_iter().filter(|step| step.command.starts_with("pipelines/")));
    assert!(all.len() > 15, "{all:?}");
    run_all(&all, |line| fresh.run(line));
}

#[test]
fn its_commands_work_for_root() {
    let test = "its_commands_work_for_root";
    let Some(netns) = Namespace::new(test) else { return };
    // Something to the world behind it, for a VM with `--nat`.
    let Some(_internet) = netns.uplink(test, &["198.51.100.1"]) else { return };
    let world = World::new();
    let Some(fresh) = Fresh::new(test) else { return };
    let readme = text("README.md");
    // Up to the user's own ssh, which reads the home directory of the passwd database; what is below is the same for root.
    let first = steps(&readme, "A first VM").into_iter().take_while(|step| !step.command.contains("~/.ssh"));
    let network = steps(&readme, "A network").into_iter().filter(|step| !step.command.starts_with("pipelines/"));
    let all: Vec<Step> = first.chain(network).collect();
    assert!(all.len() > 10, "{all:?}");
    let run = |line: &str| -> Done {
        let mut command = fresh.as_root(&netns, line);
        let state = world.path().join("root");
        command
            .env("BG_STATE_DIR", &state)
            .env("BG_RUNTIME_DIR", state.join("run"))
            .env("BG_NET_DIR", state.join("net"));
        command.output().unwrap().into()
    };
    run_all(&all, run);
}
