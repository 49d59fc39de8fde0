//! The intent journal: what an operation is about to do and how to take it back, on disk before it is done.
//!
//! One append-only file an object. Each line is appended and fdatasync'ed before its side effect. A torn last line is
//! ignored: its side effect had not begun. Whatever is killed at any point is found by an operation that is open while
//! its process is gone, and [`Journal::undo_open`] takes it back.

use super::vm_lock;
use crate::doc::{JournalLine, MAX_BYTES, Undo, to_json};
use crate::error::{Code, Error, Failures, Result, sound};
use crate::sys::fs::{preallocate, remove_dir, remove_file};
use crate::sys::process::ProcessId;
use crate::sys::{owned, signal};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Space taken in advance, so that a full disk does not stop an operation between its steps.
const PREALLOCATED: i64 = 16 << 10;

/// An object's journal.
#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    /// The journal in the directory of an object.
    pub fn in_dir(dir: &Path) -> Self {
        Journal { path: dir.join("journal") }
    }

    /// Begins an operation; the caller holds the object's lock. What an earlier one left open is undone first.
    pub fn begin(&self, operation: &str) -> Result<Operation> {
        self.begin_with(operation, vec![])
    }

    /// The same, with the first intents said in the same write, which is one wait for the disk instead of one each.
    pub fn begin_with(&self, operation: &str, intents: Vec<Undo>) -> Result<Operation> {
        if let Some(open) = self.open_operation()? {
            self.undo_open()?;
            if !self.path.exists() {
                let message = format!("the operation `{}` was not finished, and has been undone now", open.operation);
                return Err(Error::new(Code::NotFound, message).hint("nothing is left of it: begin anew"));
            }
        }
        let mut options = std::fs::OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
        let file = options.open(&self.path).map_err(|e| Error::io("open", &self.path, &e))?;
        // Of the operations before it none is open, so what they did need not be known any more.
        file.set_len(0).map_err(|e| Error::io("empty", &self.path, &e))?;
        preallocate(&file, &self.path, PREALLOCATED)?;
        let me = ProcessId::of(i32::try_from(std::process::id()).unwrap_or(0))?;
        let ProcessId { pid, start_time, boot_id, .. } = me;
        let begin = JournalLine::Begin { operation: operation.into(), pid, start_time, boot_id };
        let lines: Vec<_> = intents.iter().map(|undo| JournalLine::Intent { undo: undo.clone() }).collect();
        let mut op = Operation { path: self.path.clone(), file, undo: intents, open: true };
        op.append(&[&[begin][..], &lines].concat())?;
        Ok(op)
    }

    /// Goes on with an operation that another tool of the same pipeline left open.
    pub fn resume(&self) -> Result<Option<Operation>> {
        let Some(open) = self.open_operation()? else { return Ok(None) };
        let file = std::fs::OpenOptions::new().append(true).open(&self.path);
        let file = file.map_err(|e| Error::io("open", &self.path, &e))?;
        // What is torn goes: the next line would become a part of it.
        file.set_len(open.bytes).map_err(|e| Error::io("write", &self.path, &e))?;
        Ok(Some(Operation { path: self.path.clone(), file, undo: open.undo, open: true }))
    }

    /// The operation that is neither done nor undone.
    pub fn open_operation(&self) -> Result<Option<OpenOperation>> {
        Ok(self.last_operation()?.filter(|(_, open)| *open).map(|(last, _)| last))
    }

    /// What the last operation had in mind, whatever became of it: where a VM was started, and what it was lent.
    ///
    /// # Errors
    /// What keeps it from being read; one that is damaged says nothing.
    pub fn last_intents(&self) -> Result<Vec<Undo>> {
        Ok(sound(self.last_operation())?.map(|(last, _)| last.undo).unwrap_or_default())
    }

    /// The last operation, and whether it is open.
    fn last_operation(&self) -> Result<Option<(OpenOperation, bool)>> {
        let Some(journal) = owned::read(&self.path, MAX_BYTES as u64)? else { return Ok(None) };
        let mut last: Option<(OpenOperation, bool)> = None;
        // What follows the last line feed is torn.
        let whole = journal.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        for line in journal[..whole].split_inclusive(|b| *b == b'\n') {
            match serde_json::from_slice(line) {
                Ok(JournalLine::Begin { operation, .. }) => {
                    last = Some((OpenOperation { operation, undo: vec![], bytes: whole as u64 }, true));
                }
                Ok(JournalLine::Intent { undo }) => last.iter_mut().for_each(|(o, _)| o.undo.push(undo.clone())),
                Ok(JournalLine::Done | JournalLine::Undone) => last.iter_mut().for_each(|(_, open)| *open = false),
                Err(e) => {
                    let error = Error::new(Code::BadDocument, format!("{} is damaged", self.path.display()));
                    return Err(error.because(&e).hint("where nothing is under way, that file can be removed"));
                }
            }
        }
        Ok(last)
    }

    /// Does what may need a little space on a full disk, with that which was taken in advance and is not written to.
    pub(super) fn lend_room<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let file = std::fs::OpenOptions::new().append(true).custom_flags(nix::libc::O_NOFOLLOW).open(&self.path);
        let Ok(file) = file else { return work() };
        // A size that does not change frees what lies behind it (ftruncate(2) of ext4, XFS and tmpfs).
        let _ = file.metadata().and_then(|meta| file.set_len(meta.len()));
        let done = work();
        // What was replaced has left as much.
        let _ = preallocate(&file, &self.path, PREALLOCATED);
        done
    }

    /// Takes an open operation back.
    pub fn undo_open(&self) -> Result<()> {
        match self.resume()? {
            Some(op) => op.undo(),
            None => Ok(()),
        }
    }
}

