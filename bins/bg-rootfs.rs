//! bg-rootfs: a base root filesystem as ext4, with its package manifest.

use clap::{Parser, Subcommand, ValueEnum};
use lib_common::build::debian::{DEFAULT_SUITE, Recipe};
use lib_common::cli::{self, Answer, Context};
use lib_common::config::parse_size;
use lib_common::ops::rootfs::{self, BuildArgs, What, void};
use std::path::PathBuf;
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
    /// Debian's release, by the name that the mirror has for it
    #[arg(long, value_name = "NAME", default_value = DEFAULT_SUITE)]
    suite: String,
    /// The size of the file system; the file is sparse
    #[arg(long, value_parser = parse_size, default_value = "2G")]
    size: u64,
    /// Install these too: names with commas between, or a FILE (a path with a `/`) with one a line; may be repeated
    #[arg(long, value_name = "FILE|NAME,…")]
    packages: Vec<String>,
    /// Take Debian's packages from this mirror, not from the host's own
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Take Void's packages from here, not from Void; may be repeated, the first that has a package wins
    #[arg(long, value_name = "URL|DIR")]
    repository: Vec<String>,
    /// Trust Void packages that this key has signed, not Void's; may be repeated
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Take the Void packages that this file names; it is written where it is not there
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Void's architecture; else this host's
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    /// Print which Void packages would be installed, and build nothing
    #[arg(long)]
    dry_run: bool,
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
    /// Void Linux, configured in a VM
    Void,
}

fn main() -> ExitCode {
    cli::main("bg-rootfs", run)
}

fn run(args: Args, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
    let Verb::Build(args) = args.verb;
    let Build { size, packages, kernel, .. } = args;
    let what = match args.distro {
        Distro::Debian => What::Debian(Recipe { suite: args.suite, size, packages, mirror: args.mirror }),
        Distro::Void => What::Void(void::Recipe {
            repositories: args.repository,
            keys: args.key,
            lock: args.lock,
            arch: args.arch,
            packages,
            size,
            dry_run: args.dry_run,
        }),
    };
    rootfs::build(&BuildArgs { what, kernel, use_cache: !args.no_cache }, cx)
}
