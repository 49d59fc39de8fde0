//! `bg-gc`: remove the leaks that `bg-verify` found.

use clap::Parser;
use lib_tools::cli::{self, Answer, Context};
use lib_tools::ops::gc::{GcArgs, gc};
use std::process::ExitCode;

/// Remove the leaks on stdin, if a fresh look still calls them so
#[derive(Parser)]
#[command(name = "bg-gc", version)]
struct Cli {
    /// Remove young things too, which somebody may yet finish
    #[arg(long)]
    now: bool,
    /// Print what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

fn main() -> ExitCode {
    cli::main("bg-gc", run)
}

fn run(args: Cli, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
    gc(cx, GcArgs { now: args.now, dry_run: args.dry_run })
}
