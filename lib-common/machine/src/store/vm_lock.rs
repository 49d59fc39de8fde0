//! `vm.lock`: the lock of a VM itself. The shim takes it before it starts the VMM, and the VMM inherits it, so it is held exactly as
//! long as one of the two lives. A lock shows from every pid namespace; a pid means something in its own alone.
//!
//! The file names the holder's pid namespace and boot. These choose the words and nothing else: a lock that names none counts as
//! held here. A VM that an older banger started holds no such lock, and its processes say whether it runs.

use lib_common::error::{Code, Error, Result, sound};
use lib_common::sys::lock::{is_held, take_until_closed};
use lib_common::sys::owned;
use lib_common::sys::poll::wait;
use lib_common::sys::process::{all_pids, boot_id, openers, own_pid_namespace, pid_namespace_of};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// The file's name in a VM's directory.
pub const FILE: &str = "vm.lock";

/// How long a VM whose shim was killed may take to let its lock go before it counts as one that runs.
pub const JUST_ENDING: Duration = Duration::from_millis(300);

/// How long the processes of a VM that is just ending may hold its lock.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Between two looks at a lock that is about to be free.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Who holds a VM's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// No process: the VM has ended, or an older banger started it.
    No,
    /// A process of this pid namespace.
    Here,
    /// A process of another pid namespace.
    Elsewhere,
}

/// Takes the lock for the VM of a directory, until the file that this returns and every inherited copy of it are closed.
///
/// # Errors
/// [`Code::InUse`] if a process of the VM still lives after 5 s.
pub fn take(machine: &Path) -> Result<File> {
    let path = machine.join(FILE);
    let Some(mut file) = take_until_closed(&path, ENDS_WITHIN)? else { return Err(still_held(machine)) };
    let text = format!("{} {}\n", own_pid_namespace()?, boot_id()?);
    let written = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
    match written.map_err(|e| Error::io("write", &path, &e)) {
        // A VM starts on a full disk, too; the words about it are poorer then.
        Err(e) if !e.is_no_room() => Err(e),
        _ => Ok(file),
    }
}

/// Who holds the lock of the VM in a directory.
///
/// # Errors
/// What keeps the lock from being looked at.
pub fn held(machine: &Path) -> Result<Held> {
    let path = machine.join(FILE);
    if !is_held(&path)? {
        return Ok(Held::No);
    }
    let Some((namespace, boot)) = holder(&path)? else { return Ok(Held::Here) };
    let is_here = namespace == own_pid_namespace()? && boot == boot_id()?;
    Ok(if is_here { Held::Here } else { Held::Elsewhere })
}

/// Waits, at most `within`, until no process holds the lock; says whether it is free.
///
/// # Errors
/// As those of [`held`].
pub fn wait_free(machine: &Path, within: Duration) -> Result<bool> {
    let deadline = Instant::now() + within;
    while is_held(&machine.join(FILE))? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        wait(&[], Some(Instant::now() + LOOK_AGAIN))?;
    }
    Ok(true)
}

/// Refuses a VM that runs in another pid namespace: its processes cannot be signalled from here.
///
/// # Errors
/// [`Code::Permission`] for such a VM.
pub fn refuse_elsewhere(machine: &Path) -> Result<()> {
    if held(machine)? == Held::Elsewhere { Err(elsewhere(machine)?) } else { Ok(()) }
}

/// Refuses to go on while a process of the VM lives: one of another pid namespace, or one that was to be ended.
///
/// # Errors
/// [`Code::Permission`] for the former, [`Code::InUse`] for one of this namespace that lives for 5 s more.
pub fn check_ended(machine: &Path) -> Result<()> {
    refuse_elsewhere(machine)?;
    if wait_free(machine, ENDS_WITHIN)? { Ok(()) } else { Err(still_held(machine)) }
}

/// The error for a VM that runs in another pid namespace.
fn elsewhere(machine: &Path) -> Result<Error> {
    let name = name_of(machine);
    let error = Error::new(Code::Permission, format!("the VM `{name}` runs in another pid namespace"));
    let namespace = holder(&machine.join(FILE))?.map(|(namespace, _)| namespace);
    // The lowest pid is most likely the first process of that namespace, which stays.
    let mut pids = all_pids()?;
    pids.sort_unstable();
    Ok(match pids.into_iter().find(|pid| namespace.is_some() && pid_namespace_of(*pid) == namespace) {
        Some(pid) => error.hint(format!("nsenter --all --target {pid} bg-vm stop {name}")),
        None => error.hint(format!("bg-vm stop {name}  # in the pid namespace in which it was started")),
    })
}

/// The error for a VM of which a process lives that could not be ended.
fn still_held(machine: &Path) -> Error {
    let name = name_of(machine);
    let error = Error::new(Code::InUse, format!("a process of the VM `{name}` still lives"));
    let pids: Vec<String> = openers(&machine.join(FILE)).iter().map(ToString::to_string).collect();
    if pids.is_empty() {
        return error.hint(format!("bg-vm kill {name}"));
    }
    error.hint(format!("kill -KILL {}  # after a look: ps -fp {}", pids.join(" "), pids.join(",")))
}

/// The pid namespace and the boot of the process that took the lock, if the file names them.
fn holder(path: &Path) -> Result<Option<(u64, String)>> {
    let text = sound(owned::read_text(path, 200))?.unwrap_or_default();
    Ok(match text.split_whitespace().collect::<Vec<_>>()[..] {
        [namespace, boot] => namespace.parse().ok().map(|namespace| (namespace, boot.to_owned())),
        _ => None,
    })
}

fn name_of(machine: &Path) -> String {
    machine.file_name().unwrap_or_default().to_string_lossy().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_lock_is_held_until_its_last_copy_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(held(dir.path()).unwrap(), Held::No, "there is no file");
        let file = take(dir.path()).unwrap();
        let inherited = file.try_clone().unwrap();
        assert_eq!(held(dir.path()).unwrap(), Held::Here);
        assert_eq!(dir.path().join(FILE).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        drop(file);
        assert_eq!(held(dir.path()).unwrap(), Held::Here);
        drop(inherited);
        check_ended(dir.path()).unwrap();
        assert_eq!(held(dir.path()).unwrap(), Held::No);
    }

    #[test]
    fn the_namespace_of_the_holder_chooses_the_words_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = take(dir.path()).unwrap();
        let (own, boot) = (own_pid_namespace().unwrap(), boot_id().unwrap());
        for (text, expected) in [
            (format!("{own} {boot}\n"), Held::Here),
            (format!("{} {boot}\n", own + 1), Held::Elsewhere),
            (format!("{own} another-boot\n"), Held::Elsewhere),
            (String::new(), Held::Here),
            ("junk".into(), Held::Here),
        ] {
            std::fs::write(dir.path().join(FILE), &text).unwrap();
            assert_eq!(held(dir.path()).unwrap(), expected, "{text}");
            let refused = refuse_elsewhere(dir.path()).map_err(|e| e.code());
            assert_eq!(refused, if expected == Held::Elsewhere { Err(Code::Permission) } else { Ok(()) }, "{text}");
        }
        assert!(!wait_free(dir.path(), Duration::from_millis(20)).unwrap());
        drop(file);
        // A child that another test has just forked has every descriptor until its exec.
        assert!(wait_free(dir.path(), ENDS_WITHIN).unwrap());
    }
}
