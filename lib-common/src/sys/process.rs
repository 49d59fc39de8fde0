//! Processes of others: who they are, whether they live, and signals that cannot hit a stranger.
//!
//! Source of the formats: proc(5), pidfd_open(2).

#![allow(unsafe_code)]

use crate::error::{Code, Error, Result};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::signal::Signal;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a killed process may take to be gone.
const END_WITHIN: Duration = Duration::from_secs(5);

/// A process, known by more than its pid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessId {
    /// Its pid.
    pub pid: i32,
    /// When it started: clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id` of that boot.
    pub boot_id: String,
    /// Its executable.
    pub exe: PathBuf,
    /// Device and inode of that file, where they are known: a program that was renamed, or replaced, runs on.
    pub exe_file: Option<(u64, u64)>,
}

/// This boot's id.
pub fn boot_id() -> Result<String> {
    Ok(fs_err::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Fields of `/proc/PID/stat` that this suite needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `Z`, ….
    pub state: char,
    /// The parent's pid.
    pub ppid: i32,
    /// User and system time in clock ticks.
    pub cpu_ticks: u64,
    /// Clock ticks since boot.
    pub start_time: u64,
}

/// `/proc/PID/stat`, or `None` where there is no such process.
///
/// # Errors
/// What keeps it from being read: whoever has no descriptors left does not know that a process is gone.
pub fn stat(pid: i32) -> Result<Option<Stat>> {
    // The command's name is any bytes.
    Ok(of_process(pid, "stat")?.and_then(|bytes| parse_stat(&String::from_utf8_lossy(&bytes))))
}

/// A file of `/proc/PID`; `None` where the process ended before it was opened or read.
fn of_process(pid: i32, name: &str) -> Result<Option<Vec<u8>>> {
    let path = PathBuf::from(format!("/proc/{pid}/{name}"));
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if has_ended(&e) => Ok(None),
        Err(e) => Err(Error::io("read", &path, &e)),
    }
}

/// Whether an error of a file in `/proc/PID` is that the process has ended.
pub(super) fn has_ended(e: &std::io::Error) -> bool {
    e.kind() == std::io::ErrorKind::NotFound || e.raw_os_error() == Some(Errno::ESRCH as i32)
}

/// The command's name stands in parentheses and may hold any character, so fields count from the last `)`.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        ppid: fields.get(1)?.parse().ok()?,
        cpu_ticks: number(14)? + number(15)?,
        start_time: number(22)?,
    })
}

/// Resident memory in bytes (`/proc/PID/statm`), 0 where there is no such process.
pub fn rss_bytes(pid: i32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|f| f.parse().ok()).unwrap_or(0);
    pages * page_size()
}

/// Bytes read and written by system calls (`rchar` and `wchar` of `/proc/PID/io`), zeros where that cannot be read.
/// They count what a guest did also where the host's page cache served it.
pub fn io_bytes(pid: i32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0);
    (field("rchar:"), field("wchar:"))
}

/// Clock ticks as milliseconds.
pub fn ticks_to_ms(ticks: u64) -> u64 {
    // SAFETY: sysconf has no preconditions.
    let per_second = unsafe { nix::libc::sysconf(nix::libc::_SC_CLK_TCK) };
    ticks * 1000 / u64::try_from(per_second).unwrap_or(100).max(1)
}

