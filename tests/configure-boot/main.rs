//! A configure boot as a program of its own, for the tests in `tests/vm/configure.rs`: prints how each script ended, a line
//! of JSON each.

use clap::Parser;
use lib_common::doc::{Kernel, Kind, to_json};
use lib_tools::cli::{self, Answer, Context, Source};
use lib_tools::ops::rootfs::configure::configure;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Configure a root file system, on the kernel of the Image document on stdin
#[derive(Parser)]
struct Args {
    /// An ext4 file, which is written in place
    root: PathBuf,
    /// How long that may take, in seconds
    timeout: u64,
}

fn main() -> ExitCode {
    cli::main("configure-boot", run)
}

fn run(args: Args, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
    let kernel: Kernel = cx.document(&Source::default(), Kind::Image)?.require()?;
    for script in configure(cx, &kernel, &args.root, Duration::from_secs(args.timeout))? {
        cx.emit_line(&to_json(&script));
    }
    Ok(Answer::Done)
}
