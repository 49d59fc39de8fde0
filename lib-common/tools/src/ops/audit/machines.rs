//! VMs: half made, damaged, missing files, with files that no record knows, or not plain directories of the caller's.

use super::files::{children, of_dir, refused};
use super::leftover::is_leftover;
use super::{Found, Remedy, age_ms, finding, fix, missing};
use lib_common::doc::{Document, Guest, Kind, Name, Undo};
use lib_common::error::{Error, Result, looked_at};
use lib_common::sys::dirs::list;
use lib_common::sys::fs::TEMP_PREFIX;
use lib_common::sys::lock::glance;
use lib_common::sys::owned;
use lib_common::sys::thread::in_threads;
use lib_image::disk::clone::{ROOT_FILE, WORK_FILE};
use lib_machine::config::Config;
use lib_machine::guest::ssh::known_hosts_line;
use lib_machine::net::give_back_all;
use lib_machine::store::{Journal, MachineDir, OpenOperation, Store, id_of, read_record, vm_lock};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// All that a VM's directory has, beside temporary files.
const NAMES: [&str; 17] = [
    ROOT_FILE,
    WORK_FILE,
    "console.log",
    "console.log.1",
    "exit.json",
    "initrd",
    "journal",
    KNOWN_HOSTS,
    "lock",
    "machine.json",
    // Of an image build that failed and was kept.
    crate::ops::image_build::vm::MODULES,
    crate::ops::image_build::provision::LOG,
    "shim.log",
    "shim.log.1",
    "ssh_host_ed25519_key",
    vm_lock::FILE,
    "vmlinux",
];
const KNOWN_HOSTS: &str = "known_hosts";

/// The VMs of a store.
#[derive(Default)]
pub struct Machines {
    /// Each one's runtime directory and name: by its journal, where it has no record yet, and by its record.
    pub known: Vec<(PathBuf, Name)>,
    /// Those whose journal or record is damaged, or whose record was lost: what is nobody's may be theirs.
    pub damaged: Vec<Name>,
    /// What is wrong.
    pub found: Vec<Found>,
}

/// Looks at every VM once: journal first and record second, since a creation saves its record and then ends in the journal.
pub fn machines(store: &Store, config: &Config) -> Result<Machines> {
    let mut all = Machines::default();
    for part in in_threads(&children(&store.machines_dir())?, |part| some(store, config, part)) {
        let part = part?;
        all.known.extend(part.known);
        all.damaged.extend(part.damaged);
        all.found.extend(part.found);
    }
    Ok(all)
}

fn some(store: &Store, config: &Config, paths: &[PathBuf]) -> Result<Machines> {
    let mut some = Machines::default();
    for path in paths {
        match owned::is_dir(&store.machines_dir(), path.file_name().unwrap_or_default()) {
            Ok(true) => look_into(store, config, path, &mut some)?,
            Ok(false) => {}
            Err(e) => some.found.push(refused("machine", path, e)?),
        }
    }
    Ok(some)
}

/// # Errors
/// What keeps journal, record or directory from being read: then nobody knows what is the VM's.
fn look_into(store: &Store, config: &Config, path: &Path, all: &mut Machines) -> Result<()> {
    // Held while we look, so that nothing begins or ends between the journal and the record.
    let look = glance(&path.join("lock"))?;
    let journal = looked_at(Journal::in_dir(path, give_back_all).open_operation())?;
    let record = looked_at(read_record(&path.join("machine.json"), Kind::Machine))?;
    let open = journal.as_ref().ok().and_then(Option::as_ref);
    let is_lost = matches!(record, Ok(None)) && !is_leftover(path, open)?;
    if let Some(name) = path.file_name().and_then(|n| Name::parse(n.to_str()?).ok()) {
        let machine = store.machine_dir(&name);
        let undo = journal.iter().flatten().flat_map(|open| &open.undo);
        let begun = undo.filter_map(|undo| match undo {
            Undo::StopVm { runtime_dir } => Some(runtime_dir.to_path_buf()),
            _ => None,
        });
        let recorded = record.iter().flatten().filter_map(|doc| runtime_dir(&machine, doc));
        all.known.extend(begun.chain(recorded).map(|dir| (dir, name.clone())));
        all.damaged.extend((journal.is_err() || record.is_err() || is_lost).then_some(name));
    }
    // Whoever holds the lock works on it; without its directory, it was removed meanwhile.
    if look.is_some() && path.symlink_metadata().is_ok() {
        all.found.extend(wrong_with(store, config, path, (journal, record), is_lost)?);
    }
    Ok(())
}

