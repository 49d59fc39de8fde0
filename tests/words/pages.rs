//! The pages' examples and their signs: what can be pasted works, and takes nothing away that was not named.

use crate::running::World;
use crate::support::TOOLS;
use crate::support::source::{files, root};
use std::path::Path;
use std::process::{Command, Stdio};

/// What an example may call to be run here: it only looks, and needs neither a network nor a guest.
const LOOKS: [&str; 6] =
    ["bg-vm ls", "bg-image ls", "bg-image show", "bg-verify", "bg-doctor --print-config", "bg-vm plan"];

/// The examples of a page, as they are typed.
fn examples(page: &str) -> Vec<String> {
    let Some((_, body)) = page.split_once("\n.Sh EXAMPLES\n") else { return vec![] };
    let body = body.split("\n.Sh ").next().unwrap();
    let blocks = body.split(".Bd -literal -offset indent\n").skip(1).map(|rest| rest.split("\n.Ed").next().unwrap());
    let lines = body.lines().filter_map(|line| line.strip_prefix(".Dl "));
    let typed = |text: &str| text.lines().map(|l| l.strip_prefix("$ ").unwrap_or(l)).collect::<Vec<_>>().join("\n");
    blocks.chain(lines).map(|text| typed(text).replace("\\e", "\\")).collect()
}

fn is_shell(example: &str) -> bool {
    let first = example.split_whitespace().nth(1).unwrap_or_default();
    !example.starts_with('{') && first != "="
}

/// What the example calls of banger: each tool with the word behind it.
fn calls(example: &str) -> Vec<String> {
    let words: Vec<&str> = example.split([' ', '\n', '(', ')', '\'', '"']).filter(|word| !word.is_empty()).collect();
    let tool = |word: &str| TOOLS.iter().any(|(tool, _)| *tool == word);
    (0..words.len())
        .filter(|at| tool(words[*at]))
        .map(|at| format!("{} {}", words[at], words.get(at + 1).copied().unwrap_or_default()))
        .collect()
}

fn bash(world: &World, options: &[&str], example: &str) -> std::process::Output {
    let bin_dir = Path::new(TOOLS[0].1).parent().unwrap();
    let mut command = Command::new("bash");
    command.args(options).args(["-c", example]).env_clear().envs(world.sandbox.env());
    command.env("PATH", format!("{}:{}", bin_dir.display(), std::env::var("PATH").unwrap()));
    command.current_dir(world.sandbox.path("home")).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn examples_are_shell_have_their_input_and_remove_nothing_that_they_do_not_name() {
    let world = World::new(&["dev"]);
    let mut run = 0;
    for (path, page) in files("man", "") {
        for example in examples(&page).iter().filter(|example| is_shell(example)) {
            let output = bash(&world, &["-n"], example);
            assert!(output.status.success(), "{path}: {example}\n{}", String::from_utf8_lossy(&output.stderr));
            let removes_a_list = example.contains("xargs") && example.contains(" rm");
            assert!(!removes_a_list, "{path}: an example removes whatever there is: {example}");
            let alone = example.starts_with("jq ") && !example.contains("\"$(") && !example.contains(".json");
            assert!(!alone, "{path}: an example waits for input from the terminal: {example}");
            let calls = calls(example);
            let looks = |call: &String| {
                LOOKS
                    .iter()
                    .any(|look| format!("{call} ").starts_with(&format!("{look} ")) || call.starts_with("bg-verify"))
            };
            if calls.is_empty() || !calls.iter().all(looks) || example.contains(" mine") {
                continue;
            }
            let output = bash(&world, &["-eu"], example);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(matches!(output.status.code(), Some(0 | 1)) && said.is_empty(), "{path}: {example}\n{said}");
            run += 1;
        }
    }
    assert!(run >= 8, "{run} examples were run");
    assert_eq!(world.state_of("dev"), "stopped");
}

#[test]
fn no_page_has_a_sign_within_its_like_and_no_choice_within_an_option() {
    for (path, page) in files("man", "") {
        for line in page.lines().filter(|line| line.starts_with(".Op ") || line.starts_with(".Oo ")) {
            let inner = line[4..].split(" Op ").nth(1).unwrap_or_default();
            assert!(!inner.contains('|'), "{path}: what follows the inner option is part of it: {line}");
        }
        let rendered =
            Command::new("mandoc").args(["-T", "utf8", "-O", "width=500"]).arg(root(&path)).output().unwrap();
        let text = String::from_utf8(rendered.stdout).unwrap();
        for line in text.lines() {
            let mut open = 0;
            for sign in line.chars().filter(|sign| "‘’".contains(*sign)) {
                open += if sign == '‘' { 1 } else { -1 };
                assert!((0..=1).contains(&open), "{path}: quotes within quotes: {line}");
            }
            assert_eq!(open, 0, "{path}: a quote is not closed: {line}");
        }
    }
}
