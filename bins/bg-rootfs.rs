//! bg-rootfs: a base root filesystem as ext4, with its package manifest.

use clap::{Parser, Subcommand, ValueEnum};
use lib_common::{Code, Error};
use lib_image::build::{debian, void};
use lib_machine::config::{parse_seconds, parse_size};
use lib_tools::cli::{self, Answer, Context};
use lib_tools::ops::rootfs::{self, BuildArgs, Recipe};
use lib_xbps::location::Location;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

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
    /// Debian: its release, by the name that the mirror has for it [default: bookworm]
    #[arg(long, value_name = "NAME")]
    suite: Option<String>,
    /// The size of the file system; the file is sparse
    #[arg(long, value_parser = parse_size, default_value = "2G")]
    size: u64,
    /// Install these too: names with commas between, or a FILE (a path with a `/`) with one a line; may be repeated
    #[arg(long, value_name = "FILE|NAME,…")]
    packages: Vec<String>,
    /// Debian: take packages from this mirror, not from the host's own
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Instead of stdin: take the kernel of this image in the store, or (a path with a `/`) this Image document
    #[arg(long, value_name = "NAME|PATH")]
    kernel: Option<String>,
    /// Build again, and replace what is in the cache
    #[arg(long)]
    no_cache: bool,
    /// Void: the architecture of the packages [default: the host's]
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Void: take packages from this repository, not from Void's own; may be repeated, the first that has one counts
    #[arg(long, value_name = "URL|DIR", value_parser = Location::parse)]
    repository: Vec<Location>,
    /// Void: start from this tarball of Void's releases, not from packages; sha256sum.txt and .sig must lie beside it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["arch", "repository", "packages", "lock", "dry_run"])]
    from_rootfs: Option<PathBuf>,
    /// Void: trust this public key (PEM or property list; minisign's with --from-rootfs) instead of Void's own
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Void: install exactly the packages of this lock file; where there is none, write it
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Void: make the lock file anew, and tell what changed
    #[arg(long, requires = "lock")]
    update: bool,
    /// Void: take nothing but what --packages names and needs: no base, and none of banger's own files
    #[arg(long, conflicts_with = "from_rootfs")]
    no_base: bool,
    /// Void: take PACKAGE where several provide the virtual package NAME; may be repeated
    #[arg(long, value_name = "NAME:PACKAGE", value_parser = void::packages::provider, conflicts_with = "from_rootfs")]
    provider: Vec<(String, String)>,
    /// Void: take staged packages of a repository at an address, too; those of a directory always count
    #[arg(long, conflicts_with = "from_rootfs")]
    staging: bool,
    /// Void: print the packages, or the whole plan as JSON lines, and make nothing
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "packages")]
    dry_run: Option<DryRun>,
    /// Void: how long the packages' scripts may take [default: 1800]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,
}

#[derive(Clone, Copy, ValueEnum)]
enum DryRun {
    /// As the root's manifest lists them
    Packages,
    /// As a transaction: a line of JSON a package, in its order
    Plan,
}

#[derive(Clone, Copy, ValueEnum)]
enum Distro {
    /// Debian, from the mirror that the host's own apt uses
    Debian,
    /// Void Linux, of packages that are configured in a guest
    Void,
}

fn main() -> ExitCode {
    cli::main("bg-rootfs", run)
}

fn run(args: Args, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
    let Verb::Build(args) = args.verb;
    check(&args)?;
    let timeout = cx.config.deadline(args.timeout, 1800);
    let dry_run = args.dry_run.map(|format| match format {
        DryRun::Packages => rootfs::DryRun::Manifest,
        DryRun::Plan => rootfs::DryRun::Plan,
    });
    let (kernel, use_cache) = (args.kernel.clone(), !args.no_cache);
    let args = BuildArgs { recipe: recipe(args), kernel, use_cache, dry_run, timeout };
    rootfs::build(&args, cx)
}

/// Each option that was given means something with the distribution.
fn check(args: &Build) -> lib_common::Result<()> {
    match args.distro {
        Distro::Debian => only_for(
            "void",
            &[
                ("--arch", args.arch.is_some()),
                ("--repository", !args.repository.is_empty()),
                ("--key", args.key.is_some()),
                ("--from-rootfs", args.from_rootfs.is_some()),
                ("--lock", args.lock.is_some()),
                ("--no-base", args.no_base),
                ("--provider", !args.provider.is_empty()),
                ("--staging", args.staging),
                ("--dry-run", args.dry_run.is_some()),
                ("--timeout", args.timeout.is_some()),
            ],
        ),
        Distro::Void => only_for("debian", &[("--suite", args.suite.is_some()), ("--mirror", args.mirror.is_some())]),
    }
}

fn recipe(args: Build) -> Recipe {
    let (size, packages) = (args.size, args.packages);
    match (args.distro, args.from_rootfs) {
        (Distro::Debian, _) => {
            let suite = args.suite.unwrap_or_else(|| debian::DEFAULT_SUITE.into());
            Recipe::Debian(debian::Recipe { suite, size, packages, mirror: args.mirror })
        }
        (Distro::Void, Some(file)) => Recipe::VoidRelease(void::release::Recipe { file, key: args.key, size }),
        (Distro::Void, None) => Recipe::Void(void::Recipe {
            arch: args.arch,
            size,
            base: !args.no_base,
            packages,
            providers: args.provider,
            staging: args.staging,
            repositories: args.repository,
            key: args.key,
            lock: args.lock,
            update: args.update,
        }),
    }
}

/// None of these options was given: they mean something with the other distribution alone.
fn only_for(distro: &str, options: &[(&str, bool)]) -> lib_common::Result<()> {
    match options.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(Error::new(Code::Usage, format!("{option} is for --distro {distro}"))
            .hint("bg-rootfs build --help lists what is for which distribution")),
        None => Ok(()),
    }
}