fn page_size() -> u64 {
    // SAFETY: sysconf has no preconditions.
    u64::try_from(unsafe { nix::libc::sysconf(nix::libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// The arguments of a process, none where it has ended, or is in the middle of execve(2).
///
/// # Errors
/// What keeps them from being read: then nobody knows.
pub fn cmdline(pid: i32) -> Result<Vec<String>> {
    let bytes = of_process(pid, "cmdline")?.unwrap_or_default();
    let arguments = bytes.split(|b| *b == 0).filter(|a| !a.is_empty());
    Ok(arguments.map(|a| String::from_utf8_lossy(a).into_owned()).collect())
}

/// The user whose process it is, or `None` where there is no such process.
pub fn user_of(pid: i32) -> Option<u32> {
    Some(std::fs::metadata(format!("/proc/{pid}")).ok()?.uid())
}

/// Every pid of this /proc.
///
/// # Errors
/// What keeps /proc from being listed to its end: then nobody knows who else runs.
pub fn all_pids() -> Result<Vec<i32>> {
    let names = super::dirs::list(Path::new("/proc"))?;
    Ok(names.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// The pid namespace of this process, by its inode.
///
/// # Errors
/// What keeps it from being read.
pub fn own_pid_namespace() -> Result<u64> {
    let path = Path::new("/proc/self/ns/pid");
    std::fs::metadata(path).map(|meta| meta.ino()).map_err(|e| Error::io("read", path, &e))
}

/// The pid namespace of a process, where the caller may see it.
pub fn pid_namespace_of(pid: i32) -> Option<u64> {
    std::fs::metadata(format!("/proc/{pid}/ns/pid")).ok().map(|meta| meta.ino())
}

/// The processes that have a file open, as far as the caller may see.
pub fn openers(file: &Path) -> Vec<i32> {
    let has_it = |pid: &i32| {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
        descriptors.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|open| open == file))
    };
    all_pids().unwrap_or_default().into_iter().filter(has_it).collect()
}

impl ProcessId {
    /// The process that has this pid now.
    pub fn of(pid: i32) -> Result<Self> {
        let gone = || Error::new(Code::Os, format!("there is no process {pid}"));
        let start_time = stat(pid)?.ok_or_else(gone)?.start_time;
        let exe = exe_of(pid).ok_or_else(gone)?;
        Ok(ProcessId { pid, start_time, boot_id: boot_id()?, exe, exe_file: exe_file_of(pid) })
    }

    /// A process of which nobody noted the program: pid, start time and boot are its very own, and its program is the one that
    /// it runs now.
    pub fn noted(pid: i32, start_time: u64, boot_id: String) -> Self {
        ProcessId { pid, start_time, boot_id, exe: exe_of(pid).unwrap_or_default(), exe_file: None }
    }

    /// Whether that very process lives (a zombie does not).
    ///
    /// # Errors
    /// Those of [`stat`]: then nobody knows.
    pub fn is_alive(&self) -> Result<bool> {
        let same = |s: Stat| s.start_time == self.start_time && s.state != 'Z' && s.state != 'X';
        Ok(stat(self.pid)?.is_some_and(same) && boot_id()? == self.boot_id && self.runs_its_program().unwrap_or(true))
    }

    /// Whether the process of that pid runs that program; `None` where it cannot be read.
    fn runs_its_program(&self) -> Option<bool> {
        let exe = exe_of(self.pid)?;
        Some(exe == self.exe || self.exe_file.is_some() && exe_file_of(self.pid) == self.exe_file)
    }

    /// A handle on that very process, or `None` when it is gone: opened first, compared after, so it cannot be another. An
    /// executable that cannot be read is not the one that is wanted.
    pub fn open(&self) -> Result<Option<PidFd>> {
        let Some(fd) = pidfd_open(self.pid)? else { return Ok(None) };
        let is_it = self.is_alive()? && self.runs_its_program() == Some(true);
        Ok(is_it.then_some(PidFd(fd)))
    }

    /// Kills that very process, and waits until it is gone. One that is gone already is fine.
    ///
    /// # Errors
    /// [`Code::TimedOut`] for one that the kernel does not let go, such as one that waits for a broken disk.
    pub fn end(&self) -> Result<()> {
        let Some(handle) = self.open()? else { return Ok(()) };
        handle.signal(Signal::SIGKILL)?;
        if handle.wait(END_WITHIN)? {
            return Ok(());
        }
        let name = self.exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let message =
            format!("{name} (pid {}) was killed {} s ago, and is still there", self.pid, END_WITHIN.as_secs());
        Err(Error::new(Code::TimedOut, message).hint(format!("see what it waits for: cat /proc/{}/wchan", self.pid)))
    }
}

/// The executable, without the mark of a deleted file: a tool that was rebuilt still runs.
fn exe_of(pid: i32) -> Option<PathBuf> {
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    match exe.to_str().and_then(|s| s.strip_suffix(" (deleted)")) {
        Some(path) => Some(PathBuf::from(path)),
        None => Some(exe),
    }
}

/// Device and inode of the executable, whatever its name is by now.
fn exe_file_of(pid: i32) -> Option<(u64, u64)> {
    let meta = std::fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// The executable of a process, where it can be read.
pub fn executable(pid: i32) -> Option<PathBuf> {
    exe_of(pid)
}

/// Whether `exe` is the program `name`, by its last component.
pub fn is_program(exe: &Path, name: &str) -> bool {
    exe.file_name().is_some_and(|f| f == name)
}

fn pidfd_open(pid: i32) -> Result<Option<OwnedFd>> {
    // SAFETY: a system call with plain integers; a non-negative result is a new descriptor that nobody else owns.
    let fd = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0) };
    match i32::try_from(fd) {
        // SAFETY: see above.
        Ok(fd) if fd >= 0 => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        _ if Errno::last() == Errno::ESRCH => Ok(None),
        _ => Err(Errno::last().into()),
    }
}

/// A handle on one process, which its pid's reuse cannot change.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Of a child that has not been reaped.
    pub fn of_child(pid: i32) -> Result<Self> {
        pidfd_open(pid)?.map(PidFd).ok_or_else(|| Errno::ESRCH.into())
    }

    /// Sends a signal; a process that has ended meanwhile is not an error.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let null = std::ptr::null::<u8>();
        // SAFETY: plain integers and a null siginfo, which asks for the default.
        let rc =
            unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal as i32, null, 0) };
        match rc {
            0 => Ok(()),
            _ if Errno::last() == Errno::ESRCH => Ok(()),
            _ => Err(Errno::last().into()),
        }
    }

    /// Waits until it has ended, at most `timeout`; says whether it has.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        let ended = super::poll::wait(&[(self.0.as_fd(), PollFlags::POLLIN)], Some(Instant::now() + timeout))?;
        Ok(!ended[0].is_empty())
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_and_blanks_does_not_shift_the_fields() {
        let tail = (1..=52).map(|n| n.to_string()).collect::<Vec<_>>();
        let stat = parse_stat(&format!("7 (a) b) (c) S {}", tail[3..].join(" "))).unwrap();
        assert_eq!(stat, Stat { state: 'S', ppid: 4, cpu_ticks: 14 + 15, start_time: 22 });
        assert_eq!(parse_stat("7 (a"), None);
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[test]
    #[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test may start programs itself")]
    fn a_name_may_be_any_bytes() {
        use std::io::{Read, Write};
        use std::os::unix::ffi::OsStrExt;
        use std::process::{Command, Stdio};
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff"));
        std::os::unix::fs::symlink("/bin/cat", &program).unwrap();
        let mut child = Command::new(&program).arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // In the middle of its execve(2) a process has no arguments: one that answers is past it.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let found = (stat(child.id().cast_signed()), cmdline(child.id().cast_signed()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(
            (found.0.unwrap().unwrap().ppid, &found.1.unwrap()[1..]),
            (std::process::id().cast_signed(), &["-".to_owned()][..])
        );
    }

    #[test]
    fn a_process_is_itself_and_a_changed_start_time_is_somebody_else() {
        let me = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive().unwrap() && me.open().unwrap().is_some());
        for other in [
            ProcessId { start_time: me.start_time + 1, ..me.clone() },
            ProcessId { boot_id: "another".into(), ..me.clone() },
            ProcessId { exe: "/bin/other".into(), exe_file: None, ..me.clone() },
            ProcessId { exe: "/bin/other".into(), exe_file: Some((1, 1)), ..me.clone() },
        ] {
            assert!(!other.is_alive().unwrap() && other.open().unwrap().is_none(), "{other:?}");
        }
        // Its file was renamed; or nobody noted which file it was.
        for same in [
            ProcessId { exe: "/bin/other".into(), ..me.clone() },
            ProcessId { exe_file: None, ..me.clone() },
            ProcessId { exe_file: Some((1, 1)), ..me.clone() },
        ] {
            assert!(same.is_alive().unwrap() && same.open().unwrap().is_some(), "{same:?}");
        }
    }
}
