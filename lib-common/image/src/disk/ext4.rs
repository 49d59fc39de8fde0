//! Makes, checks, repairs and grows ext4 file systems in files, with e2fsprogs. Owns their options; knows nothing of what
//! is in them.

use super::superblock::Superblock;
use super::untrusted::ensure_sane;
use fs_err::os::unix::fs::OpenOptionsExt;
use lib_common::doc::Digest;
use lib_common::error::{ChildFailure, Code, Error, Result};
use lib_common::size::bytes;
use lib_common::sys::cmd::{Child, Cmd, Stream, Streams, describe};
use lib_common::sys::program;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ExitStatus};

/// Sizes are whole blocks, in bytes.
pub const BLOCK: u64 = 4096;
/// Less holds no journal and little else, in bytes.
pub const MIN_SIZE: u64 = 8 << 20;

/// The features of an ordinary ext4, named one by one: mke2fs.conf(5) of the host has no say in what a guest gets.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,orphan_file,filetype,extent,64bit,flex_bg,\
    metadata_csum,metadata_csum_seed,sparse_super,large_file,huge_file,dir_nlink,extra_isize";

/// The most of e2fsck's report that is kept, in bytes.
const REPORT_MAX: u64 = 64 << 10;

/// What a new file system is like. Equal values and equal content give equal bytes.
#[derive(Clone, Copy, Debug)]
pub struct Format<'a> {
    /// Its label, at most 16 bytes.
    pub label: &'a str,
    /// What its UUID and hash seed are derived from.
    pub id: &'a Digest,
    /// Its times, in seconds since 1970.
    pub epoch: u64,
    /// The permissions of its root directory, which is 0:0's.
    pub root_mode: u32,
}

/// Makes an empty file system in the new file `path`, sparse, of `size` bytes.
///
/// Errors: [`Code::Exists`], [`Code::BadValue`] for a size that cannot be, [`Code::MissingProgram`].
pub fn make_empty(path: &Path, size: u64, format: Format<'_>) -> Result<()> {
    let file = NewFile::create(path, size)?;
    mke2fs(path, format, false).run().map_err(explained)?;
    file.keep();
    Ok(())
}

/// Begins a file system in the new file `path` whose content is the tar that is written to the result: owners, modes,
/// hard links, devices and extended attributes included. Dropped unfinished, the file is removed.
///
/// Errors: as [`make_empty`].
pub fn make_from_tar(path: &Path, size: u64, format: Format<'_>) -> Result<TarWriter> {
    let file = NewFile::create(path, size)?;
    let streams = Streams { stdin: Stream::Pipe, ..Streams::default() };
    let mut child = mke2fs(path, format, true).spawn(streams)?;
    let stdin = child.stdin();
    Ok(TarWriter { stdin, child, file })
}

/// The writing end of a file system in the making.
#[derive(Debug)]
pub struct TarWriter {
    stdin: Option<ChildStdin>,
    child: Child,
    file: NewFile,
}

impl TarWriter {
    /// Ends the tar and waits until the file system is whole.
    ///
    /// Errors: [`Code::CommandFailed`], with a hint where there was too little room.
    pub fn finish(self) -> Result<()> {
        let TarWriter { stdin, mut child, file } = self;
        drop(stdin);
        let status = child.wait()?;
        if !status.success() {
            return Err(explained(child.failure(status)));
        }
        file.keep();
        Ok(())
    }

    /// Whether mke2fs has failed, and how: what a broken pipe to it means.
    pub fn failure(self) -> Option<Error> {
        self.finish().err()
    }
}