/// What runs for no VM that the store knows may run for one whose record is damaged or missing: that VM lives on, and its record may
/// yet be mended.
pub fn spare_damaged(found: &mut [Found], damaged: &[Name]) {
    let Some(names) = damaged.iter().map(|name| format!("`{name}`")).reduce(|all, name| format!("{all}, {name}"))
    else {
        return;
    };
    for f in found {
        let nobodys = match &f.remedy {
            Remedy::Runtime(_, owner) => owner.is_none(),
            Remedy::Process(_) => f.finding.owner.is_empty(),
            _ => false,
        };
        if nobodys {
            f.finding.evidence += &format!("; it may be of {names}, whose record is damaged or missing");
            f.finding.fix =
                format!("bg-vm ls  # mend the record of {names}, or remove the VM: bg-vm rm --force {}", damaged[0]);
            f.remedy = Remedy::Report;
        }
    }
}

fn runtime_dir(machine: &MachineDir, doc: &Document) -> Option<PathBuf> {
    Some(machine.runtime_dir(&id_of(doc).ok()?).ok()?.to_path_buf())
}

/// What is wrong with a VM that nobody works on.
fn wrong_with(
    store: &Store,
    config: &Config,
    path: &Path,
    (journal, record): (Result<Option<OpenOperation>>, Result<Option<Document>>),
    is_lost: bool,
) -> Result<Vec<Found>> {
    let mut found = vec![];
    match journal {
        Ok(None) => {}
        Ok(Some(open)) => return Ok(vec![unfinished_one(store, config, path, &open)]),
        Err(e) => found.push(damaged(path, "journal", &e)),
    }
    match record {
        Ok(Some(doc)) => {
            found.extend(missing::files(store, path, &doc)?);
            match odd_files(path, &doc) {
                Ok(odd) => found.extend(odd),
                Err(e) => found.push(refused("machine", path, e)?),
            }
        }
        // Somebody may put it back.
        Ok(None) if is_lost => found.push(lost(path)),
        Ok(None) => {
            let f = of_dir("machine", path, "it has no record, and nobody is making it".into());
            found.push(Found { finding: f, remedy: Remedy::Machine(path.to_owned()) });
        }
        // A bad record isolates its own VM, and is kept: somebody may mend it.
        Err(e) => found.push(damaged(path, "machine.json", &e)),
    }
    Ok(found)
}

fn damaged(path: &Path, file: &str, e: &Error) -> Found {
    let mut f = of_dir("machine", path, e.with_causes());
    let mended = match file {
        "journal" => "it can be removed where nothing of the VM is under way",
        _ => "mend it, or put it back from a backup",
    };
    f.fix = fix::look_at(&path.join(file), &fix::or_remove(mended, "bg-vm rm", &f.owner));
    Found { finding: f, remedy: Remedy::Report }
}

/// A VM whose record was lost, or what is no VM at all: a creation that was not finished would say so in its journal.
fn lost(path: &Path) -> Found {
    let evidence = "its record machine.json is missing, and nothing says that its creation was not finished";
    let mut f = of_dir("machine", path, evidence.into());
    let then = fix::or_remove("put machine.json back from a backup", "bg-vm rm --force", &f.owner);
    f.fix = fix::look_into(path, &then);
    Found { finding: f, remedy: Remedy::Report }
}

