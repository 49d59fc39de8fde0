//! `bg-ssh`: a shell or a command in a guest.

use clap::Parser;
use lib_common::Result;
use lib_common::cli::{Answer, Context};
use lib_common::config::parse_seconds;
use lib_common::doc::Name;
use lib_common::guest::ssh::Via;
use lib_common::ops::ssh::{self, Connection, Request};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Open a shell or run a command in a guest
#[derive(Parser)]
#[command(version)]
struct Args {
    /// A VM of the store, also as NAME.vm; without it, a Machine document is read from stdin
    #[arg(value_parser = Name::of_vm)]
    name: Option<Name>,
    /// Read the document from this file
    #[arg(long, value_name = "PATH", conflicts_with = "name")]
    file: Option<PathBuf>,
    /// Give the command a terminal, if stdin is one
    #[arg(short, long)]
    tty: bool,
    /// Let a port of this host lead to one of the guest while the session lasts: PORT:HOST:HOSTPORT
    #[arg(short = 'L', long, value_name = "SPEC")]
    forward: Vec<String>,
    /// How to reach the guest: tap, vsock, or auto, which takes what answers first
    #[arg(long, value_name = "WAY")]
    via: Option<Via>,
    /// How long a guest that is still booting is waited for; 120 seconds are usual
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    connect_timeout: Option<Duration>,
    /// Relay stdin and stdout to the guest's sshd, for ssh's ProxyCommand
    #[arg(long, requires = "name", conflicts_with_all = ["fdpass", "tty", "forward", "command"])]
    stdio: bool,
    /// Hand a connection to the guest's sshd to ssh, for its ProxyUseFdpass
    #[arg(long, requires = "name", conflicts_with_all = ["tty", "forward", "command"])]
    fdpass: bool,
    /// Append an error to this file instead of printing it
    #[arg(long, value_name = "PATH", requires = "fdpass")]
    error_file: Option<PathBuf>,
    /// Note that a login has worked, waited for since MS on the host's monotonic clock, for ssh's LocalCommand
    #[arg(long, value_name = "MS", requires = "name",
        conflicts_with_all = ["stdio", "fdpass", "known_hosts", "via", "tty", "forward", "command"])]
    logged_in: Option<u64>,
    /// Print the guest's host key, for ssh's KnownHostsCommand
    #[arg(long, requires = "name", conflicts_with_all = ["stdio", "fdpass", "via", "tty", "forward", "command"])]
    known_hosts: bool,
    /// Print what ~/.ssh/config includes, so that ssh reaches every VM as NAME.vm
    #[arg(long, conflicts_with_all = ["name", "file", "stdio", "fdpass", "logged_in", "known_hosts", "tty", "forward",
        "command"])]
    config: bool,
    /// One word is a command line for the guest's shell, several are kept as they are; none opens a shell. Behind NAME
    /// the `--` may be left out
    #[arg(last = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    lib_common::cli::main_with_command("bg-ssh", run)
}

fn run(args: Args, cx: &mut Context<'_>) -> Result<Answer> {
    let connect_timeout = cx.config.deadline(args.connect_timeout, 120);
    let Args { name, file, command, tty, forward: forwards, via, .. } = args;
    if args.config {
        return ssh::config(via, cx);
    }
    if let (Some(name), Some(since)) = (&name, args.logged_in) {
        return ssh::logged_in(name, since, cx);
    }
    match name {
        Some(name) if args.known_hosts => ssh::known_hosts(&name, cx),
        Some(name) if args.stdio => ssh::stdio(&Connection { name, via, connect_timeout }, cx),
        Some(name) if args.fdpass => {
            ssh::fdpass(&Connection { name, via, connect_timeout }, args.error_file.as_deref(), cx)
        }
        name => ssh::run(&Request { name, file, command, tty, forwards, via, connect_timeout }, cx),
    }
}
