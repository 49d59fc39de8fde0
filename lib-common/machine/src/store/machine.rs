//! One VM's directory: its files, its lock, and whether it runs.

use super::vm_lock::{self, Held};
use super::{GiveBackTap, Journal, Store, Way, boot, processes, read_record_of, save_record};
use lib_common::doc::{
    AbsPath, Document, ExitInfo, Kind, Launch, MAX_BYTES, Name, Paused, ProcessDoc, ShimState, State, Status, Vmm,
};
use lib_common::error::{Code, Error, Result, sound};
use lib_common::sys::dirs::list;
use lib_common::sys::fs::sync_dir;
use lib_common::sys::lock::{Lock, is_held};
use lib_common::sys::owned;
use lib_common::sys::process::{ProcessId, cmdline};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The operations of which a VM is a mere part, and the tools that do them.
const TEMPORARY: [(&str, &str); 3] =
    [("image_build", "bg-image-build"), ("image_verify", "bg-image verify"), ("rootfs_configure", "bg-rootfs build")];

/// The directory of a VM.
#[derive(Clone, Debug)]
pub struct MachineDir {
    name: Name,
    path: PathBuf,
    runtime: PathBuf,
    lock_wait: Duration,
    way: Way,
    give_back_tap: GiveBackTap,
}

impl MachineDir {
    pub(super) fn new(store: &Store, name: &Name) -> Self {
        let path = store.machines_dir().join(name.as_str());
        MachineDir {
            name: name.clone(),
            path,
            runtime: store.runtime.clone(),
            lock_wait: store.lock_wait,
            way: store.way.clone(),
            give_back_tap: store.give_back_tap,
        }
    }

    /// The VM's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The serial console's log.
    pub fn console(&self) -> PathBuf {
        self.file("console.log")
    }

    /// The known_hosts of this VM alone.
    pub fn known_hosts(&self) -> PathBuf {
        self.file("known_hosts")
    }

    /// The private half of the guest's SSH host key.
    pub fn host_key(&self) -> PathBuf {
        self.file("ssh_host_ed25519_key")
    }

    /// How the last run ended, by the shim.
    pub fn exit_file(&self) -> PathBuf {
        self.file("exit.json")
    }

    /// Its journal.
    pub fn journal(&self) -> Journal {
        Journal::in_dir(&self.path, self.give_back_tap)
    }

    /// Its record.
    pub fn record_file(&self) -> PathBuf {
        self.file("machine.json")
    }

    /// Where the sockets of the VM with this id are while it runs. Twelve digits, because a socket's path has to stay
    /// under 100 bytes.
    pub fn runtime_dir(&self, id: &str) -> Result<AbsPath> {
        let short = id.get(..12).filter(|s| s.bytes().all(|b| b.is_ascii_hexdigit()));
        let short = short
            .ok_or_else(|| Error::new(Code::BadDocument, format!("`{}` is not the id of a VM", id.escape_debug())))?;
        let dir = AbsPath::new(self.runtime.join(short))?;
        match dir.as_str().len() {
            // The longest name in it is `/vm.vsock_4294967295`.
            ..=79 => Ok(dir),
            n => Err(Error::new(
                Code::BadConfig,
                format!("the runtime directory's path is {n} bytes long, 79 is the most"),
            )
            .hint("set BG_RUNTIME_DIR to a shorter path")),
        }
    }

    /// The runtime directories in which this VM was started, by what its starters wrote there: whatever its record says.
    pub fn launched_dirs(&self) -> Result<Vec<PathBuf>> {
        let mut ours = vec![];
        for dir in list(&self.runtime)?.into_iter().map(|e| e.path()) {
            if launched_in(&dir)?.is_some_and(|launch| is_of(&launch, &self.path)) {
                ours.push(dir);
            }
        }
        Ok(ours)
    }

    /// Refuses an id under which another VM runs.
    pub fn check_id(&self, id: &str) -> Result<()> {
        let dir = self.runtime_dir(id)?;
        if is_started_by(&dir, &self.path)? { Ok(()) } else { Err(id_is_taken(id, started_by(&dir)?.as_deref())) }
    }

