//! `/init` of the initrd: from the kernel's first process to the guest's own init. Ends the machine on any error.

mod configure;
mod console;
pub(crate) mod files;
mod handover;
mod identity;
mod keys;
mod mounts;
mod nested;
mod network;
mod service;
pub mod stages;
mod switch;
mod told;
mod trim;

use crate::power;
use lib_common::doc::SecondDisk;
use lib_common::error::{Code, Error, Result};
use stages::Stages;
use std::convert::Infallible;
use std::process::ExitCode;
use told::Told;

/// Where the guest's root file system is mounted before it becomes `/`.
const NEW_ROOT: &str = "/newroot";

/// The agent's own directory on the tmpfs that becomes the guest's `/run`.
const AGENT_DIR: &str = "/newroot/run/banger";

/// Boots the guest. Returns only where even ending the machine failed; the kernel then panics, which the command
/// line turns into a reset.
pub fn main() -> ExitCode {
    if let Err(e) = only_in_an_initrd() {
        eprintln!("banger-init: {}", one_line(&e));
        return ExitCode::from(64);
    }
    let why = match std::panic::catch_unwind(boot) {
        Ok(Ok(never)) => match never {},
        Ok(Err(e)) => one_line(&e),
        Err(_) => "a bug: it panicked".to_owned(),
    };
    console::say(&format!("banger-init: {why}; the machine is ended"));
    console::flush();
    power::end_now();
    ExitCode::FAILURE
}

/// Everything below mounts over `/dev` and deletes files of `/`: on a running system that would be a disaster.
fn only_in_an_initrd() -> Result<()> {
    if std::process::id() != 1 {
        return Err(Error::new(Code::Usage, "this is for process 1 of an initrd only"));
    }
    if !switch::root_is_in_memory()? {
        return Err(Error::new(Code::Usage, "/ is not an initrd"));
    }
    Ok(())
}

fn boot() -> Result<Infallible> {
    let mut stages = Stages::begin();
    let mut told = Told::default();
    mounts::kernel_file_systems("")?;
    let identity = identity::read()?;
    mounts::load_modules()?;
    stages.done("modules");
    mounts::root()?;
    stages.done("root");
    if identity.configure {
        configure::run()?;
        console::flush();
        power::end_now();
        return Err(Error::new(Code::Os, "the packages are configured"));
    }
    let mounted = mounts::second(identity.second_disk).map_err(|e| told.problems.push(one_line(&e)));
    stages.done("work");
    if mounted.is_ok() && identity.second_disk == SecondDisk::Work {
        nested::mend(&mut told);
        stages.done("mend");
    }
    identity::lay_down(&identity)?;
    keys::authorize(&identity.authorized_keys).unwrap_or_else(|e| told.problems.push(one_line(&e)));
    stages.done("identity");
    if let Some(net) = &identity.net {
        network::set_up(net).unwrap_or_else(|e| told.problems.push(one_line(&e)));
        stages.done("network");
    }
    service::install(identity.second_disk != SecondDisk::Work)?;
    told.save(AGENT_DIR)?;
    handover::write(&identity)?;
    switch::free_initrd()?;
    stages.done("agent");
    stages.save(AGENT_DIR)?;
    told.say();
    switch::to_new_root()
}

/// An error and its causes as one line for the console.
fn one_line(e: &Error) -> String {
    let mut line = e.message().to_owned();
    for cause in e.causes() {
        line.push_str(": ");
        line.push_str(&cause.replace('\n', " "));
    }
    line
}
