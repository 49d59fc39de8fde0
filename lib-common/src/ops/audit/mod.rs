//! The audit: what lies about, whose it is, and whether it is a leak. Read-only; [`mend`] takes one thing away.
//!
//! A thing is abandoned when nobody holds its lock and no process of its operation lives. An abandoned thing is a leak
//! once it is five minutes old: the next tool of a pipeline may still come for it.

mod files;
mod processes;

use crate::cli::{Answer, Context};
use crate::doc::{API_VERSION, Finding, to_json};
use crate::error::Result;
use crate::store::{Journal, Store, remove_by_rename};
use crate::sys::fs::{remove_dir, remove_file};
use crate::sys::lock::Lock;
use crate::sys::process::ProcessId;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Younger things may yet be finished by somebody.
pub const YOUNG: Duration = Duration::from_secs(300);

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
    /// Undo the open operation of this object, then remove the directory if it has no record.
    Undo(PathBuf),
    /// Remove a directory through staging.
    RemoveDir(PathBuf),
    /// Remove a file.
    RemoveFile(PathBuf),
    /// End the shim and what belongs to it, and remove its runtime directory.
    EndRuntime(PathBuf),
    /// End a process.
    EndProcess(ProcessId),
}

/// `bg-verify`: prints findings, one a line; exit 1 if one of them is a leak.
pub fn verify(cx: &mut Context<'_>, now: bool) -> Result<Answer> {
    cx.stages.begin("audit");
    let found = audit(&cx.store(), &cx.config.cache_dir, now)?;
    for f in &found {
        cx.emit_line(&to_json(&f.finding));
    }
    Ok(if found.iter().any(|f| f.finding.is_leak) { Answer::No } else { Answer::Done })
}

/// Looks at everything. `now`: young things count too.
pub fn audit(store: &Store, cache: &Path, now: bool) -> Result<Vec<Found>> {
    let mut found = files::machines(store)?;
    found.extend(files::images(store)?);
    found.extend(files::staging(store)?);
    found.extend(files::runtime(store)?);
    found.extend(files::temporary(store, cache)?);
    found.extend(processes::processes(store)?);
    for f in &mut found {
        let old = now || u128::from(f.finding.age_ms) >= YOUNG.as_millis();
        f.finding.is_leak = old && !matches!(f.remedy, Remedy::Report);
    }
    Ok(found)
}

/// Takes one found thing away.
pub fn mend(store: &Store, found: &Found) -> Result<()> {
    match &found.remedy {
        Remedy::Report => Ok(()),
        Remedy::Undo(dir) => {
            let _lock = Lock::take(&dir.join("lock"), store.lock_wait())?;
            Journal::in_dir(dir).undo_open()?;
            let whole = dir.join("machine.json").exists() || dir.join("image.json").exists();
            if whole { Ok(()) } else { remove_by_rename(store, dir) }
        }
        Remedy::RemoveDir(dir) => remove_dir(dir),
        Remedy::RemoveFile(file) => remove_file(file),
        Remedy::EndRuntime(dir) => {
            crate::store::end_shim(dir)?;
            remove_dir(dir)
        }
        Remedy::EndProcess(process) => {
            if let Some(handle) = process.open()? {
                handle.signal(nix::sys::signal::Signal::SIGKILL)?;
                handle.wait(Duration::from_secs(5))?;
            }
            Ok(())
        }
    }
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
        fix: "bg-verify | bg-gc".into(),
    }
}

/// Since the last change of a file or directory, in milliseconds; 0 where it cannot be asked.
fn age_ms(path: &Path) -> u64 {
    let changed = std::fs::symlink_metadata(path).and_then(|m| m.modified());
    let age = changed.ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}