    /// Whether its directory is there; one that is a link, or another user's, is an error.
    pub fn is_there(&self) -> Result<bool> {
        let machines = self.path.parent().unwrap_or(Path::new("/"));
        let state = machines.parent().unwrap_or(Path::new("/"));
        self.way.is_safe(state, &self.runtime)?;
        owned::is_dir(state, Path::new("machines").join(self.name.as_str()))
    }

    /// Takes the VM's lock; [`Code::NotFound`] where the VM is gone by then.
    pub fn lock(&self) -> Result<Lock> {
        self.is_there()?;
        let lock = Lock::take(&self.file("lock"), self.lock_wait);
        match lock {
            Err(_) if !self.path.is_dir() => {
                Err(Error::new(Code::NotFound, format!("there is no VM `{}` any more", self.name)))
            }
            Err(e) => Err(e.within(format!("the VM `{}` is busy", self.name))),
            ok => ok,
        }
    }

    /// Who holds the lock of the VM itself.
    ///
    /// # Errors
    /// What keeps the lock from being looked at: then nobody knows whether the VM runs.
    pub fn held(&self) -> Result<Held> {
        vm_lock::held(&self.path)
    }

    /// Its record as it was saved, or `None` where its creation was not finished.
    fn saved(&self) -> Result<Option<Document>> {
        self.is_there()?;
        read_record_of(&self.record_file(), Kind::Machine, &self.name)
    }

    /// The same; without one, [`Code::NotFound`].
    pub fn document(&self) -> Result<Document> {
        self.saved()?.ok_or_else(|| {
            let what = "has no record: its creation was not finished, or its record was lost";
            Error::new(Code::NotFound, format!("the VM `{}` {what}", self.name))
                .hint("`bg-verify` says which, and what to type")
        })
    }

    /// Makes durable what a creation left to be so at its end, beside the record: the VM's name and its host key.
    pub fn settle(&self) -> Result<()> {
        sync_dir(&self.host_key())?;
        sync_dir(self.path.parent().unwrap_or(Path::new("/")))
    }

    /// Saves its record; the caller holds the lock. What is computed is not stored. A full disk has room for it.
    pub fn save(&self, doc: &Document) -> Result<()> {
        let mut doc = doc.clone();
        for computed in ["status", "stats", "health"] {
            doc.remove(computed);
        }
        doc.replace_timings(boot::GUEST, &[])?;
        let save = || save_record(&self.record_file(), &doc);
        // Nothing else is tried again: a disk that has failed to sync may say the next time that all is well.
        save().or_else(|e| if e.is_no_room() { self.journal().lend_room(save) } else { Err(e) })
    }

    /// The processes of the running VM with this id, or `None` when it does not run.
    pub fn running(&self, id: &str) -> Result<Option<ShimState>> {
        // A damaged record is told by who needs it.
        self.running_by(id, || sound(self.saved())?.map_or(Ok(None), |doc| doc.section()))
    }

    /// The same, for whoever has the record's section `vmm` already.
    fn running_by(&self, id: &str, recorded: impl FnOnce() -> Result<Option<Vmm>>) -> Result<Option<ShimState>> {
        // The pids of another namespace are those of strangers here.
        if self.held()? == Held::Elsewhere {
            return Ok(None);
        }
        let dir = self.runtime_dir(id)?;
        let Some((state, lives)) = shim_now(&dir)? else {
            return recorded()?.map_or(Ok(None), |vmm| lost(id, &dir, vmm));
        };
        Ok((lives && is_started_by(&dir, &self.path)?).then_some(state))
    }

    /// The processes of the VM with this id where it runs and cannot be reached any more, since its runtime directory is gone.
    pub fn lost(&self, id: &str) -> Result<Option<ShimState>> {
        if shim_state(&self.runtime_dir(id)?)?.is_some() { Ok(None) } else { self.running(id) }
    }

    /// The record with what is computed: `status`, `vmm` with the pids of now or without it when it does not run, and in
    /// `timings` the stages of the boot that the guest is in.
    pub fn current(&self) -> Result<Document> {
        self.with_computed(self.document()?)
    }

