//! `bg-health`: ask the guests' agents how they are.

use clap::Parser;
use lib_common::cli::{Answer, Context};
use lib_common::config::parse_seconds;
use lib_common::doc::Name;
use lib_common::{Result, ops::health};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Ask the guests' agents how they are: exit 0 where all are healthy, 1 where one is not
#[derive(Parser)]
#[command(version)]
struct Args {
    /// VMs of the store; without any, a Machine document is read from stdin
    #[arg(value_parser = Name::of_vm)]
    names: Vec<Name>,
    /// Read the document from this file
    #[arg(long, value_name = "PATH", conflicts_with = "names")]
    file: Option<PathBuf>,
    /// Ask again until the guest is healthy, at most so long
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    wait: Option<Duration>,
    /// How long one answer may take; 5 seconds are usual
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,
}

fn main() -> ExitCode {
    lib_common::cli::main("bg-health", run)
}

fn run(Args { names, file, wait, timeout }: Args, cx: &mut Context<'_>) -> Result<Answer> {
    let timeout = cx.config.deadline(timeout, 5);
    health::run(&health::Request { names, file, wait, timeout }, cx)
}
