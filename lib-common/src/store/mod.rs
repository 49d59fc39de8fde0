//! Images and VMs on disk: records, locks, staging and the intent journal. Starts no process.
//!
//! ```text
//! STATE/images/NAME/{image.json,vmlinux,initrd,modules/,rootfs.ext4,manifest,seed-BYTES.ext4,journal,lock}
//! STATE/default-image
//! STATE/bundle/{bundle.json,…}             what `bg-image bundle` made
//! STATE/machines/NAME/{machine.json,journal,lock,root.ext4,work.ext4,console.log,console.log.1,exit.json,shim.log,
//!                      ssh_host_ed25519_key,known_hosts,vm.lock}
//! STATE/staging/ID/{journal,lock,…}       what is being made or removed
//! STATE/ssh/{id_ed25519,id_ed25519.pub}   the key that logs in everywhere
//! RUNTIME/ID12/{shim.json,boot.json,vm.vsock,…} a running VM, by the first twelve digits of its id
//! ```
//! A record is the wire document itself. A name is claimed by renaming a staged directory onto it, never replacing, so
//! whoever sees a name sees its journal and its held lock too.

pub mod boot;
mod journal;
mod machine;
pub mod processes;
mod staging;
pub mod vm_lock;

pub use journal::{Journal, OpenOperation, Operation, end_shim};
pub use machine::{MachineDir, id_is_taken, id_of, is_started_by, paused_in, shim_lives, shim_state, started_by};
pub use staging::{Staging, free_name, remove_by_rename};

use crate::config::Config;
use crate::doc::{AbsPath, Document, Kind, MAX_BYTES, Name};
use crate::error::{Code, Error, Result};
use crate::sys::dirs::list;
use crate::sys::fs::private_dir;
use crate::sys::lock::Lock;
use crate::sys::owned;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

/// The directories of one banger, and how long to wait for its locks.
#[derive(Clone, Debug)]
pub struct Store {
    state: PathBuf,
    runtime: PathBuf,
    lock_wait: Duration,
    bundled_key: Option<PathBuf>,
    way: Way,
}

/// Whether nobody else can replace the directories of a store while it is worked on: what was found at the first look.
#[derive(Clone, Debug, Default)]
struct Way(Arc<OnceLock<Result<()>>>);

impl Way {
    fn is_safe(&self, state: &Path, runtime: &Path) -> Result<()> {
        let look = || owned::is_safe_from_others(state).and_then(|()| owned::is_safe_from_others(runtime));
        self.0.get_or_init(look).clone()
    }
}

impl Store {
    /// The store that the configuration names. Nothing is made yet.
    pub fn new(config: &Config) -> Self {
        let bundle = config.bundle().ok().flatten();
        Store {
            state: config.state_dir.clone(),
            runtime: config.runtime_dir.clone(),
            lock_wait: config.lock_wait,
            way: Way::default(),
            bundled_key: bundle.map(|bundle| bundle.at(&bundle.bundle.ssh_key_path)),
        }
    }

    /// The private key that a store without one takes over, where there is a bundle.
    pub fn bundled_key(&self) -> Option<&Path> {
        self.bundled_key.as_deref()
    }

    /// The state directory.
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// The directory of running VMs' sockets.
    pub fn runtime_dir(&self) -> &Path {
        &self.runtime
    }

    /// How long to wait for a lock.
    pub fn lock_wait(&self) -> Duration {
        self.lock_wait
    }

    /// Makes the directories, private to the caller; refuses those of others.
    pub fn prepare(&self) -> Result<()> {
        self.is_safe()?;
        for dir in
            [self.state.clone(), self.images_dir(), self.machines_dir(), self.staging_dir(), self.runtime.clone()]
        {
            private_dir(&dir)?;
        }
        Ok(())
    }

    /// Refuses a store that others can write to, or replace.
    fn is_safe(&self) -> Result<()> {
        self.way.is_safe(&self.state, &self.runtime)
    }

    /// Refuses directories of this store that are links, or another user's, or can be changed by others. What is missing is
    /// fine.
    pub fn check(&self) -> Result<()> {
        self.is_safe()?;
        for below in ["", "bundle", "images", "machines", "staging", "ssh"] {
            owned::is_dir(&self.state, below)?;
        }
        owned::is_dir(&self.runtime, "").map(drop)
    }

    /// Where images are.
    pub fn images_dir(&self) -> PathBuf {
        self.state.join("images")
    }

    /// Where VMs are.
    pub fn machines_dir(&self) -> PathBuf {
        self.state.join("machines")
    }

    /// Where things are made and removed.
    pub fn staging_dir(&self) -> PathBuf {
        self.state.join("staging")
    }

    /// The directory of the image `name`, whether it exists or not.
    pub fn image_dir(&self, name: &Name) -> PathBuf {
        self.images_dir().join(name.as_str())
    }

    /// The image's record.
    pub fn image(&self, name: &Name) -> Result<Document> {
        self.has_image(name)?;
        let record = self.image_dir(name).join("image.json");
        read_record_of(&record, Kind::Image, name)?.ok_or_else(|| {
            let known = self.image_names().unwrap_or_default();
            not_found("image", name, &known, "bg-image ls")
        })
    }

    /// Whether the directory of the image `name` is there; one that is a link, or another user's, is an error.
    pub fn has_image(&self, name: &Name) -> Result<bool> {
        self.is_safe()?;
        owned::is_dir(&self.state, Path::new("images").join(name.as_str()))
    }

