//! bg-rootfs: a base root filesystem as ext4, with its package manifest.

use clap::{Parser, Subcommand, ValueEnum};
use lib_common::build::debian::{DEFAULT_SUITE, Recipe};
use lib_common::cli::{self, Answer, Context};
use lib_common::config::parse_size;
use lib_common::ops::rootfs::{self, BuildArgs};
use std::process::ExitCode;

/// Make a base root filesystem as ext4, with its package manifest
#[derive(Parser)]
#[command(name = "bg-rootfs", version)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Add the section `rootfs` to the Image document on stdin; what was built before is found in the cache
    Build(Build),
}

#[derive(clap::Args)]
struct Build {
    /// The distribution
    #[arg(long, value_enum)]
    distro: Distro,
    /// Its release, by the name that the mirror has for it
    #[arg(long, value_name = "NAME", default_value = DEFAULT_SUITE)]
    suite: String,
    /// The size of the file system; the file is sparse
    #[arg(long, value_parser = parse_size, default_value = "2G")]
    size: u64,
    /// Install these too: names with commas between, or a FILE (a path with a `/`) with one a line; may be repeated
    #[arg(long, value_name = "FILE|NAME,…")]
    packages: Vec<String>,
    /// Take packages from this mirror, not from the host's own
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Instead of stdin: take the kernel of this image in the store, or (a path with a `/`) this Image document
    #[arg(long, value_name = "NAME|PATH")]
    kernel: Option<String>,
    /// Build again, and replace what is in the cache
    #[arg(long)]
    no_cache: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Distro {
    /// Debian, from the mirror that the host's own apt uses
    Debian,
}

fn main() -> ExitCode {
    cli::main("bg-rootfs", run)
}

fn run(args: Args, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
    let Verb::Build(Build { distro: Distro::Debian, suite, size, packages, mirror, kernel, no_cache }) = args.verb;
    let recipe = Recipe { suite, size, packages, mirror };
    rootfs::build(&BuildArgs { recipe, kernel, use_cache: !no_cache }, cx)
}
