use super::*;
use crate::cli::{Io, run_with};
use clap::Parser;
use lib_common::doc::Via;
use lib_machine::guest::testing::Stored;
use std::path::Path;

#[derive(Parser)]
struct Args {
    name: Option<Name>,
    #[arg(long)]
    via: Option<Via>,
    #[arg(last = true)]
    command: Vec<String>,
}

fn verb(args: Args, cx: &mut Context<'_>) -> Result<Answer> {
    let Args { name, via, command } = args;
    run(&Request { name, file: None, command, tty: false, forwards: vec![], via, connect_timeout: Duration::ZERO }, cx)
}

/// Exit status and stderr.
fn tool(args: &[&str], stdin: &str, stored: &Stored) -> (u8, String) {
    let (mut out, mut err) = (vec![], vec![]);
    let exit = run_with::<Args>(
        "bg-ssh",
        verb,
        Io {
            args: std::iter::once("bg-ssh").chain(args.iter().copied()).map(Into::into).collect(),
            env: stored.env(),
            root: false,
            stdin: (Box::new(stdin.as_bytes()), false),
            stdout: (Box::new(&mut out), false),
            stderr: (Box::new(&mut err), false),
        },
    );
    assert!(out.is_empty());
    (exit, String::from_utf8(err).unwrap())
}

#[test]
fn what_cannot_be_reached_is_said_before_ssh_starts() {
    let mut stored = Stored::new(&[("a", Path::new("/v"))]);
    let line = stored.document("a").to_line();
    let other = line.replace("0123", "4567");
    for (args, stdin, exit, said) in [
        (&["b"][..], "", 64, "not_found"),
        (&["a", "--", ""], "", 64, "the command is empty"),
        (&["a", "b"], "", 64, "usage"),
        (&[], "", 66, ""),
        (&["--", "true"], other.as_str(), 64, "not the one of the document"),
        // Running, but recorded without a guest's key.
        (&["a", "--via", "tap"], "", 69, "has no network card"),
        (&["a"], "", 65, "`bg-vm start` writes it"),
        (&["--", "true"], line.as_str(), 65, "`bg-vm start` writes it"),
    ] {
        let (got, err) = tool(args, stdin, &stored);
        assert!(got == exit && err.contains(said), "{args:?}: {got} {err}");
    }
    stored.end();
    for (args, stdin) in [(&["a"][..], ""), (&["--", "true"], line.as_str())] {
        let (exit, err) = tool(args, stdin, &stored);
        assert!(exit == 69 && err.contains("not_running") && err.contains("`bg-vm start a`"), "{err}");
    }
}

#[test]
fn a_killed_ssh_ends_as_a_shell_says_it() {
    for (raw, status) in [(0, 0), (7 << 8, 7), (255 << 8, 255), (9, 137)] {
        assert_eq!(exit_status(ExitStatus::from_raw(raw)), status);
    }
}
