//! `bg-bench`: how fast the suite is on this machine.

use clap::{Parser, Subcommand};
use lib_common::cli::{self, Answer, Context};
use lib_common::ops::bench::{self, MOST_DEVICES, TapArgs};
use std::process::ExitCode;

/// Measure how fast the suite is on this machine
#[derive(Parser)]
#[command(name = "bg-bench", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// TAPs: taken, made, given back, removed; in an empty network namespace
    Tap {
        /// How many rounds
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
        runs: u32,
        /// How many devices are there meanwhile
        #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,100,1000",
              value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_DEVICES)))]
        devices: Vec<u32>,
        /// Print every sample, too
        #[arg(long)]
        samples: bool,
        /// Exit 1 where something was too slow
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    cli::main("bg-bench", run)
}

fn run(args: Cli, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
    match args.verb {
        Verb::Tap { runs, devices, samples, check } => bench::tap(cx, &TapArgs { runs, devices, samples, check }),
    }
}
