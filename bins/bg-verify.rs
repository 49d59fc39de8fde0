//! `bg-verify`: a read-only audit of leaks.

use clap::Parser;
use lib_tools::cli::{self, Answer, Context};
use lib_tools::ops::audit::{self, VerifyArgs};
use std::process::ExitCode;

/// Say what lies about: leaks and damage, one JSON document a line
#[derive(Parser)]
#[command(name = "bg-verify", version)]
struct Cli {
    /// Count young things as leaks too, which somebody may yet finish
    #[arg(long)]
    now: bool,
    /// Compare the digest of every file of every image, which reads them all
    #[arg(long)]
    deep: bool,
}

fn main() -> ExitCode {
    cli::main("bg-verify", run)
}

fn run(args: Cli, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
    audit::verify(cx, VerifyArgs { now: args.now, deep: args.deep })
}
