//! The checks of a kernel's command line.
//!
//! Source: the kernel's Documentation/admin-guide/kernel-parameters.txt.

use super::Facts;
use lib_common::doc::Check;

/// What keeps the kernel from probing for a keyboard controller, its second port and its multiplexer.
const I8042: [&str; 3] = ["i8042.noaux", "i8042.nomux", "i8042.dumbkbd"];

/// The serial lines that a VMM gives a guest.
const SERIAL: [&str; 2] = ["ttyS0", "ttyAMA0"];

pub(super) fn checks(facts: &Facts<'_>) -> Vec<Check> {
    // What comes after `--` is for init.
    let words: Vec<&str> = facts.command_line.split_ascii_whitespace().take_while(|word| *word != "--").collect();
    vec![nomodule(&words, facts.initrd.modules.len()), console(&words), i8042(&words)]
}

/// The value of the parameter where it stands last, which counts; empty for one without a value.
fn last<'a>(words: &[&'a str], parameter: &str) -> Option<&'a str> {
    let value = |word: &&'a str| match word.split_once('=') {
        Some((name, value)) => (name == parameter).then_some(value),
        None => (*word == parameter).then_some(""),
    };
    words.iter().rev().find_map(value)
}

fn is_on(words: &[&str], parameter: &str) -> bool {
    last(words, parameter).is_some_and(|value| !matches!(value, "0" | "n" | "N" | "off" | "no"))
}

fn nomodule(words: &[&str], modules: usize) -> Check {
    let name = "nomodule";
    match (is_on(words, "nomodule"), modules) {
        (false, _) => Check::new(name, true, "the command line lets modules be loaded", ""),
        (true, 0) => Check::new(name, true, "the command line has `nomodule`, and the initrd has no modules", ""),
        (true, n) => {
            let message =
                format!("the command line has `nomodule`, and the {n} modules of the initrd would be refused");
            Check::new(name, false, message, "take `nomodule` out of the kernel's command line")
        }
    }
}

fn console(words: &[&str]) -> Check {
    let is_serial = |value: &str| SERIAL.iter().any(|line| value.split(',').next() == Some(line));
    let serial = words.iter().filter_map(|word| word.strip_prefix("console=")).find(|value| is_serial(value));
    match serial {
        Some(value) => Check::new("console", true, format!("the kernel's console is {value}"), ""),
        None => {
            let message = "the command line names no serial console, so nobody would see why a guest hangs";
            Check::new("console", false, message, "add `console=ttyS0` to the kernel's command line")
        }
    }
}

fn i8042(words: &[&str]) -> Check {
    let left: Vec<&str> = I8042.into_iter().filter(|parameter| !is_on(words, parameter)).collect();
    if left.is_empty() {
        return Check::new("i8042", true, "the kernel does not probe for a keyboard controller", "");
    }
    let message =
        "the kernel probes for a keyboard controller that is not there, which takes up to a second of each boot";
    Check::could_be_better("i8042", message, format!("add `{}` to the kernel's command line", left.join(" ")))
}
