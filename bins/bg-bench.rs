//! `bg-bench`: how fast the suite is on this machine.

use clap::{Args, Parser, Subcommand};
use lib_bench::{self, Against, CompareArgs, CreateArgs, MOST_DEVICES, MOST_EXISTING, TapArgs};
use lib_common::doc::Name;
use lib_tools::cli::{self, Answer, Context};
use std::path::PathBuf;
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
    /// VMs, from `bg-vm create` to `ssh true`
    Create(Create),
    /// Two documents: whether the second one is slower
    Compare {
        /// A file with a document
        a: PathBuf,
        /// A file with another one
        b: PathBuf,
        /// Compare this measure alone; may be repeated
        #[arg(long, value_name = "NAME")]
        measure: Vec<String>,
        /// Exit 1 where B takes more than so many times as long as A
        #[arg(long, value_name = "RATIO", value_parser = parse_ratio)]
        fail_above: Option<f64>,
    },
}

#[derive(Args)]
struct Create {
    /// How many rounds
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// The image
    #[arg(long, value_name = "NAME")]
    image: Option<Name>,
    /// By turns, create VMs while no TAP is idle
    #[arg(long)]
    no_pool: bool,
    /// By turns, create VMs from the image without its work seeds
    #[arg(long)]
    no_seed: bool,
    /// By turns, run this instead: debvm, qemu or image:NAME; may be repeated
    #[arg(long, value_name = "SIDE")]
    against: Vec<Against>,
    /// Make the disks in this directory, which may be on another file system
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The host's part alone, without guests
    #[arg(long)]
    fake_vmm: bool,
    /// How many VMs are there already
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "0", requires = "fake_vmm",
          value_parser = clap::value_parser!(u32).range(0..=i64::from(MOST_EXISTING)))]
    existing: Vec<u32>,
    /// Create so many at once, too
    #[arg(long, value_name = "N", requires = "fake_vmm", value_parser = clap::value_parser!(u32).range(1..=256))]
    parallel: Option<u32>,
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.01..=100.0).contains(&ratio) => Ok(ratio),
        _ => Err(format!("`{text}` is no ratio, such as 1.05")),
    }
}

fn main() -> ExitCode {
    cli::main("bg-bench", run)
}

fn run(args: Cli, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
    match args.verb {
        Verb::Tap { runs, devices, samples, check } => lib_bench::tap(cx, &TapArgs { runs, devices, samples, check }),
        Verb::Create(args) => lib_bench::create(cx, &args.into()),
        Verb::Compare { a, b, measure, fail_above } => {
            lib_bench::compare(cx, &CompareArgs { a, b, measures: measure, fail_above })
        }
    }
}

impl From<Create> for CreateArgs {
    fn from(args: Create) -> Self {
        let Create { runs, image, no_pool, no_seed, against, dir, fake_vmm, existing, parallel } = args;
        CreateArgs { runs, image, no_seed, no_pool, against, dir, fake_vmm, existing, parallel }
    }
}
