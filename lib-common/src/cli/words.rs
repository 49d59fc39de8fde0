//! Where a command begins that follows a tool's own words, as after ssh's host: `bg-ssh dev ls -l`.

use clap::{Arg, Command};
use std::ffi::OsString;

/// The command line with `--` before its second word that is neither an option nor an option's value.
pub fn command_after_name(command: &Command, args: Vec<OsString>) -> Vec<OsString> {
    let Some(at) = second_word(command, &args) else { return args };
    let mut args = args;
    args.insert(at, "--".into());
    args
}

fn second_word(command: &Command, args: &[OsString]) -> Option<usize> {
    let (mut words, mut at) = (0, 1);
    while at < args.len() {
        let text = args[at].to_string_lossy();
        match text.strip_prefix('-') {
            Some("-") => return None,
            Some(option) if !option.is_empty() => at += usize::from(wants_value(command, option)),
            _ if words == 1 => return Some(at),
            _ => words += 1,
        }
        at += 1;
    }
    None
}

/// Whether an option, without its first dash, has its value in the next argument.
fn wants_value(command: &Command, option: &str) -> bool {
    let takes =
        |found: &dyn Fn(&Arg) -> bool| command.get_arguments().any(|arg| found(arg) && arg.get_action().takes_values());
    match option.strip_prefix('-') {
        Some(long) => !long.contains('=') && takes(&|arg| arg.get_long() == Some(long)),
        // Of `-tL SPEC` the last one wants the value; in `-LSPEC` it is there already.
        None => {
            let first = option.char_indices().find(|(_, letter)| takes(&|arg| arg.get_short() == Some(*letter)));
            first.is_some_and(|(at, letter)| at + letter.len_utf8() == option.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ArgAction;

    #[test]
    fn a_command_begins_behind_the_name_and_its_options_are_its_own() {
        let command = Command::new("t")
            .arg(Arg::new("tty").short('t').long("tty").action(ArgAction::SetTrue))
            .arg(Arg::new("forward").short('L').long("forward").action(ArgAction::Append))
            .arg(Arg::new("name"))
            .arg(Arg::new("command").last(true).num_args(0..));
        for (given, expected) in [
            ("dev ls -l", "dev -- ls -l"),
            ("-t dev top", "-t dev -- top"),
            ("dev -t top -L x", "dev -t -- top -L x"),
            ("-L 1:a:2 dev ls", "-L 1:a:2 dev -- ls"),
            ("-tL 1:a:2 dev ls", "-tL 1:a:2 dev -- ls"),
            ("-L1:a:2 dev ls", "-L1:a:2 dev -- ls"),
            ("--forward 1:a:2 dev ls", "--forward 1:a:2 dev -- ls"),
            ("--forward=1:a:2 dev ls -- x", "--forward=1:a:2 dev -- ls -- x"),
            ("dev - x", "dev -- - x"),
            ("dev -- ls", "dev -- ls"),
            ("-- ls -l", "-- ls -l"),
            ("dev", "dev"),
            ("dev --forward", "dev --forward"),
        ] {
            let words =
                |line: &str| std::iter::once("t").chain(line.split(' ')).map(OsString::from).collect::<Vec<_>>();
            assert_eq!(command_after_name(&command, words(given)), words(expected), "{given}");
        }
    }
}
