//! Words of other tools, several documents, pipes with a step left out, and a pipeline's help.

use crate::running::World;
use crate::support::fixture;
use crate::support::source::root;
use crate::support::{Sandbox, TOOLS, finish};
use lib_common::cli::slips::VERBS;
use lib_common::error::Code;
use std::process::{Command, Stdio};

fn hint(sandbox: &Sandbox, tool: &str, args: &[&str]) -> String {
    let error = sandbox.run(tool, args, "").failed_with(Code::Usage);
    error.hint.unwrap_or_else(|| panic!("{tool} {args:?}: {}", error.message))
}

#[test]
fn a_wrong_verb_names_what_to_type() {
    let sandbox = Sandbox::new();
    for (line, said) in [
        ("bg-vm ssh dev", "type: bg-ssh dev"),
        ("bg-vm exec dev ls -l", "type: bg-ssh dev ls -l"),
        ("bg-vm list", "type: bg-vm ls"),
        ("bg-vm ps", "type: bg-vm ls"),
        ("bg-vm delete dev", "type: bg-vm rm dev"),
        ("bg-vm remove", "type: bg-vm rm NAME"),
        ("bg-vm destroy dev", "type: bg-vm rm dev"),
        ("bg-vm run dev", "type: bg-vm create dev"),
        ("bg-vm shell dev", "type: bg-ssh dev"),
        ("bg-vm images", "type: bg-image ls"),
        ("bg-vm health dev", "type: bg-health dev"),
        ("bg-vm ip dev", "type: bg-vm hosts"),
        ("bg-vm export dev", "type: bg-image bundle"),
        ("bg-image create", "type: bg-image-build --help"),
        ("bg-image delete debian", "type: bg-image rm debian"),
        ("bg-image remove debian", "type: bg-image rm debian"),
        ("bg-tap list", "type: bg-tap ls"),
        ("bg-tap pool list", "type: bg-tap pool ls"),
        ("bg-seed create", "type: bg-seed build --help"),
        ("bg-vm ls --json", "--output json"),
        ("bg-verify --json", "JSON already"),
        ("bg-vm create dev --cpus 2", "type --vcpu N"),
        ("bg-vm create dev --ram 2G", "type --memory SIZE"),
        ("bg-ssh dev -it", "type -t"),
    ] {
        let words: Vec<_> = line.split(' ').collect();
        let found = hint(&sandbox, words[0], &words[1..]);
        assert!(found.contains(said), "{line}: {found}");
    }
    // A word that means nothing anywhere keeps clap's own advice.
    assert!(
        hint(&sandbox, "bg-vm", &["frobnicate"]).contains("--help")
            || !hint(&sandbox, "bg-vm", &["frobnicate"]).contains("type")
    );
    sandbox.assert_untouched("slips");
}

#[test]
fn what_a_wrong_verb_names_is_a_verb_and_the_wrong_one_is_none() {
    let sandbox = Sandbox::new();
    for (tool, words, line) in VERBS {
        for typed in line.split(" | ") {
            let said: Vec<&str> = typed.split(' ').filter(|word| *word != "{}" && !word.starts_with("--")).collect();
            let args: Vec<&str> = said[1..].iter().copied().chain(["--help"]).collect();
            sandbox.run(said[0], &args, "").ok();
        }
        let above: Vec<&str> = tool.split(' ').collect();
        let args: Vec<&str> = above[1..].iter().copied().chain([words[0]]).collect();
        hint(&sandbox, above[0], &args);
    }
}

#[test]
fn several_documents_are_counted_and_named_where_one_is_needed() {
    let world = World::new(&["a", "b"]);
    let both = world.vm(&["ls", "--output", "json"], "").ok();
    for tool in ["bg-health", "bg-ssh"] {
        let args: &[&str] = if tool == "bg-ssh" { &["--", "true"] } else { &[] };
        let error = finish(world.command(tool, args).spawn().unwrap(), both.as_bytes()).failed_with(Code::BadDocument);
        assert_eq!(error.message, "there are 2 documents (`a`, `b`), and one is needed", "{tool}");
        assert!(error.hint.is_some_and(|hint| hint.contains("sed -n 1p")), "{tool}");
    }
    for verb in ["start", "stop", "kill", "rm", "ports", "stats"] {
        let error = world.vm(&[verb], &both).failed_with(Code::BadDocument);
        assert!(error.message.starts_with("there are 2 documents"), "{verb}: {error:?}");
    }
    // Rubbish behind a document is no list of documents.
    let one = both.lines().next().unwrap();
    let error = world.vm(&["stop"], &format!("{one} x")).failed_with(Code::BadDocument);
    assert_eq!(error.message, "this is not a document");
}

#[test]
fn a_plan_that_was_not_carried_out_names_the_step_that_is_missing() {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "debian");
    let plan = sandbox.run("bg-vm", &["plan", "dev"], "").ok();
    for (tool, args) in [("bg-vm", &["start"][..]), ("bg-vm", &["stop"]), ("bg-ssh", &["--", "true"])] {
        let error = sandbox.run(tool, args, &plan).failed_with(Code::NotFound);
        assert_eq!(error.message, "the VM `dev` is planned, and not made yet", "{tool} {args:?}");
        let hint = error.hint.unwrap();
        assert!(hint.contains("| bg-seed clone |") && hint.contains("bg-vm create dev"), "{hint}");
    }
}

#[test]
fn each_pipeline_prints_its_head_where_help_is_asked_for() {
    let bin_dir = std::path::Path::new(TOOLS[0].1).parent().unwrap();
    for entry in std::fs::read_dir(root("pipelines")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some() {
            continue;
        }
        for option in ["--help", "-h"] {
            let mut command = Command::new(&path);
            command.arg(option).stdin(Stdio::null()).env("PATH", format!("{}:/usr/bin:/bin", bin_dir.display()));
            let output = command.output().unwrap();
            let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
            assert!(output.status.success() && err.is_empty(), "{}: {err}", path.display());
            let head =
                std::fs::read_to_string(&path).unwrap().lines().nth(1).unwrap().trim_start_matches("# ").to_owned();
            assert_eq!(out.lines().next(), Some(head.as_str()), "{}", path.display());
        }
    }
}
