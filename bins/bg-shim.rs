//! `bg-shim`: the parent process of one running VM. Started by `bg-vm start`, not by people.

use clap::Parser;
use lib_common::{cli, vmm};
use std::path::PathBuf;
use std::process::ExitCode;

/// The parent process of one running VM; `bg-vm start` starts it.
#[derive(Parser)]
#[command(name = "bg-shim", version)]
struct Args {
    /// The launch file in the VM's runtime directory.
    #[arg(long, value_name = "PATH")]
    launch: PathBuf,
}

fn main() -> ExitCode {
    cli::internal("bg-shim", |args: Args| vmm::shim::run(&args.launch))
}
