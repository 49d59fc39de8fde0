//! `bg-ssh`: a shell or a command in a guest.

use clap::Parser;
use lib_common::cli::{Answer, Context};
use lib_common::config::parse_seconds;
use lib_common::doc::Name;
use lib_common::{Result, ops::ssh};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Open a shell or run a command in a guest
#[derive(Parser)]
#[command(version)]
struct Args {
    /// A VM of the store; without it, a Machine document is read from stdin
    name: Option<Name>,
    /// Read the document from this file
    #[arg(long, value_name = "PATH", conflicts_with = "name")]
    file: Option<PathBuf>,
    /// Give the command a terminal, if stdin is one
    #[arg(short, long)]
    tty: bool,
    /// How long a guest that is still booting is waited for; 120 seconds are usual
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    connect_timeout: Option<Duration>,
    /// Relay stdin and stdout to the guest's sshd, for ssh's ProxyCommand
    #[arg(long, requires = "name", conflicts_with_all = ["tty", "command"])]
    stdio: bool,
    /// One word is a command line for the guest's shell, several are kept as they are; none opens a shell
    #[arg(last = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    lib_common::cli::main("bg-ssh", run)
}

fn run(args: Args, cx: &mut Context<'_>) -> Result<Answer> {
    let Args { name, file, tty, connect_timeout, stdio, command } = args;
    let connect_timeout = cx.config.deadline(connect_timeout, 120);
    match name {
        Some(name) if stdio => ssh::stdio(&name, connect_timeout, cx),
        name => ssh::run(&ssh::Request { name, file, command, tty, connect_timeout }, cx),
    }
}
