//! Mends a stale work disk, whose content sits nested in `/root/root`, on every boot before anybody uses it. By renames
//! alone; never overwrites, never follows a symbolic link, and never keeps the guest from booting.
//!
//! The nested directory is first renamed to a reserved name, in one system call. From then on the disk says that a repair
//! is under way, and any boot finishes what another one began. An ext4 journal keeps changes of directories in their order,
//! so a crash leaves a disk on which the first so many of them were made; one sync at the end makes all of them last.

mod changes;
mod conflicts;
mod copies;
mod dirs;
mod merge;

use super::told::Told;
use super::{NEW_ROOT, one_line};
use changes::Changes;
use conflicts::Kept;
use lib_common::error::{Context, Result};
use lib_common::nested::{Found, IN_PROGRESS, NESTED, is_nested};
use merge::{Merge, Outcome};
use nix::errno::Errno;
use nix::sys::stat::SFlag;
use nix::unistd::{getegid, geteuid, syncfs};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::path::Path;

/// How many levels one boot mends; the next goes on.
const MAX_LEVELS: usize = 1000;

/// Mends the work disk, which is mounted, if it is stale, and tells what was done and what was kept apart.
pub fn mend(told: &mut Told) {
    let home = Path::new(NEW_ROOT).join("root");
    let mended = std::panic::catch_unwind(|| mend_in(&home, &|| ()));
    match mended {
        Ok(Ok(new)) => told.add(new),
        Ok(Err(e)) => told.problems.push(one_line(&e)),
        Err(_) => told.problems.push("the repair of the work disk panicked: a bug".to_owned()),
    }
}

/// The same for the disk at `home`. `before` is called before each change.
///
/// # Errors
/// The disk cannot be looked at.
fn mend_in(home: &Path, before: &dyn Fn()) -> Result<Told> {
    let top = dirs::open_top(home)?;
    let mut told = Told::default();
    if let Some(outcome) = flatten(&top, Changes::new(before)).context("cannot mend the nested work disk")? {
        told.add(in_words(&outcome));
    }
    told.warnings.extend(Kept::find(&top).context("cannot read what the repair has kept apart")?.lines());
    Ok(told)
}

/// Moves everything up, level after level; `None` where the disk is not stale.
fn flatten(top: &File, changes: Changes<'_>) -> nix::Result<Option<Outcome>> {
    let mut outcome = Outcome::default();
    let reserved = CString::new(IN_PROGRESS).map_err(|_| Errno::EINVAL)?;
    let nested = CString::new(NESTED).map_err(|_| Errno::EINVAL)?;
    while outcome.failed == 0 && outcome.levels < MAX_LEVELS && is_nested(|path| look(top, path))? {
        begin(top, changes, &nested, &reserved)?;
        Merge::new(changes, top, &mut outcome).level(&reserved);
    }
    if outcome == Outcome::default() {
        return Ok(None);
    }
    syncfs(top)?;
    Ok(Some(outcome))
}

/// Gives the nested directory the reserved name, which from then on says that a repair is under way.
fn begin(top: &File, changes: Changes<'_>, nested: &CStr, reserved: &CStr) -> nix::Result<()> {
    match dirs::status(top, reserved)? {
        Some(found) if dirs::is(&found, SFlag::S_IFDIR) => return Ok(()),
        Some(_) => conflicts::keep(changes, top, &[], (top, reserved))?,
        None => {}
    }
    changes.rename((top, nested), (top, reserved))
}

/// The path's directories were looked at before, and nobody else uses the disk, so there is no symbolic link among them.
fn look(top: &File, path: &str) -> nix::Result<Option<Found>> {
    let found = dirs::status(top, path)?;
    // Root's, in a guest; whoever is not root himself (a test) owns what he makes.
    let owner = (geteuid().as_raw(), getegid().as_raw());
    Ok(found.map(|f| Found { directory: dirs::is(&f, SFlag::S_IFDIR), of_root: (f.st_uid, f.st_gid) == owner }))
}

fn in_words(outcome: &Outcome) -> Told {
    let Outcome { levels, moved, copies, kept, failed, failures } = outcome;
    let mut told = Told::default();
    if *levels > 0 {
        told.notes.push(format!(
            "the work disk had its content nested in /root/root ({levels} deep), which was mended: moved up {moved}, \
             copies removed {copies}, kept apart {kept}"
        ));
    }
    if *failed > 0 {
        told.problems.push(format!(
            "the work disk's content is nested and could not all be moved up: {failed} failed and stay in \
             /root/{IN_PROGRESS}; the next boot tries again"
        ));
        told.problems.extend(failures.iter().map(|failure| format!("not moved up: {failure}")));
    }
    told
}

#[cfg(test)]
mod tests;
