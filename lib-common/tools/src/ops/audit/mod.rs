//! The audit: what lies about, whose it is, and whether it is a leak. Read-only; [`mend`] takes one thing away.
//!
//! A thing is abandoned when nobody holds its lock and no process of its operation lives. An abandoned thing is a leak
//! once it is five minutes old: the next tool of a pipeline may still come for it.

mod files;
mod fix;
mod host;
mod images;
mod leftover;
mod machines;
mod mend;
mod missing;
mod net;
mod processes;

pub use mend::{mend, refuse_elsewhere};

use crate::cli::{Answer, Context};
use lib_common::doc::{API_VERSION, Finding, Name, to_json};
use lib_common::error::Result;
use lib_common::sys::poll::wait;
use lib_common::sys::process::ProcessId;
use lib_machine::config::Config;
use lib_machine::store::Store;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Younger things may yet be finished by somebody.
pub const YOUNG: Duration = Duration::from_secs(300);

/// A directory is there a moment before its lock, and a temporary file for as long as a save takes. What is younger is
/// looked at once more.
const IN_THE_MAKING: Duration = Duration::from_secs(1);

/// Between two looks at what somebody may just be making.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What is just ending, such as a shim that has removed its directory, or just changing hands, is given this long.
const JUST_ENDING: Duration = Duration::from_millis(300);

/// A finding and how to take it away.
#[derive(Debug)]
pub struct Found {
    /// What is reported.
    pub finding: Finding,
    remedy: Remedy,
}

#[derive(Debug)]
enum Remedy {
    /// Nothing: it is damage, not a leak.
    Report,
    /// Undo the open operation of this VM, then remove its directory if it has no record.
    Machine(PathBuf),
    /// Remove the directory of an image without a record.
    Image(PathBuf),
    /// Remove a directory in staging.
    Staged(PathBuf),
    /// Remove a seed that the record of its image does not name.
    Seed(PathBuf),
    /// Remove a VM's known_hosts that has another key than its record.
    KnownHosts(PathBuf),
    /// Remove a temporary file or directory.
    Temporary(PathBuf),
    /// End the shim and what belongs to it, and remove its runtime directory; it is that of a VM of the store, or not.
    Runtime(PathBuf, Option<Name>),
    /// End a process.
    Process(ProcessId),
    /// Take away what `bg-tap` made.
    Network(net::Remedy),
}

/// What `bg-verify` takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyArgs {
    /// Young things are leaks, too.
    pub now: bool,
    /// Digest the files of images.
    pub deep: bool,
}

/// `bg-verify`: prints findings, one a line; exit 1 if one of them is a leak.
pub fn verify(cx: &mut Context<'_>, args: VerifyArgs) -> Result<Answer> {
    cx.stages.begin("audit");
    let found = audit(&cx.store(), &cx.config, args)?;
    for f in &found {
        cx.emit_line(&to_json(&f.finding));
    }
    Ok(if found.iter().any(|f| f.finding.is_leak) { Answer::No } else { Answer::Done })
}

/// Looks at everything.
///
/// # Errors
/// [`lib_common::Code::Permission`] where one of the store's own directories is a link, or another user's: what is in it is
/// nobody's whom we know. What keeps a record or a process from being read: who cannot look does not know what is a leak.
pub fn audit(store: &Store, config: &Config, args: VerifyArgs) -> Result<Vec<Found>> {
    store.check()?;
    // First the directories and processes, then who they belong to: a VM is in the store before it has any.
    let (dirs, running) = (files::runtime_dirs(store)?, lib_machine::store::processes::seen(store.runtime_dir())?);
    let machines::Machines { known, damaged, mut found } = machines::machines(store, config)?;
    found.extend(images::images(store, args.deep)?);
    found.extend(images::unnamed(store)?);
    found.extend(files::staging(store, config)?);
    found.extend(files::temporary(store, config.cache()?)?);
    let mut nobodys = files::runtime(store, dirs, &known)?;
    nobodys.extend(processes::processes(store, running, &known)?);
    machines::spare_damaged(&mut nobodys, &damaged);
    found.extend(nobodys);
    found.extend(host::locks(store)?);
    found.extend(host::loop_devices(store, config)?);
    found.extend(host::mounts(store, config)?);
    found.extend(net::networks(store, config, args.now)?);
    for f in &mut found {
        let old = args.now || u128::from(f.finding.age_ms) >= YOUNG.as_millis();
        f.finding.is_leak = old && !matches!(f.remedy, Remedy::Report);
        fix::for_its_age(&mut f.finding);
    }
    Ok(found)
}

/// A finding; whether it is a leak is decided by its age at the end.
fn finding(kind: &str, id: String, evidence: impl Into<String>) -> Finding {
    Finding {
        api_version: API_VERSION.into(),
        kind: kind.into(),
        id,
        owner: String::new(),
        age_ms: 0,
        evidence: evidence.into(),
        is_leak: false,
        fix: fix::COLLECT.into(),
    }
}

/// Waits until it is old enough that nobody can just be making it without a lock, or `decided`.
fn outlast_the_making(path: &Path, decided: impl Fn() -> Result<bool>) -> Result<()> {
    // By a clock that nobody sets: a file may be from the future.
    let longest = Instant::now() + IN_THE_MAKING;
    let is_young = || u128::from(age_ms(path)) < IN_THE_MAKING.as_millis() && Instant::now() < longest;
    while !decided()? && is_young() && path.exists() {
        wait(&[], Some(Instant::now() + LOOK_AGAIN))?;
    }
    Ok(())
}

/// Waits until something is so, at most so long; says whether it is.
fn wait_until(at_most: Duration, is_so: impl Fn() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + at_most;
    while !is_so()? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        wait(&[], Some(Instant::now() + LOOK_AGAIN))?;
    }
    Ok(true)
}

/// Since the last change of a file or directory, in milliseconds; 0 where it cannot be asked.
fn age_ms(path: &Path) -> u64 {
    let changed = std::fs::symlink_metadata(path).and_then(|m| m.modified());
    let age = changed.ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}