/// What an operation that did not end had in mind.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenOperation {
    /// Its name.
    pub operation: String,
    /// How to take back what it may have done, in the order in which it was done.
    pub undo: Vec<Undo>,
    /// How much of the journal is whole lines.
    bytes: u64,
}

/// An operation in progress. Dropped without [`Operation::commit`] it takes everything back.
#[derive(Debug)]
pub struct Operation {
    path: PathBuf,
    file: File,
    undo: Vec<Undo>,
    open: bool,
}

impl Operation {
    /// Says what comes next and how to take it back; returns when that is on disk. What was said already is there.
    pub fn intend(&mut self, undo: Undo) -> Result<()> {
        signal::check()?;
        if self.undo.contains(&undo) {
            return Ok(());
        }
        self.append(&[JournalLine::Intent { undo: undo.clone() }])?;
        self.undo.push(undo);
        Ok(())
    }

    /// What it may have done so far, and how that is taken back.
    pub fn intents(&self) -> &[Undo] {
        &self.undo
    }

    /// The operation is whole.
    pub fn commit(mut self) -> Result<()> {
        self.append(&[JournalLine::Done])?;
        self.open = false;
        Ok(())
    }

    /// Leaves it open for the next tool of the pipeline.
    pub fn hand_on(mut self) {
        self.open = false;
    }

    /// Says that the journal was renamed with its directory.
    pub fn moved_to(&mut self, dir: &Path) {
        self.path = dir.join("journal");
    }

    /// Takes everything back, last things first, going on past errors; they come back as one.
    pub fn undo(mut self) -> Result<()> {
        self.undo_all()
    }

    fn undo_all(&mut self) -> Result<()> {
        let _shield = signal::shield();
        self.open = false;
        let mut failed = Failures::default();
        for undo in self.undo.iter().rev() {
            if let Err(e) = take_back(undo, self.path.parent().unwrap_or(Path::new("/nonexistent"))) {
                failed.add(e);
            }
        }
        let tries_again = "`bg-verify --now | bg-gc --now` tries again";
        failed.result().map_err(|e| e.within("not everything could be undone").hint(tries_again))?;
        // Undoing may have removed the journal with its object.
        if self.is_there() { self.append(&[JournalLine::Undone]) } else { Ok(()) }
    }

    /// Whether the journal still has its name: another object may have that of this one by now.
    fn is_there(&self) -> bool {
        let (Ok(named), Ok(ours)) = (std::fs::symlink_metadata(&self.path), self.file.metadata()) else { return false };
        (named.dev(), named.ino()) == (ours.dev(), ours.ino())
    }

    fn append(&mut self, lines: &[JournalLine]) -> Result<()> {
        let text: String = lines.iter().map(|line| to_json(line) + "\n").collect();
        let written = self.file.metadata().and_then(|before| {
            let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
            // Half a line (on a full disk) would make one with the next: that this undoes it all.
            written.inspect_err(|_| drop(self.file.set_len(before.len())))
        });
        written.map_err(|e| Error::io("write", &self.path, &e))
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if self.open {
            // The error that brought us here is the one to show; what stays is found by `bg-verify`.
            let (did_something, undone) = (!self.undo.is_empty(), self.undo_all());
            if did_something && undone.is_ok() {
                signal::note_undone();
            }
        }
    }
}

/// Takes one side effect back; what is gone already is fine.
fn take_back(undo: &Undo, object: &Path) -> Result<()> {
    match undo {
        Undo::RemoveObject => {
            vm_lock::refuse_elsewhere(object)?;
            // Without its record it can no longer be taken for whole, wherever the removal is interrupted.
            for record in ["machine.json", "image.json"] {
                remove_file(&object.join(record))?;
            }
            set_aside(object)
        }
        Undo::RemoveFile { path } => remove_file(path),
        // An id that a document took from elsewhere leads to another VM's directory.
        Undo::StopVm { runtime_dir } if !super::is_started_by(runtime_dir, object)? => Ok(()),
        Undo::StopVm { runtime_dir } => {
            vm_lock::refuse_elsewhere(object)?;
            end_shim(runtime_dir)?;
            vm_lock::check_ended(object)?;
            remove_dir(runtime_dir)
        }
        Undo::GiveBackTap { network_dir, machine_id, with_address } => {
            crate::net::give_back_all(network_dir, machine_id, *with_address)
        }
    }
}

/// Removes an object so that nobody who waits for its lock makes a new one in it meanwhile: its name goes first.
fn set_aside(object: &Path) -> Result<()> {
    let home = object.parent().unwrap_or(Path::new("/"));
    let staging = home.parent().unwrap_or(home).join("staging");
    if home == staging {
        return remove_dir(object);
    }
    let staged = staging.join(super::random_id()?);
    match std::fs::rename(object, &staged) {
        Ok(()) => remove_dir(&staged),
        Err(_) => remove_dir(object),
    }
}

/// Ends the shim whose state lies in `runtime_dir`; the VMM and its vsock device die with it. Where a directory is there and
/// says nothing of a shim, one may be about to: whoever started it was killed.
pub fn end_shim(runtime_dir: &Path) -> Result<()> {
    let Some(state) = super::shim_state(runtime_dir)? else {
        if !runtime_dir.exists() {
            return Ok(());
        }
        return super::processes::of_runtime_dir(runtime_dir)?.iter().try_for_each(ProcessId::end);
    };
    for process in [Some(state.shim), state.vmm, state.vsock_device].into_iter().flatten() {
        ProcessId::from(process).end()?;
    }
    Ok(())
}