    /// The same for a list: a VM whose creation was not finished is in it, too; `None` for the temporary VM of a build that is under
    /// way, with which no verb has anything to do.
    pub fn listed(&self) -> Result<Option<Document>> {
        if let Some(doc) = self.saved()? {
            return self.with_computed(doc).map(Some);
        }
        if self.work_under_way()?.is_some() {
            return Ok(None);
        }
        let mut doc = Document::new(Kind::Machine, &self.name);
        doc.set(&Status { state: State::Incomplete, exit: None, paused: None });
        Ok(Some(doc))
    }

    /// The tool that has made this VM for its own work alone and is at it; `None` for any other VM.
    ///
    /// # Errors
    /// What keeps lock or journal from being looked at.
    pub fn work_under_way(&self) -> Result<Option<&'static str>> {
        if self.record_file().exists() || !is_held(&self.file("lock"))? {
            return Ok(None);
        }
        // One that is just being removed has no journal any more.
        let open = sound(self.journal().open_operation())?;
        Ok(open
            .and_then(|open| TEMPORARY.iter().find(|(operation, _)| *operation == open.operation))
            .map(|(_, tool)| *tool))
    }

    fn with_computed(&self, mut doc: Document) -> Result<Document> {
        let id = id_of(&doc)?;
        let recorded: Option<Vmm> = doc.section()?;
        let exit = self.exit_info()?;
        let live = self.running_by(&id, || Ok(recorded.clone()))?;
        let paused = live.as_ref().and_then(|live| live.paused.clone());
        let state = match (&live, self.held_without(live.as_ref())?, &recorded, &exit) {
            (Some(_), ..) if paused.is_some() => State::Paused,
            (Some(_), ..) | (None, Held::Here, ..) => State::Running,
            (None, Held::Elsewhere, ..) => State::RunningElsewhere,
            (None, Held::No, _, Some(exit)) if exit.reason == "crashed" => State::Crashed,
            (None, Held::No, Some(_), None) => State::Crashed,
            (None, Held::No, ..) => State::Stopped,
        };
        let is_here = matches!(state, State::Running | State::Paused);
        match (recorded, live.and_then(|live| live.vmm)) {
            (Some(vmm), Some(now)) => doc.set(&Vmm { pid: now.pid, start_time: now.start_time, ..vmm }),
            // Pids of another namespace would lead to strangers.
            _ if !is_here => doc.remove("vmm"),
            _ => {}
        }
        let booted = if is_here { boot::timings(&self.runtime_dir(&id)?) } else { vec![] };
        doc.replace_timings(boot::GUEST, &booted)?;
        doc.set(&Status { state, exit: exit.filter(|_| !state.lives()), paused });
        Ok(doc)
    }

    /// Who holds the lock of a VM whose shim does not live here. The kernel closes the files of a process that was killed a moment
    /// after the process is gone from the process table.
    fn held_without(&self, live: Option<&ShimState>) -> Result<Held> {
        match self.held()? {
            Held::Here if live.is_none() && vm_lock::wait_free(&self.path, vm_lock::JUST_ENDING)? => Ok(Held::No),
            held => Ok(held),
        }
    }

    /// How the last run ended, if the shim could write it.
    ///
    /// # Errors
    /// What keeps it from being read.
    pub fn exit_info(&self) -> Result<Option<ExitInfo>> {
        let text = sound(owned::read_text(&self.exit_file(), MAX_BYTES as u64))?;
        Ok(text.and_then(|text| lib_common::doc::strict(&text).ok()))
    }
}

/// What the shim says of its processes; `None` where nothing is, or nothing that a shim wrote (a power failure leaves it empty),
/// or where it names another shim than the one that runs there.
///
/// # Errors
/// What keeps it from being read: then nobody knows whether a VM runs.
pub fn shim_state(runtime_dir: &Path) -> Result<Option<ShimState>> {
    Ok(shim_now(runtime_dir)?.map(|(state, _)| state))
}

/// Why the VM of a runtime directory is paused, by what its shim wrote there; `None` where it is not, or nothing says so.
pub fn paused_in(runtime_dir: &Path) -> Option<Paused> {
    let text = owned::read_text(&runtime_dir.join("shim.json"), MAX_BYTES as u64).ok()??;
    lib_common::doc::strict::<ShimState>(&text).ok()?.paused
}

