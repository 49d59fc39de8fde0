//! bg-image-build: a provisioned image, made of a base image in a temporary VM.

use clap::{ArgMatches, Args, FromArgMatches, Parser};
use lib_common::doc::Name;
use lib_image::build::image::{Recipe, Step};
use lib_machine::config::{parse_memory_mib, parse_seconds, parse_size, parse_vcpu};
use lib_tools::cli::{self, Answer, BootTimeout, Context, in_order};
use lib_tools::ops::image_build::{BuildArgs, build};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Provision an image: packages, files and scripts, in a temporary VM without a network card
#[derive(Parser)]
#[command(name = "bg-image-build", version)]
struct Cli {
    /// Build on this image of the store, instead of the document on stdin; on a terminal the default image
    #[arg(long, value_name = "NAME")]
    base: Option<Name>,
    /// Read the document from a file
    #[arg(long, value_name = "PATH", conflicts_with = "base")]
    file: Option<PathBuf>,
    /// The size of the root file system, if it is to be larger than the base's
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,
    #[command(flatten)]
    steps: Steps,
    /// Install the kernel's modules, before the first step
    #[arg(long)]
    modules: bool,
    /// Let the package manager reach this host, too, beside those of the guest's own package sources
    #[arg(long, value_name = "HOST[:PORT]")]
    allow_host: Vec<String>,
    /// The temporary VM's memory
    #[arg(long, value_name = "SIZE", value_parser = parse_memory_mib)]
    memory: Option<u64>,
    /// The temporary VM's virtual processors
    #[arg(long, value_name = "N", value_parser = parse_vcpu)]
    vcpu: Option<u32>,
    /// After the last step, open a shell in the guest, and ask whether what it leaves is to be the image
    #[arg(long)]
    shell: bool,
    /// Leave the VM of a build that failed, and say how to enter and how to remove it
    #[arg(long)]
    keep_failed: bool,
    /// Build again what was built before, and replace it in the cache
    #[arg(long)]
    force: bool,
    /// How long the build may take; 3600 seconds are usual
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    boot: BootTimeout,
}

/// Their order is that of the command line.
#[derive(Args)]
struct StepOptions {
    /// Install packages: names and @SETs with commas between, or a FILE (a path with a `/`) with one name a line
    #[arg(long, value_name = "LIST|FILE|@SET")]
    packages: Vec<String>,
    /// Copy a file or directory into the guest, with owner and mode; into DST under its own name where that ends with `/`
    #[arg(long, value_name = "SRC:DST")]
    copy: Vec<OsString>,
    /// Run a script in the guest, as root
    #[arg(long, value_name = "FILE")]
    run: Vec<PathBuf>,
}

struct Steps(Vec<Step>);

impl FromArgMatches for Steps {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let step = |(id, value): (&str, OsString)| match id {
            "copy" => Step::Copy(value),
            "run" => Step::Run(value.into()),
            _ => Step::Packages(value.to_string_lossy().into_owned()),
        };
        Ok(Steps(in_order(matches, &["packages", "copy", "run"]).into_iter().map(step).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Steps {
    fn augment_args(command: clap::Command) -> clap::Command {
        StepOptions::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        StepOptions::augment_args_for_update(command)
    }
}

fn main() -> ExitCode {
    cli::main("bg-image-build", run)
}

fn run(args: Cli, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
    args.boot.apply(&mut cx.config);
    let recipe = Recipe { steps: args.steps.0, size: args.size, modules: args.modules, shell: args.shell };
    let args = BuildArgs {
        base: args.base,
        file: args.file,
        recipe,
        allowed_hosts: args.allow_host,
        memory_mib: args.memory,
        vcpu: args.vcpu,
        keep_failed: args.keep_failed,
        force: args.force,
        timeout: cx.config.deadline(args.timeout, 3600),
    };
    build(cx, &args)
}
