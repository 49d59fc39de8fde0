//! What people read, as files in tests/golden/: the help of every tool and verb, and typical failures in both of their
//! forms. `BG_UPDATE=1 cargo test` writes them anew; the diff is then to be read.

use crate::support::fixture;
use crate::support::source::{children_of, root};
use crate::support::{Sandbox, TOOLS, updating};
use snapbox::assert::{Action, Assert};
use snapbox::data::Data;
use std::collections::BTreeSet;
use std::io::Read;

/// Compares with a file of tests/golden/.
fn golden(file: &str, actual: &str) {
    let action = if updating() { Action::Overwrite } else { Action::Verify };
    let path = root("tests/golden").join(file);
    Assert::new().action(action).eq(actual.to_owned(), Data::read_from(&path, None).raw());
}

/// The verbs that a help text lists.
pub fn verbs(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    // A verb stands two columns in; what says more about it stands further in.
    let own = listed.filter(|l| l.starts_with("  ") && !l.starts_with("   "));
    own.filter_map(|l| l.split_whitespace().next()).filter(|v| *v != "help").map(str::to_owned).collect()
}

/// The help of a tool and of each of its verbs, with the words that lead there.
pub fn helps(tool: &str) -> Vec<(Vec<String>, String)> {
    let sandbox = Sandbox::new();
    let mut found: Vec<(Vec<String>, String)> = vec![];
    let mut left = vec![vec![]];
    while let Some(words) = left.pop() {
        let args: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
        let help = sandbox.run(tool, &args, "").ok();
        left.extend(verbs(&help).into_iter().rev().map(|verb| [&words[..], &[verb]].concat()));
        found.push((words, help));
    }
    found
}

#[test]
fn help() {
    for (tool, _) in TOOLS {
        let texts = helps(tool).into_iter().map(|(words, help)| {
            let line = [&[(*tool).to_owned()], &words[..]].concat().join(" ");
            format!("$ {line} --help\n{help}")
        });
        golden(&format!("{tool}.help.txt"), &texts.collect::<Vec<_>>().join("\n"));
    }
}

/// Failures that people meet; `{}` stands for the sandbox's directory.
const FAILURES: &[(&str, &[&str], &str)] = &[
    ("bg-vm", &[], ""),
    ("bg-vm", &["strat"], ""),
    ("bg-vm", &["create", "Dev"], ""),
    ("bg-vm", &["create", "dev", "--memroy", "2G"], ""),
    ("bg-vm", &["create", "dev", "--memory", "1000"], ""),
    ("bg-vm", &["create", "dev"], ""),
    ("bg-vm", &["create", "new", "--image", "debain"], ""),
    ("bg-vm", &["show", "dve"], ""),
    ("bg-vm", &["stats", "dev"], ""),
    ("bg-vm", &["start", "--file", "{}/missing.json"], ""),
    ("bg-seed", &["clone"], "junk"),
    ("bg-seed", &["clone"], r#"{"api_version":"banger/v2","kind":"Machine"}"#),
    ("bg-register", &[], r#"{"api_version":"banger/v1","kind":"Machine"}"#),
    ("bg-register", &[], r#"{"api_version":"banger/v1","kind":"Image"}"#),
    ("bg-register", &["--name", "a"], r#"{"api_version":"banger/v1","kind":"Image","kernel":{"vmlinx":"/x"}}"#),
    ("bg-register", &["--name", "a"], r#"{"api_version":"banger/v1","kind":"Image"}"#),
    ("bg-image", &["rm", "debian"], ""),
    ("bg-image", &["show", "debain"], ""),
    ("bg-gc", &[], "junk"),
];

fn with_dir(sandbox: &Sandbox, words: &[&str]) -> Vec<String> {
    let dir = sandbox.path("");
    words.iter().map(|w| w.replace("{}", dir.to_str().unwrap().trim_end_matches('/'))).collect()
}

fn without_dir(sandbox: &Sandbox, text: &str) -> String {
    text.replace(sandbox.path("").to_str().unwrap().trim_end_matches('/'), "{}")
}

/// The command as a person types it.
fn prompt(tool: &str, args: &[&str], stdin: &str) -> String {
    let input = if stdin.is_empty() { String::new() } else { format!("echo '{stdin}' | ") };
    format!("$ {input}{tool} {}", args.join(" ")).trim_end().to_owned()
}

/// A store with an image `debian` and a VM `dev` made from it.
fn store() -> Sandbox {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "debian");
    fixture::create(&sandbox, "dev");
    sandbox
}

#[test]
fn failures_for_programs() {
    let sandbox = store();
    let mut all = String::new();
    for (tool, args, stdin) in FAILURES {
        let words = with_dir(&sandbox, args);
        let done = sandbox.run(tool, &words.iter().map(String::as_str).collect::<Vec<_>>(), stdin);
        done.failed();
        all += &format!("{}\n{}\n", prompt(tool, args, stdin), without_dir(&sandbox, &done.stderr));
    }
    golden("failures.json.txt", &all);
}

#[test]
fn failures_for_people() {
    let sandbox = store();
    let mut all = String::new();
    for (tool, args, stdin) in FAILURES {
        let words = with_dir(&sandbox, args);
        let said = on_a_terminal(&sandbox, tool, &words, stdin);
        all += &format!("{}\n{}\n", prompt(tool, args, stdin), without_dir(&sandbox, &said));
    }
    golden("failures.txt", &all);
}

/// What a tool prints when its stderr is a terminal.
fn on_a_terminal(sandbox: &Sandbox, tool: &str, args: &[String], stdin: &str) -> String {
    let pty = nix::pty::openpty(None, None).unwrap();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut command = sandbox.command(tool, &words);
    command.stderr(pty.slave);
    let child = command.spawn().unwrap();
    // The terminal's other side ends when nobody has it open any more, this process included.
    drop(command);
    let done = crate::support::finish(child, stdin.as_bytes());
    assert!(done.exit >= 64 && done.stdout.is_empty(), "{tool} {args:?}: {done:?}");
    let mut said = vec![];
    // Linux says EIO at the end of a pseudo-terminal, after all that was written.
    let _ = std::fs::File::from(pty.master).read_to_end(&mut said);
    String::from_utf8(said).unwrap().replace("\r\n", "\n")
}

#[test]
fn a_terminal_is_not_driven_by_what_a_message_quotes() {
    let sandbox = Sandbox::new();
    let evil = "\u{1b}]0;evil\u{7}";
    let junk = format!(r#"{{"api_version":"{}","kind":"Image"}}"#, evil.escape_unicode());
    for (tool, args, stdin) in [
        ("bg-vm", vec!["show".to_owned(), evil.to_owned()], ""),
        ("bg-vm", vec![evil.to_owned()], ""),
        ("bg-register", vec!["--file".to_owned(), evil.to_owned()], ""),
        ("bg-register", vec![], &junk.replace("\\u{1b}", "\\u001b").replace("\\u{7}", "\\u0007")),
    ] {
        let said = on_a_terminal(&sandbox, tool, &args, stdin);
        assert!(said.contains("error: ") && !said.contains('\u{1b}') && !said.contains('\u{7}'), "{said:?}");
    }
}

#[test]
fn there_is_no_snapshot_of_a_tool_that_is_gone() {
    let tools = TOOLS.iter().map(|(tool, _)| format!("{tool}.help.txt"));
    let expected: BTreeSet<String> = tools.chain(["failures.json.txt".into(), "failures.txt".into()]).collect();
    if !updating() {
        assert_eq!(children_of("tests/golden").into_iter().collect::<BTreeSet<_>>(), expected);
    }
}
