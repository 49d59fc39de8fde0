//! What must never appear in the sources, whoever writes them. Each rule says what it protects; `clippy.toml` and
//! `[workspace.lints]` hold some of them too, and these tests hold where an `allow` would silence those.

use crate::support::TOOLS;
use crate::support::source::{bins, files, text};

/// The Rust sources of the tools, the library and the agent, without their test modules.
fn sources() -> Vec<(String, String)> {
    let all = ["bins", "lib-common", "guest-agent/src"].into_iter().flat_map(|dir| files(dir, ".rs"));
    all.filter(|(path, _)| !is_test_file(path)).map(|(path, text)| (path, without_tests(&text))).collect()
}

fn is_test_file(path: &str) -> bool {
    /// What tests of several crates use.
    const SHARED: [&str; 4] = [
        "lib-common/machine/src/guest/fake.rs",
        "lib-common/machine/src/guest/testing.rs",
        "lib-common/xbps/src/fixture.rs",
        "lib-common/xbps/src/package/testing.rs",
    ];
    path.ends_with("/tests.rs") || path.contains("/tests/") || SHARED.contains(&path)
}

/// A test module stands at the end of its file, by this project's habit.
fn without_tests(text: &str) -> String {
    match text.find("\n#[cfg(test)]\nmod tests {") {
        Some(at) => text[..at].to_owned(),
        None => text.to_owned(),
    }
}

/// Lines of code, comments and strings in them left out as far as `//` goes.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.split("//").next().unwrap_or("")));
    lines.filter(|(_, line)| !line.trim().is_empty())
}

/// Where `found` is true of a line of code, outside the files that `allowed` names.
fn offenders(allowed: &[&str], found: impl Fn(&str) -> bool) -> Vec<String> {
    let mut places = vec![];
    for (path, text) in sources() {
        if allowed.iter().any(|prefix| path.starts_with(prefix)) {
            continue;
        }
        places.extend(
            code(&text).filter(|(_, line)| found(line)).map(|(n, line)| format!("{path}:{n}: {}", line.trim())),
        );
    }
    places
}

const NONE: Vec<String> = vec![];
const SYS: &[&str] = &["lib-common/src/sys/"];
/// The agent is process 1 of a guest: it has no owner whose death could take its children along.
const SYS_AND_AGENT: &[&str] = &["lib-common/src/sys/", "guest-agent/src/"];

#[test]
fn programs_are_started_in_one_place() {
    let starts = |line: &str| {
        line.contains("process::Command") || line.contains("Command::new(") || line.contains("process::{Command")
    };
    assert_eq!(offenders(SYS_AND_AGENT, starts), NONE, "use sys::cmd::Cmd: it has an owner, and dies with it");
}

#[test]
fn unsafe_code_is_in_one_place() {
    // An option of dpkg has the word in it.
    let unsafe_word = |line: &str| {
        line.replace("--force-unsafe-io", "").split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "unsafe")
    };
    assert_eq!(offenders(SYS, unsafe_word), NONE);
    assert_eq!(offenders(SYS, |line| line.contains("allow(unsafe_code")), NONE);
    for (path, text) in sources() {
        let blocks = code(&text).filter(|(_, line)| line.contains("unsafe {")).count();
        let reasons = text.matches("// SAFETY:").count();
        assert!(reasons >= blocks.min(1), "{path}: an unsafe block says why it is safe");
    }
}

#[test]
fn no_shell_runs_a_string() {
    let starts = ["new(\"sh\"", "new(\"bash\"", "new(\"/bin/sh\"", "new(\"/bin/bash\"", "\"-c\"", "sh -c"];
    let shell = |line: &str| starts.iter().any(|start| line.contains(start));
    assert_eq!(offenders(&[], shell), NONE, "a program and its arguments are a list");
}

#[test]
fn only_wire_types_can_be_written() {
    let derives = |line: &str| line.contains("Serialize") && !line.contains("serde::Serialize}");
    let own = |line: &str| line.trim_start().starts_with("#[derive(") && derives(line) && has_word(line, "Serialize");
    assert_eq!(offenders(&["lib-common/src/doc/", "lib-common/machine/src/vmm/firecracker/api.rs"], own), NONE);
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric()).any(|w| w == word)
}

#[test]
fn host_keys_are_always_checked() {
    let everything = ["bins", "lib-common", "guest-agent", "pipelines", "tests"].into_iter();
    // In two halves, so that this file is no offender.
    let needle = concat!("StrictHostKeyChecking", "=no");
    let found: Vec<String> =
        everything.flat_map(|dir| files(dir, "")).filter(|(_, t)| t.contains(needle)).map(|(p, _)| p).collect();
    assert_eq!(found, NONE);
}

#[test]
fn every_file_says_what_it_owns_and_is_short_enough_to_read() {
    let mut wrong = vec![];
    for dir in ["bins", "lib-common", "guest-agent/src", "tests"] {
        for (path, text) in files(dir, ".rs") {
            // A file of tests is described by the names of its tests.
            if !text.starts_with("//! ") && !path.ends_with("src/tests.rs") && !path.ends_with("/tests.rs") {
                wrong.push(format!("{path}: does not begin with `//!`"));
            }
            let lines = text.lines().count();
            if lines > 450 {
                wrong.push(format!("{path}: {lines} lines, 450 are the most"));
            }
        }
    }
    assert_eq!(wrong, NONE);
}

#[test]
fn a_tool_is_its_command_line_and_a_call() {
    let mut wrong = vec![];
    for (path, text) in files("bins", ".rs") {
        let lines = text.lines().count();
        if lines > 200 {
            wrong.push(format!("{path}: {lines} lines, 200 are the most"));
        }
        for word in ["std::fs", "fs_err", "std::io", "std::env", "println!"] {
            if text.contains(word) {
                wrong.push(format!("{path}: uses {word}, which is the library's"));
            }
        }
    }
    assert_eq!(wrong, NONE);
}

#[test]
fn nothing_is_left_for_later() {
    let mut wrong = vec![];
    for dir in ["bins", "lib-common", "guest-agent/src", "tests", "pipelines", "man"] {
        for (path, text) in files(dir, "") {
            // In halves, so that this file is no offender.
            for word in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")] {
                let lines = text
                    .lines()
                    .enumerate()
                    .filter(|(_, line)| line.split(|c: char| !c.is_alphanumeric()).any(|w| w == word));
                wrong.extend(lines.map(|(n, _)| format!("{path}:{}: {word}", n + 1)));
            }
        }
    }
    assert_eq!(wrong, NONE);
}

#[test]
fn the_tests_know_every_tool() {
    let tested: Vec<String> = TOOLS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(tested, bins());
    let mut on_disk: Vec<String> =
        files("bins", ".rs").into_iter().map(|(p, _)| p["bins/".len()..].trim_end_matches(".rs").to_owned()).collect();
    on_disk.sort();
    assert_eq!(tested, on_disk, "bins/ has nothing that Cargo.toml does not install");
}

#[test]
fn pipelines_are_short() {
    let long: Vec<String> = files("pipelines", "")
        .into_iter()
        // Of code: setup explains itself.
        .map(|(path, text)| (path, text.lines().filter(|l| !l.trim_start().starts_with('#')).count()))
        .filter(|(_, lines)| *lines > 50)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect();
    assert_eq!(long, NONE);
    assert!(text("pipelines/lib.sh").contains("leftmost()"));
}