fn unfinished_one(store: &Store, config: &Config, path: &Path, open: &OpenOperation) -> Found {
    let mut f = of_dir("machine", path, unfinished(open));
    if is_confined(store, config, open) {
        return Found { finding: f, remedy: Remedy::Machine(path.to_owned()) };
    }
    f.evidence += "; what it names is not in our directories";
    let then = "its directories may be configured otherwise now: BG_RUNTIME_DIR";
    f.fix = format!("cat {}  # {then}", fix::word(&path.join("journal")));
    Found { finding: f, remedy: Remedy::Report }
}

/// That an operation is open which nobody does.
pub fn unfinished(open: &OpenOperation) -> String {
    format!("the operation `{}` was not finished, and its process is gone", open.operation)
}

/// Whether undoing it touches nothing outside of the directories of this store, its cache, and its networks.
pub fn is_confined(store: &Store, config: &Config, open: &OpenOperation) -> bool {
    open.undo.iter().all(|undo| match undo {
        Undo::RemoveObject => true,
        Undo::RemoveFile { path } => [store.state_dir(), store.runtime_dir(), &config.cache_dir]
            .iter()
            .any(|dir| path.strip_prefix(dir).is_ok_and(|below| below != Path::new(""))),
        Undo::StopVm { runtime_dir } => runtime_dir.parent() == Some(store.runtime_dir()),
        Undo::GiveBackTap { network_dir, .. } => [&config.net_dir, Path::new(lib_common::doc::NETWORKS_DIR)]
            .iter()
            .any(|dir| network_dir.parent() == Some(*dir)),
    })
}

/// What is in its directory and is no plain file of a VM's.
fn odd_files(path: &Path, doc: &Document) -> Result<Vec<Found>> {
    let (mut found, me) = (vec![], nix::unistd::geteuid().as_raw());
    for entry in list(path)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let file = entry.path();
        // Temporary files have a look of their own.
        if name.starts_with(TEMP_PREFIX) {
            continue;
        }
        let is_plain = entry.metadata().is_ok_and(|meta| meta.is_file() && meta.uid() == me);
        if NAMES.contains(&name.as_str()) {
            if !is_plain && let Err(e) = owned::is_file(&file) {
                found.extend(refused("machine", &file, e));
            } else if name == KNOWN_HOSTS {
                found.extend(known_hosts(path, &file, doc)?);
            }
        } else {
            let mut f = of_file(path, &file, "nothing that belongs to a VM has that name".into());
            f.fix = fix::nobodys(&file);
            found.push(Found { finding: f, remedy: Remedy::Report });
        }
    }
    found.sort_by(|a, b| a.finding.id.cmp(&b.finding.id));
    Ok(found)
}

/// A known_hosts that has another key than the VM: `bg-ssh` writes a right one when it is needed.
fn known_hosts(path: &Path, file: &Path, doc: &Document) -> Result<Option<Found>> {
    if is_right(file, doc)? {
        return Ok(None);
    }
    let f = of_file(path, file, "a known_hosts with another key than the VM's".into());
    Ok(Some(Found { finding: f, remedy: Remedy::KnownHosts(file.to_owned()) }))
}

/// Whether a VM's known_hosts is what `bg-ssh` would write; one that is no plain file, or gone, is no concern of anybody's.
pub(super) fn is_right(file: &Path, doc: &Document) -> Result<bool> {
    let Ok(Some(has)) = looked_at(owned::read(file, lib_common::doc::MAX_BYTES as u64))? else { return Ok(true) };
    let (Ok(name), Ok(Some(guest))) = (doc.name(), doc.section::<Guest>()) else { return Ok(false) };
    Ok(known_hosts_line(&name, &guest).is_ok_and(|line| line.as_bytes() == has))
}

/// A finding of a file in a VM's directory.
fn of_file(path: &Path, file: &Path, evidence: String) -> lib_common::doc::Finding {
    let mut f = finding("file", file.display().to_string(), evidence);
    f.owner = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    f.age_ms = age_ms(file);
    f
}
