//! bg-rootfs: a base root filesystem as ext4, with its package manifest.

use clap::{Parser, Subcommand, ValueEnum};
use lib_common::build::{debian, void};
use lib_common::cli::{self, Answer, Context};
use lib_common::config::parse_size;
use lib_common::ops::rootfs::{self, BuildArgs, Recipe};
use lib_common::xbps::location::Location;
use lib_common::{Code, Error};
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
    /// Void: print the packages as a lock file has them, and make nothing
    #[arg(long)]
    dry_run: bool,
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
    rootfs::build(&build_args(args)?, cx)
}

fn build_args(args: Build) -> lib_common::Result<BuildArgs> {
    let (size, packages, kernel, no_cache, dry_run) =
        (args.size, args.packages, args.kernel, args.no_cache, args.dry_run);
    let recipe = match args.distro {
        Distro::Debian => {
            let given = [
                ("--arch", args.arch.is_some()),
                ("--repository", !args.repository.is_empty()),
                ("--key", args.key.is_some()),
                ("--from-rootfs", args.from_rootfs.is_some()),
                ("--lock", args.lock.is_some()),
                ("--dry-run", dry_run),
            ];
            only_for("void", &given)?;
            let suite = args.suite.unwrap_or_else(|| debian::DEFAULT_SUITE.into());
            Recipe::Debian(debian::Recipe { suite, size, packages, mirror: args.mirror })
        }
        Distro::Void => {
            only_for("debian", &[("--suite", args.suite.is_some()), ("--mirror", args.mirror.is_some())])?;
            if let Some(file) = args.from_rootfs {
                let recipe = Recipe::VoidRelease(void::release::Recipe { file, key: args.key, size });
                return Ok(BuildArgs { recipe, kernel, use_cache: !no_cache, dry_run });
            }
            let (arch, repositories, key, lock, update) =
                (args.arch, args.repository, args.key, args.lock, args.update);
            Recipe::Void(void::Recipe { arch, size, packages, repositories, key, lock, update })
        }
    };
    Ok(BuildArgs { recipe, kernel, use_cache: !no_cache, dry_run })
}

/// None of these options was given: they mean something with the other distribution alone.
fn only_for(distro: &str, options: &[(&str, bool)]) -> lib_common::Result<()> {
    match options.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(Error::new(Code::Usage, format!("{option} is for --distro {distro}"))
            .hint("bg-rootfs build --help lists what is for which distribution")),
        None => Ok(()),
    }
}
