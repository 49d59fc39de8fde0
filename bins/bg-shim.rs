//! `bg-shim`: the parent process of one running VM. Started by `bg-vm start`, not by people.

use lib_machine::vmm;
use lib_tools::cli;
use std::process::ExitCode;

const HELP: &str = "\
The parent process of one running VM; `bg-vm start` starts it

Usage: bg-shim --launch <PATH>

Options:
      --launch <PATH>  The launch file in the VM's runtime directory
  -h, --help           Print help
  -V, --version        Print version";

fn main() -> ExitCode {
    cli::internal("bg-shim", HELP, "--launch", vmm::shim::run)
}
