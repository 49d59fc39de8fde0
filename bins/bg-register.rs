//! `bg-register`: put an image into the store.

use clap::Parser;
use lib_common::doc::Name;
use lib_tools::cli::{self, Answer, Context};
use lib_tools::ops::register::{RegisterArgs, register};
use std::path::PathBuf;
use std::process::ExitCode;

/// Put the image on stdin into the store
#[derive(Parser)]
#[command(name = "bg-register", version)]
struct Cli {
    /// Read the document from a file
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// The image's name
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// Take the place of an image of that name
    #[arg(long)]
    replace: bool,
    /// Make it the default image
    #[arg(long)]
    default: bool,
}

fn main() -> ExitCode {
    cli::main("bg-register", run)
}

fn run(args: Cli, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
    let Cli { file, name, replace, default } = args;
    register(cx, &RegisterArgs { file, name, replace, default })
}