    /// Refuses a file of an image that is a link, or another user's. What is missing, or lies elsewhere, is for others to
    /// judge.
    pub fn check_files<'a>(&self, files: impl IntoIterator<Item = &'a AbsPath>) -> Result<()> {
        for file in files {
            if let Ok(below) = file.strip_prefix(&self.state) {
                owned::open(&self.state, below)?;
            }
        }
        Ok(())
    }

    /// The VM `name`; it need not have a record yet, but its directory must be there.
    pub fn machine(&self, name: &Name) -> Result<MachineDir> {
        let machine = self.machine_dir(name);
        if machine.is_there()? {
            return Ok(machine);
        }
        let known = self.machine_names().unwrap_or_default();
        Err(not_found("VM", name, &known, "bg-vm ls"))
    }

    /// The directory of the VM `name`, whether it exists or not.
    pub fn machine_dir(&self, name: &Name) -> MachineDir {
        MachineDir::new(self, name)
    }

    /// The images' names, sorted.
    pub fn image_names(&self) -> Result<Vec<Name>> {
        self.is_safe()?;
        owned::is_dir(&self.state, "images")?;
        names_in(&self.images_dir())
    }

    /// The VMs' names, sorted.
    pub fn machine_names(&self) -> Result<Vec<Name>> {
        self.is_safe()?;
        owned::is_dir(&self.state, "machines")?;
        names_in(&self.machines_dir())
    }

    /// The image that was made the default.
    pub fn default_image(&self) -> Result<Option<Name>> {
        let text = owned::read_text(&self.default_image_file(), MAX_BYTES as u64)?;
        text.map(|text| Name::parse(text.trim()).map_err(|e| e.with_code(Code::BadDocument))).transpose()
    }

    /// Makes an image the default.
    pub fn set_default_image(&self, name: &Name) -> Result<()> {
        crate::sys::fs::save(&self.default_image_file(), format!("{name}\n").as_bytes(), 0o600)
    }

    /// Leaves no image the default.
    pub fn clear_default_image(&self) -> Result<()> {
        crate::sys::fs::remove_file(&self.default_image_file())
    }

    fn default_image_file(&self) -> PathBuf {
        self.state.join("default-image")
    }

    /// The lock of the set of images: taken to register, remove, or clone one, so that none vanishes under a clone.
    pub fn lock_images(&self) -> Result<Lock> {
        self.prepare()?;
        Lock::take(&self.images_dir().join(".lock"), self.lock_wait)
    }
}

/// A record, or `None` where there is none. It is a plain file of the caller's in a directory of the caller's.
pub fn read_record(path: &Path, kind: Kind) -> Result<Option<Document>> {
    let Some(bytes) = owned::read(path, MAX_BYTES as u64 + 1)? else { return Ok(None) };
    let damaged = |e: Error| e.within(format!("the record {} is damaged", path.display()));
    Document::parse(&bytes, kind).map(Some).map_err(damaged)
}

/// The record of an image or a VM, which has to be of that name: a record that says another is damaged, and none of the
/// other's business.
fn read_record_of(path: &Path, kind: Kind, name: &Name) -> Result<Option<Document>> {
    let mend = match kind {
        Kind::Image => format!("bg-register --replace registers it anew, `bg-image rm {name}` removes it"),
        Kind::Machine => format!("put it back from a backup, or remove the VM with its disks: bg-vm rm --force {name}"),
    };
    let hinted = |e: Error| if e.code() == Code::BadDocument { e.hint(mend.clone()) } else { e };
    let Some(doc) = read_record(path, kind).map_err(hinted)? else { return Ok(None) };
    let damaged = |e: Error| hinted(e.within(format!("the record {} is damaged", path.display())));
    match doc.name().map_err(damaged)? {
        found if found == *name => Ok(Some(doc)),
        found => Err(damaged(Error::new(Code::BadDocument, format!("it is of `{found}`, and not of `{name}`")))),
    }
}

/// Saves a record durably: one line and a line feed.
pub fn save_record(path: &Path, doc: &Document) -> Result<()> {
    crate::sys::fs::save(path, format!("{}\n", doc.to_line()).as_bytes(), 0o600)
}

fn names_in(dir: &Path) -> Result<Vec<Name>> {
    let entries = list(dir)?.into_iter();
    let mut names: Vec<Name> = entries.filter_map(|e| Name::parse(e.file_name().to_str()?).ok()).collect();
    names.sort();
    Ok(names)
}

fn not_found(what: &str, name: &Name, known: &[Name], ls: &str) -> Error {
    let error = Error::new(Code::NotFound, format!("there is no {what} `{name}`"));
    match crate::doc::nearest(name.as_str(), known.iter().map(Name::as_str)) {
        Some(near) => error.hint(format!("did you mean `{near}`? `{ls}` lists them all")),
        None => error.hint(format!("`{ls}` lists them")),
    }
}

/// 32 random hexadecimal digits: the id of a VM or of a staging directory.
pub fn random_id() -> Result<String> {
    use std::fmt::Write;
    let mut bytes = [0; 16];
    fs_err::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    }))
}

/// Now, RFC 3339 UTC with milliseconds. A clock beyond the years that RFC 3339 can say is taken for the last of them, or for 1970.
pub fn now() -> String {
    time_text(SystemTime::now())
}

fn time_text(time: SystemTime) -> String {
    let beyond = if time > SystemTime::UNIX_EPOCH { jiff::Timestamp::MAX } else { jiff::Timestamp::UNIX_EPOCH };
    format!("{:.3}", jiff::Timestamp::try_from(time).unwrap_or(beyond))
}

#[cfg(test)]
mod tests;
