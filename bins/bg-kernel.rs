//! bg-kernel: a bootable kernel bundle, from a Debian package or a given file.

use clap::{Parser, Subcommand};
use lib_image::build::kernel::{DEFAULT_PACKAGE, Source};
use lib_tools::cli::{self, Answer, Context};
use lib_tools::ops::kernel;
use std::path::PathBuf;
use std::process::ExitCode;

/// Make a bootable kernel bundle: an ELF kernel, an initrd with the guest agent, and the modules
#[derive(Parser)]
#[command(name = "bg-kernel", version)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Print an Image document with the section `kernel`; what was built before is found in the cache
    Build(Build),
}

#[derive(clap::Args)]
struct Build {
    /// Take the kernel of this Debian package, which apt downloads
    #[arg(long, value_name = "NAME", default_value = DEFAULT_PACKAGE)]
    package: String,
    /// Take the kernel of this Debian package file
    #[arg(long, value_name = "FILE", conflicts_with = "package")]
    deb: Option<PathBuf>,
    /// Take this kernel: an uncompressed ELF or a bzImage
    #[arg(long, value_name = "FILE", conflicts_with_all = ["package", "deb"])]
    vmlinux: Option<PathBuf>,
    /// With --vmlinux: its modules, a directory lib/modules/VERSION; without it all has to be built in
    #[arg(long, value_name = "DIR", requires = "vmlinux")]
    modules: Option<PathBuf>,
    /// With --vmlinux: its release, where the kernel does not say it
    #[arg(long, value_name = "VERSION", requires = "vmlinux")]
    kernel_version: Option<String>,
    /// Download and build again, and replace what is in the cache
    #[arg(long)]
    no_cache: bool,
}

fn main() -> ExitCode {
    cli::main("bg-kernel", run)
}

fn run(args: Args, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
    let Verb::Build(args) = args.verb;
    let source = match (args.vmlinux, args.deb) {
        (Some(file), _) => Source::Vmlinux { file, modules: args.modules, version: args.kernel_version },
        (None, Some(deb)) => Source::Deb(deb),
        (None, None) => Source::Package(args.package),
    };
    kernel::build(cx, &source, !args.no_cache)
}
