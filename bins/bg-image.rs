//! `bg-image`: the images of the store.

use clap::{Parser, Subcommand, ValueEnum};
use lib_common::cli::{self, Answer, Context};
use lib_common::doc::Name;
use lib_common::ops::{image, machine::ListArgs};
use std::process::ExitCode;

/// List, show and remove images, and choose the default
#[derive(Parser)]
#[command(name = "bg-image", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List images
    Ls {
        /// A table, or JSON lines; a table is the default on a terminal
        #[arg(long, value_name = "FORMAT")]
        output: Option<Format>,
    },
    /// Print the document of an image
    Show {
        /// The image; the default one without it
        name: Option<Name>,
    },
    /// Remove images
    Rm {
        /// The images
        #[arg(required = true)]
        names: Vec<Name>,
    },
    /// Make an image the default, or print the default's document
    Default {
        /// The image
        name: Option<Name>,
    },
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    Table,
    Json,
}

fn main() -> ExitCode {
    cli::main("bg-image", run)
}

fn run(args: Cli, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
    match args.verb {
        Verb::Ls { output } => image::ls(cx, ListArgs { table: output.map(|f| f == Format::Table) }),
        Verb::Show { name } => image::show(cx, name.as_ref()),
        Verb::Rm { names } => image::rm(cx, &names),
        Verb::Default { name } => image::default(cx, name.as_ref()),
    }
}
