//! Runs its arguments as a program on its own streams, writes what that used to the file that `MEASURED` names, as
//! milliseconds of CPU time and KiB of memory at most, and ends with the program's status.
//!
//! A process of its own, because what the kernel counts is of all children of one: a test's process has many at once, and
//! a child begins with the memory of the one that forked it.

#![allow(clippy::disallowed_types, reason = "it is there to start a program")]

use nix::sys::resource::{UsageWho, getrusage};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let program = args.next().expect("a program");
    let report = std::env::var_os("MEASURED").expect("MEASURED");
    let status = Command::new(program).args(args).env_remove("MEASURED").status().expect("it can be started");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("getrusage");
    let [user, system] = [usage.user_time(), usage.system_time()].map(|t| t.tv_sec() * 1000 + t.tv_usec() / 1000);
    std::fs::write(report, format!("{} {}", user + system, usage.max_rss())).expect("the report can be written");
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}
