//! `bg-seed`: work seeds and work disks.

use clap::{Args, Parser, Subcommand};
use lib_common::cli::{self, Answer, Context, Source};
use lib_common::config::parse_size;
use lib_common::doc::Name;
use lib_common::ops::machine;
use lib_common::ops::seed::{self, BuildArgs};
use std::path::PathBuf;
use std::process::ExitCode;

/// Build, clone and check work seeds and work disks
#[derive(Parser)]
#[command(name = "bg-seed", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build the work seeds of an image
    Build {
        #[command(flatten)]
        source: Where,
        /// A size; may be given several times
        #[arg(long = "size", value_name = "SIZE", value_parser = parse_size)]
        sizes: Vec<u64>,
    },
    /// Claim the name of the VM on stdin and make its disks
    Clone {
        /// Read the document from a file
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
    },
    /// Check the seeds of an image, or the work disk of a VM
    Check {
        #[command(flatten)]
        source: Where,
        /// Check the work disk of this VM instead
        #[arg(value_parser = Name::of_vm, long, value_name = "NAME", conflicts_with_all = ["name", "file"])]
        vm: Option<Name>,
    },
}

#[derive(Args)]
struct Where {
    /// The image; without it, a document is read from stdin
    name: Option<Name>,
    /// Read the document from a file
    #[arg(long, value_name = "PATH", conflicts_with = "name")]
    file: Option<PathBuf>,
}

fn main() -> ExitCode {
    cli::main("bg-seed", run)
}

fn run(args: Cli, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
    match args.verb {
        Verb::Build { source, sizes } => seed::build(cx, &BuildArgs { source: source.into(), sizes }),
        Verb::Clone { file } => machine::clone(cx, &Source { name: None, file }),
        Verb::Check { vm: Some(name), .. } => seed::check_machine(cx, &name),
        Verb::Check { source, vm: None } => seed::check_image(cx, &source.into()),
    }
}

impl From<Where> for Source {
    fn from(w: Where) -> Self {
        Source { name: w.name, file: w.file }
    }
}
