//! The manual and the programs say the same: every tool has a page, every option stands in it and no other does, and
//! the tables of codes and settings are those of the library.

#![allow(clippy::disallowed_types)]

use crate::golden::helps;
use crate::support::TOOLS;
use crate::support::source::{children_of, files, root, text};
use lib_common::error::Code;
use lib_machine::config::KEYS;
use std::collections::BTreeSet;
use std::process::Command;

/// Every tool has them, and banger(7) says so once.
const COMMON: [&str; 2] = ["--help", "--version"];

#[test]
fn every_tool_has_a_page_and_every_page_a_tool() {
    let pages: BTreeSet<String> = children_of("man").into_iter().collect();
    let tools = TOOLS.iter().map(|(tool, _)| format!("{tool}.1"));
    let others =
        ["banger.7", "banger-bundle.5", "banger-config.5", "banger-image.5", "banger-machine.5"].map(str::to_owned);
    assert_eq!(pages, tools.chain(others).collect());
}

/// The options in a help text: what stands first on its line.
fn options(help: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in help.lines().map(str::trim_start).filter(|l| l.starts_with('-')) {
        // `--dry-run[=<FORMAT>]` is an option whose value may be left away.
        let words = line.split([' ', ',', '=', '[']).take_while(|w| w.starts_with('-') || w.is_empty());
        found.extend(words.filter(|w| w.starts_with("--")).map(|w| w.trim_end_matches("...").to_owned()));
    }
    found.retain(|option| !COMMON.contains(&option.as_str()));
    found
}

/// The long options that a page names with the macro for options.
fn documented(page: &str) -> BTreeSet<String> {
    let words: Vec<&str> = page.split_whitespace().collect();
    let flags = words.windows(2).filter(|pair| pair[0].ends_with("Fl")).map(|pair| pair[1]);
    flags
        .filter_map(|f| f.strip_prefix('-'))
        .map(|f| format!("--{}", f.trim_matches(',')))
        .filter(|f| f != "--")
        .collect()
}

#[test]
fn the_options_of_a_page_are_those_of_the_program() {
    for (tool, _) in TOOLS {
        let page = text(&format!("man/{tool}.1"));
        let program: BTreeSet<String> = helps(tool).iter().flat_map(|(_, help)| options(help)).collect();
        let mut page_options = documented(&page);
        page_options.retain(|option| !COMMON.contains(&option.as_str()));
        assert_eq!(page_options, program, "{tool}: the page (left) and the program (right)");
    }
}

#[test]
fn every_verb_stands_in_its_page_with_its_own_options() {
    for (tool, _) in TOOLS {
        let page = text(&format!("man/{tool}.1"));
        let synopsis = section(&page, "SYNOPSIS");
        // The macro's own line may repeat the tool's name.
        let uses: Vec<&str> = synopsis.split("\n.Nm").skip(1).filter_map(|u| Some(u.split_once('\n')?.1)).collect();
        let helps = helps(tool);
        // A verb that has verbs of its own is described with them.
        let leaf = |words: &Vec<String>| helps.iter().all(|(other, _)| other == words || !other.starts_with(words));
        let verbs: Vec<_> = helps.iter().filter(|(words, _)| !words.is_empty() && leaf(words)).collect();
        for (words, help) in &verbs {
            let verb = words.join(" ");
            let own: Vec<&&str> = uses.iter().filter(|u| u.lines().next() == Some(&format!(".Cm {verb}"))).collect();
            assert!(!own.is_empty(), "{tool}(1): SYNOPSIS has no line for `{verb}`");
            let shown: BTreeSet<String> = own.iter().flat_map(|u| documented(u)).collect();
            assert_eq!(shown, options(help), "{tool} {verb}: SYNOPSIS (left) and the program (right)");
            // The page of a tool with one verb is about that verb.
            let described = verbs.len() == 1 || page.contains(&format!(".Ss {}\n", words[0]));
            assert!(described, "{tool}(1) has no section for `{verb}`");
        }
    }
}

#[test]
fn every_page_has_the_same_parts_and_its_references_lead_somewhere() {
    let own: BTreeSet<String> = children_of("man").into_iter().collect();
    for (path, page) in files("man", "") {
        if path.ends_with(".1") {
            for part in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "EXAMPLES", "SEE ALSO"] {
                assert!(page.contains(&format!(".Sh {part}\n")) || path.ends_with("bg-shim.1"), "{path} has no {part}");
            }
        }
        for line in page.lines().filter(|l| l.starts_with(".Xr b")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(own.contains(&format!("{}.{}", words[1], words[2])), "{path}: {line} leads nowhere");
        }
    }
}

#[test]
fn the_pages_are_well_formed() {
    let mut command = Command::new("mandoc");
    command.args(["-T", "lint", "-W", "warning"]).args(children_of("man").iter().map(|page| root("man").join(page)));
    let output = command.output().unwrap_or_else(|e| panic!("mandoc: {e}; `make setup` installs it"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// The text of a section of a page.
fn section<'a>(page: &'a str, name: &str) -> &'a str {
    let begin = page.find(&format!(".Sh {name}\n")).unwrap_or_else(|| panic!("no section {name}"));
    let body = &page[begin + 1..];
    &body[..body.find("\n.Sh ").unwrap_or(body.len())]
}

#[test]
fn the_manual_lists_every_code_with_its_status() {
    let page = text("man/banger.7");
    let codes = section(&page, "ERROR CODES").split(".It Sy ").skip(1).map(|item| {
        let (code, text) = item.split_once('\n').unwrap();
        let exit = text.strip_prefix('(').and_then(|t| t.split(')').next()?.parse().ok());
        (code.to_owned(), exit.unwrap_or_else(|| panic!("banger(7): {code}: the text begins with the status")))
    });
    let known: BTreeSet<(String, u8)> = Code::ALL.iter().map(|c| (c.as_str().to_owned(), c.exit())).collect();
    assert_eq!(codes.collect::<BTreeSet<_>>(), known, "banger(7) (left) and the library (right)");
    let classes = section(&page, "EXIT STATUS").lines().filter_map(|l| l.strip_prefix(".It ")?.parse().ok());
    let known: BTreeSet<u8> = [0, 1].into_iter().chain(Code::ALL.iter().map(|c| c.exit())).collect();
    assert_eq!(classes.collect::<BTreeSet<u8>>(), known, "banger(7) (left) and the library (right)");
}

#[test]
fn the_manual_lists_every_setting() {
    let page = text("man/banger-config.5");
    let settings = section(&page, "KEYS").lines().filter_map(|line| {
        let mut words = line.strip_prefix(".It Ic ")?.split_whitespace();
        Some((words.next()?, words.last()?))
    });
    let known: BTreeSet<(&str, &str)> = KEYS.iter().map(|(key, variable, ..)| (*key, *variable)).collect();
    assert_eq!(settings.collect::<BTreeSet<_>>(), known, "banger-config(5) (left) and the library (right)");
    let known: BTreeSet<&str> =
        known.iter().map(|(_, variable)| *variable).chain(["BG_EVENTS", "BG_PING_HELPER"]).collect();
    for (path, page) in files("man", "") {
        let words: Vec<&str> = page.split_whitespace().collect();
        let variables = words.windows(2).filter(|pair| pair[0].ends_with("Ev")).map(|pair| pair[1]);
        let named: BTreeSet<&str> = variables.filter(|v| v.len() > 3 && v.starts_with("BG_")).collect();
        assert!(named.is_subset(&known), "{path}: {:?} is no setting", named.difference(&known));
        assert!(path != "man/banger-config.5" || named == known, "banger-config(5) names every variable");
    }
}
