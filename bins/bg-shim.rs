//! `bg-shim`: the parent process of one running VM. Started by `bg-vm start`, not by people.

use lib_common::{cli, vmm};
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::internal("bg-shim", "--launch", vmm::shim::run)
}