impl Write for TarWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stdin.as_mut().map_or_else(|| Err(io::ErrorKind::BrokenPipe.into()), |pipe| pipe.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says in a moment whether this host's mke2fs takes a tar, before minutes are spent on making one.
///
/// Errors: [`Code::MissingProgram`], with the package that has a new enough one.
pub fn probe() -> Result<()> {
    // Without a name: whoever is killed leaves nothing.
    let file = lib_common::sys::fs::unnamed(&[])?;
    file.set_len(MIN_SIZE)?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let id = lib_common::digest::of_bytes(b"probe");
    let format = Format { label: "probe", id: &id, epoch: 1, root_mode: 0o755 };
    let streams = Streams { stdin: Stream::Pipe, ..Streams::default() };
    let mut child = mke2fs(Path::new(&path), format, true).spawn(streams)?;
    if let Some(mut pipe) = child.stdin() {
        // The error is in the program's status.
        let _ = pipe.write_all(&[0; 1024]);
    }
    let status = child.wait()?;
    let done = if status.success() { Ok(()) } else { Err(explained(child.failure(status))) };
    done.map_err(|e| match e.code() {
        Code::CommandFailed => e
            .within("mke2fs cannot read a tar: version 1.47.1 or newer is needed, with libarchive")
            .with_code(Code::MissingProgram)
            .hint("apt-get install -t bookworm-backports e2fsprogs libarchive13"),
        _ => e,
    })
}

/// The command. The file is there and has its size. It was never written, so the journal and the inode tables are zeros
/// already: mke2fs leaves them holes and says so in the group descriptors, and the guest's kernel does not fill them
/// later (it would write 1/64 of the disk in the background of the first boot).
fn mke2fs(path: &Path, format: Format<'_>, from_tar: bool) -> Cmd {
    let (uuid, hash_seed) = (uuid(&format.id.hex()[..32]), uuid(&format.id.hex()[32..]));
    let root_mode = format.root_mode;
    let extended =
        format!("hash_seed={hash_seed},root_owner=0:0,root_perms={root_mode:o},assume_storage_prezeroed=1,nodiscard");
    let cmd = Cmd::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384", "-m", "0", "-O", FEATURES])
        .args(["-L", format.label, "-U", &uuid, "-E", &extended])
        .env("SOURCE_DATE_EPOCH", format.epoch.to_string())
        // libarchive reads names in the locale's character set, and refuses what C cannot say.
        .env("LC_ALL", "C.UTF-8");
    if from_tar { cmd.args(["-d", "-"]) } else { cmd }.arg(path)
}

/// 32 hexadecimal digits as a UUID of version 8 (RFC 9562: the maker's own kind).
fn uuid(hex: &str) -> String {
    format!("{}-{}-8{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

/// What mke2fs meant: that the new file system is full, or the one that its file is on.
fn explained(error: Error) -> Error {
    let Some(ChildFailure { argv, stderr, .. }) = error.get_child() else { return error };
    let says = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
    if says(&["No space left on device", "Disk quota exceeded"]) {
        let message = format!("there is no room for {}", argv.last().map_or("", |path| path));
        let dir = argv.last().and_then(|path| Path::new(path).parent()).unwrap_or(Path::new("/"));
        let hint = format!("make room there: df -h {}", dir.display());
        error.within(message).with_code(Code::Io).hint(hint)
    } else if says(&["allocate", "No free space"]) {
        error.within("the content does not fit").hint("make the file system larger")
    } else {
        error
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// Nothing is wrong.
    Clean,
    /// The journal was not replayed since a crash or a kill; the next mount does it. No further check was made, since
    /// without the journal's content it would find errors that are none; but superblock and journal can be ours.
    JournalPending,
    /// What `e2fsck` said.
    Damaged(String),
}

/// Checks a file system that nobody has mounted, without changing it.
///
/// Errors: [`Code::MissingFile`], [`Code::BadInput`] for what is no ext4, [`Code::CommandFailed`].
pub fn check(path: &Path) -> Result<CheckOutcome> {
    if Superblock::read(path)?.needs_recovery {
        return Ok(match ensure_sane(path) {
            Ok(()) => CheckOutcome::JournalPending,
            Err(e) => CheckOutcome::Damaged(e.with_causes()),
        });
    }
    let (status, report, error) = e2fsck(&["-f", "-n"], path)?;
    match status.code() {
        Some(0) => Ok(CheckOutcome::Clean),
        Some(4) => Ok(CheckOutcome::Damaged(problems(&report))),
        _ => Err(error),
    }
}

/// Says that an image's file system is clean, as a guest that was shut down leaves it; a journal is replayed at most.
///
/// Errors: [`Code::BadInput`] for one that is damaged; as [`check`].
pub fn ensure_clean(path: &Path) -> Result<()> {
    let mut found = check(path)?;
    if found == CheckOutcome::JournalPending {
        repair(path)?;
        found = check(path)?;
    }
    match found {
        CheckOutcome::Clean => Ok(()),
        CheckOutcome::JournalPending => Err(Error::new(Code::BadInput, "the image's journal cannot be replayed")),
        CheckOutcome::Damaged(problems) => {
            Err(Error::new(Code::BadInput, "the image's file system is damaged").also(problems))
        }
    }
}

/// Replays the journal and mends what can be mended without asking. Nobody may have it mounted.
///
/// Errors: [`Code::BadInput`] where somebody has to decide; as [`check`].
pub fn repair(path: &Path) -> Result<()> {
    Superblock::read(path)?;
    let (status, report, error) = e2fsck(&["-f", "-p"], path)?;
    match status.code() {
        // 1: errors corrected; 2: and a reboot would be needed, were it mounted.
        Some(0..=3) => Ok(()),
        Some(4..8) => {
            let message = format!("{} has errors that cannot be mended safely", path.display());
            let command = mend_command(path);
            Err(Error::new(Code::BadInput, message).also(problems(&report)).hint(format!("{command} mends it somehow")))
        }
        _ => Err(error),
    }
}

/// The command that mends a file system without asking, as this user types it.
pub fn mend_command(path: &Path) -> String {
    Cmd::new(program::typed("e2fsck")).arg("-fy").arg(path).to_shell()
}

/// Runs e2fsck: its status, what it printed, and the error for where the status means that it did not work.
fn e2fsck(options: &[&str], path: &Path) -> Result<(ExitStatus, String, Error)> {
    let cmd = Cmd::new("e2fsck").args(options).arg(path).env("LC_ALL", "C");
    let mut child = cmd.spawn(Streams { stdout: Stream::Pipe, ..Streams::default() })?;
    let mut report = vec![];
    if let Some(mut pipe) = child.stdout()? {
        (&mut pipe).take(REPORT_MAX).read_to_end(&mut report)?;
        io::copy(&mut pipe, &mut io::sink())?;
    }
    let status = child.wait()?;
    let report = String::from_utf8_lossy(&report).into_owned();
    let error = child.failure(status).detail("status", describe(status));
    Ok((status, report, error))
}

/// The lines of e2fsck's report that tell of something, at most ten.
fn problems(report: &str) -> String {
    let telling = |l: &&str| !l.trim().is_empty() && !l.starts_with("Pass ") && !l.contains("e2fsck 1.");
    report.lines().map(str::trim).filter(telling).take(10).collect::<Vec<_>>().join("; ")
}

/// Makes file and file system larger, to `size` bytes; the same size is no work. Nobody may have it mounted.
///
/// Errors: [`Code::BadValue`] for a size that is smaller or cannot be, [`Code::BadInput`] for a damaged file system.
pub fn grow(path: &Path, size: u64) -> Result<()> {
    let now = Superblock::read(path)?;
    check_size(size)?;
    if size < now.size_bytes {
        let (now, size) = (bytes(now.size_bytes), bytes(size));
        let message = format!("{} has {now} and cannot shrink to {size}", path.display());
        return Err(Error::new(Code::BadValue, message));
    }
    if size == now.size_bytes {
        return Ok(());
    }
    // What resize2fs asks for, only when it would ask: a check takes longer than the growing.
    if now.needs_recovery || !now.clean || now.mounted_since_check {
        repair(path)?;
    }
    let file = fs_err::OpenOptions::new().write(true).open(path)?;
    if file.metadata()?.len() < size {
        file.set_len(size)?;
    }
    Cmd::new("resize2fs").arg(path).arg(format!("{}", size / BLOCK)).env("LC_ALL", "C").run()
}

/// Whether a file system can have this size.
///
/// Errors: [`Code::BadValue`].
pub fn check_size(size: u64) -> Result<()> {
    if size >= MIN_SIZE && size.is_multiple_of(BLOCK) {
        return Ok(());
    }
    let message = format!("a disk cannot have {}", bytes(size));
    let (least, block) = (bytes(MIN_SIZE), bytes(BLOCK));
    Err(Error::new(Code::BadValue, message).hint(format!("at least {least}, and a multiple of {block}; 8G is 8 GiB")))
}

/// A file that is removed again unless it was kept.
#[derive(Debug)]
struct NewFile {
    path: Option<PathBuf>,
}

impl NewFile {
    fn create(path: &Path, size: u64) -> Result<Self> {
        check_size(size)?;
        let file = fs_err::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let guard = NewFile { path: Some(path.to_owned()) };
        file.set_len(size)?;
        Ok(guard)
    }

    fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests;
