//! `bg-doctor`: can this host run VMs, and will this image boot.

use clap::Parser;
use lib_common::doc::Name;
use lib_tools::cli::{self, Answer, Context, Format};
use lib_tools::ops::doctor::{self, DoctorArgs};
use std::process::ExitCode;

/// Say what this host lacks, what will keep an image from booting, and what mends it
#[derive(Parser)]
#[command(name = "bg-doctor", version)]
struct Cli {
    /// Check whether an image will boot, instead of the host
    #[arg(long, value_name = "NAME")]
    image: Option<Name>,
    /// Check that kernel command line, instead of the one that the image's VMs get
    #[arg(long, value_name = "LINE", requires = "image")]
    command_line: Option<String>,
    /// Print each setting and where it came from, and check nothing
    #[arg(long, conflicts_with_all = ["image", "command_line"])]
    print_config: bool,
    /// A table, or JSON; a table is the default on a terminal
    #[arg(long, value_name = "FORMAT")]
    output: Option<Format>,
}

fn main() -> ExitCode {
    cli::main("bg-doctor", run)
}

fn run(args: Cli, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
    let how = DoctorArgs { table: args.output.map(Format::is_table) };
    match &args.image {
        Some(name) => doctor::image(cx, name, args.command_line.as_deref(), how),
        None if args.print_config => doctor::print_config(cx, how),
        None => doctor::host(cx, how),
    }
}
