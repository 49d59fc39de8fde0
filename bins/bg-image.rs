//! `bg-image`: the images of the store.

use clap::{Parser, Subcommand};
use lib_common::doc::Name;
use lib_machine::config::{parse_memory_mib, parse_seconds, parse_vcpu};
use lib_tools::cli::{self, Answer, BootTimeout, Context, Format};
use lib_tools::ops::image::{self, BundleArgs, DiffArgs, Operand, ReconcileArgs, VerifyArgs};
use lib_tools::ops::machine::ListArgs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// List, show, check, compare, bundle and remove images, and choose the default
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
    /// Boot a throwaway clone of an image and check it
    Verify {
        /// The image; the default one without it
        name: Option<Name>,
        /// How long the guest may take until it has booted and answered; 600 seconds are usual, and its shutdown
        /// has 120 more
        #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
        timeout: Option<Duration>,
        #[command(flatten)]
        boot: BootTimeout,
        /// The clone's memory
        #[arg(long, value_name = "SIZE", value_parser = parse_memory_mib)]
        memory: Option<u64>,
        /// The clone's virtual processors
        #[arg(long, value_name = "N", value_parser = parse_vcpu)]
        vcpu: Option<u32>,
    },
    /// Compare the packages, kernels and sizes of two images; exit 1 where packages or kernels differ
    Diff {
        /// An image, or a file with its document (a path with a `/`)
        a: Operand,
        /// The image to compare it with, or a file
        b: Operand,
        /// A table, or the document; a table is the default on a terminal
        #[arg(long, value_name = "FORMAT")]
        output: Option<Format>,
    },
    /// Bring an image's record up to its files: make missing seeds, record a kernel that was rebuilt
    Reconcile {
        /// The image; the default one without it
        name: Option<Name>,
        /// Give the image the kernel of the document in a file, or on stdin where PATH is `-`
        #[arg(long, value_name = "PATH")]
        kernel: Option<PathBuf>,
    },
    /// Make a bundle of an image, the guest agent, the SSH key and Firecracker, which is then used by default
    Bundle {
        /// The image; the default one without it
        name: Option<Name>,
        /// Put in the root file system of the document in a file, too, or on stdin where PATH is `-`: what the image
        /// was before it was provisioned
        #[arg(long, value_name = "PATH")]
        base: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    cli::main("bg-image", run)
}

fn run(args: Cli, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
    match args.verb {
        Verb::Ls { output } => image::ls(cx, ListArgs { table: output.map(Format::is_table) }),
        Verb::Show { name } => image::show(cx, name.as_ref()),
        Verb::Rm { names } => image::rm(cx, &names),
        Verb::Default { name } => image::default(cx, name.as_ref()),
        Verb::Verify { name, timeout, boot, memory, vcpu } => {
            boot.apply(&mut cx.config);
            let timeout = cx.config.deadline(timeout, 600);
            image::verify(cx, &VerifyArgs { name, timeout, memory_mib: memory, vcpu })
        }
        Verb::Diff { a, b, output } => image::diff(cx, &DiffArgs { a, b, table: output.map(Format::is_table) }),
        Verb::Bundle { name, base } => image::bundle(cx, &BundleArgs { name, base }),
        Verb::Reconcile { name, kernel } => image::reconcile(cx, &ReconcileArgs { name, kernel }),
    }
}