/// Whether the shim of a runtime directory lives.
///
/// # Errors
/// As [`shim_state`].
pub fn shim_lives(runtime_dir: &Path) -> Result<bool> {
    Ok(shim_now(runtime_dir)?.is_some_and(|(_, lives)| lives))
}

/// What [`shim_state`] gives, and whether that shim lives.
fn shim_now(runtime_dir: &Path) -> Result<Option<(ShimState, bool)>> {
    let text = owned::read_text(&runtime_dir.join("shim.json"), MAX_BYTES as u64)?;
    let Some(state) = text.and_then(|text| lib_common::doc::strict::<ShimState>(&text).ok()) else { return Ok(None) };
    let lives = ProcessId::from(state.shim.clone()).is_alive()?;
    let is_true = lives || !processes::has_shim(runtime_dir)?;
    Ok(is_true.then_some((state, lives)))
}

/// The processes of a VM whose runtime directory does not say who runs: it goes with the last session of an ordinary user. The
/// record knows the shim.
fn lost(id: &str, dir: &AbsPath, vmm: Vmm) -> Result<Option<ShimState>> {
    let process = |pid: i32, start_time: u64| -> Result<Option<ProcessDoc>> {
        let it = ProcessId::noted(pid, start_time, vmm.boot_id.clone());
        let runs_here = || Ok::<_, Error>(cmdline(pid)?.iter().any(|arg| arg.contains(dir.as_str())));
        // One that ends meanwhile is gone.
        if it.is_alive()? && runs_here()? { Ok(ProcessDoc::try_from(it).ok()) } else { Ok(None) }
    };
    let Some(shim) = process(vmm.shim_pid, vmm.shim_start_time)? else { return Ok(None) };
    let vmm = process(vmm.pid, vmm.start_time)?;
    Ok(Some(ShimState { machine_id: id.to_owned(), shim, vmm, vsock_device: None, reboots: 0, paused: None }))
}

/// The directory of the VM that was started in a runtime directory, by what its starter wrote there; `None` where that is
/// damaged or missing.
///
/// # Errors
/// What keeps it from being read: then nobody knows whose it is.
pub fn started_by(runtime_dir: &Path) -> Result<Option<PathBuf>> {
    Ok(launched_in(runtime_dir)?.and_then(|launch| Some(launch.exit_file.parent()?.to_owned())))
}

fn launched_in(runtime_dir: &Path) -> Result<Option<Launch>> {
    let text = sound(owned::read_text(&runtime_dir.join("launch.json"), MAX_BYTES as u64))?;
    Ok(text.and_then(|text| lib_common::doc::strict(&text).ok()))
}

/// Whether any of its files is in the VM's directory: where one path is damaged, the others say so.
fn is_of(launch: &Launch, machine: &Path) -> bool {
    let files = [&launch.exit_file, &launch.console].into_iter().chain(launch.disks.iter().map(|disk| &disk.path));
    files.into_iter().any(|file| file.parent() == Some(machine))
}

/// Whether the VM in a runtime directory is the one of that directory, or nothing says whose it is.
///
/// # Errors
/// As [`started_by`].
pub fn is_started_by(runtime_dir: &Path, machine: &Path) -> Result<bool> {
    Ok(launched_in(runtime_dir)?.is_none_or(|launch| is_of(&launch, machine)))
}

/// The document has the id of another VM, in that directory.
pub fn id_is_taken(id: &str, machine: Option<&Path>) -> Error {
    let name = machine.and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    Error::new(Code::Exists, format!("the id {id} is that of the VM `{}`", name.escape_debug()))
        .hint("each VM has an id of its own: `bg-vm plan NAME` makes one")
}

/// The VM's id, as the document has it.
pub fn id_of(doc: &Document) -> Result<String> {
    let id = doc
        .string("id")?
        .ok_or_else(|| Error::new(Code::BadDocument, "the document has no `id`").hint("`bg-vm plan` writes it"))?;
    let fine = id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if fine {
        Ok(id)
    } else {
        Err(Error::new(Code::BadDocument, format!("`{}` is not the id of a VM", id.escape_debug())))
    }
}
