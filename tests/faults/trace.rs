//! What a tool asks the kernel to change, as strace(1) shows it, and the same run again with one of those calls gone
//! wrong.

use crate::support::{Done, Sandbox, finish, through};
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

/// The calls that are looked at. `?`: not every architecture has each.
pub const CALLS: &str = "trace=?open,?creat,openat,?openat2,write,writev,pwrite64,?pwritev,?rename,?renameat,renameat2,\
    ?link,linkat,?symlink,symlinkat,?unlink,unlinkat,?mkdir,mkdirat,?rmdir,?mknod,mknodat,fsync,fdatasync,syncfs,\
    ftruncate,fallocate,copy_file_range,?chmod,fchmod,fchmodat,?chown,fchown,fchownat,fsetxattr,setxattr,utimensat,\
    ioctl,flock,fcntl,sendto,sendmsg,?fork,?vfork,clone,?clone3,exit_group";

/// One call of a trace.
#[derive(Clone, Debug)]
pub struct Call {
    pub name: String,
    /// Its arguments and its result.
    pub text: String,
    /// Which call of that name of its thread it is, from 1.
    pub nth: usize,
    /// Whether the tool's first thread makes it, not another one or a program that it started.
    pub own: bool,
}

impl Call {
    /// Whether it may change something outside of the process.
    pub fn mutates(&self) -> bool {
        let says = |words: &[&str]| words.iter().any(|word| self.text.contains(word));
        match self.name.as_str() {
            "open" | "openat" | "openat2" => says(&["O_CREAT", "O_WRONLY", "O_RDWR", "O_TRUNC"]),
            "ioctl" => says(&["FICLONE", "TUNSET"]),
            "flock" => !says(&["LOCK_UN"]),
            "fcntl" => says(&["SETLK"]),
            _ => true,
        }
    }

    /// Whether a signal may end it before it has done anything. What the dynamic linker does is not ours.
    pub fn may_be_interrupted(&self) -> bool {
        let says = |words: &[&str]| words.iter().any(|word| self.text.contains(word));
        match self.name.as_str() {
            "fcntl" => says(&["SETLKW"]),
            "ioctl" => says(&["FICLONE"]),
            "open" | "openat" => !says(&[".so.", "ld.so"]),
            "read" | "pread64" => !says(&["\\177ELF", "\\6\\0\\0\\0\\4\\0\\0\\0"]),
            _ => true,
        }
    }
}

/// The calls that wait, or are slow, and so may be ended by a signal before they have done anything: signal(7). But for close,
/// which has closed then.
pub const INTERRUPTIBLE: &str = "trace=?open,openat,?openat2,read,readv,pread64,write,writev,pwrite64,fsync,fdatasync,\
    ftruncate,fallocate,copy_file_range,flock,fcntl,ioctl,?poll,ppoll,?select,pselect6,?epoll_wait,epoll_pwait,\
    connect,?accept,accept4,sendto,sendmsg,recvfrom,recvmsg,wait4,waitid";

/// The call that goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub call: String,
    /// Its arguments and its result in the run that was recorded.
    pub text: String,
    pub nth: usize,
    pub own: bool,
}

impl Point {
    /// Whether it is a call that a full or broken disk, a full table, or a missing right makes fail. What is said on the standard
    /// streams is the tool's answer, not its work.
    pub fn may_fail(&self) -> bool {
        let is_said = self.call.starts_with("write") && ["1<", "2<"].iter().any(|fd| self.text.starts_with(fd));
        !is_said && self.call != "exit_group"
    }

    /// Whether nobody may go on when it has failed: what was to be kept is not, or has not its name. Who holds a lock, and what
    /// a log says, is not kept.
    pub fn is_of_what_is_kept(&self) -> bool {
        let keeps = ["write", "pwrite64", "fsync", "fdatasync", "syncfs", "copy_file_range", "ftruncate"];
        let is_ours = self.text.contains("/state/")
            && !["/lock>", "/.lock>"].iter().any(|lock| self.text.contains(lock))
            && !self.text.contains(".log>");
        let names = self.call.starts_with("rename") && !self.frees_a_name();
        self.own && is_ours && self.may_fail() && (keeps.contains(&&*self.call) || names)
    }

    /// Whether it moves something to where it is removed; what cannot be moved is removed where it is.
    fn frees_a_name(&self) -> bool {
        self.text.split('"').rfind(|part| part.starts_with('/')).is_some_and(|to| to.contains("/staging/"))
    }

    /// Whether it is done to save the record of a VM.
    pub fn is_of_a_vms_record(&self) -> bool {
        ["/machines/dev/.tmp-", "/machines/dev>"].iter().any(|file| self.text.contains(file))
    }

    /// Whether what it is about has a path.
    pub fn has_path(&self) -> bool {
        let is_nameless = ["<pipe:", "<socket:", "<anon_inode"].iter().any(|kind| self.text.contains(kind));
        !is_nameless && !["sendto", "sendmsg", "fork", "vfork", "clone", "clone3"].contains(&&*self.call)
    }

    /// Whether it removes something: whoever fails at that leaves it.
    pub fn removes(&self) -> bool {
        ["unlink", "unlinkat", "rmdir"].contains(&&*self.call)
    }
}

/// `command` under strace with those options; what it saw goes to the file `log`.
pub fn under_strace(command: &Command, log: &Path, options: &[&str]) -> Command {
    through(command, "strace", &[&["-o", log.to_str().unwrap()], options].concat())
}

/// Runs it, and gives what of those calls it made, in order: its first thread's alone, or, `with_children`, everybody's.
pub fn calls(
    sandbox: &Sandbox,
    command: &Command,
    stdin: &str,
    (traced, with_children): (&str, bool),
) -> (Done, Vec<Call>) {
    let log = sandbox.path("calls");
    let follow: &[&str] = if with_children { &["-f"] } else { &[] };
    let options = [follow, &["-y", "-e", traced]].concat();
    let done = finish(under_strace(command, &log, &options).spawn().unwrap(), stdin.as_bytes());
    (done, parse(&String::from_utf8_lossy(&std::fs::read(log).unwrap()), with_children))
}

pub fn parse(log: &str, with_children: bool) -> Vec<Call> {
    let mut seen: HashMap<(&str, &str), usize> = HashMap::new();
    let (mut first, mut calls) = (None, vec![]);
    for line in log.lines() {
        let (thread, call) = if with_children { line.split_once(' ').unwrap_or(("", line)) } else { ("", line) };
        let own = *first.get_or_insert(thread) == thread;
        let Some((name, text)) = call.trim_start().split_once('(') else { continue };
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            // The end of a call, a signal, or an exit.
            continue;
        }
        let nth = seen.entry((thread, name)).or_default();
        *nth += 1;
        calls.push(Call { name: name.into(), text: text.into(), nth: *nth, own });
    }
    calls
}

impl From<Call> for Point {
    fn from(Call { name: call, text, nth, own }: Call) -> Self {
        Point { call, text, nth, own }
    }
}

/// Every mutating call of a trace, and the end after the last one, that can be told from the others by its name and number: strace counts them for each
/// thread, and the thread that gets there first is the one it happens to.
pub fn points(calls: &[Call]) -> Vec<Point> {
    let mut points = vec![];
    let mut firsts = std::collections::HashSet::new();
    for call in calls {
        // The end of a program that it has started is not its own.
        let counts = call.own || call.name != "exit_group";
        if counts && firsts.insert((&call.name, call.nth)) && call.mutates() {
            points.push(call.clone().into());
        }
    }
    points
}

/// Runs it once more, and `fault` ("signal=KILL", "error=EIO") is what becomes of that call. Says whether it came to that.
pub fn with_fault(sandbox: &Sandbox, command: &Command, stdin: &str, point: &Point, fault: &str) -> (Done, bool) {
    let log = sandbox.path("fault");
    let (trace, inject) =
        (format!("trace={}", point.call), format!("inject={}:{fault}:when={}", point.call, point.nth));
    let follow: &[&str] = if point.own { &[] } else { &["-f"] };
    let options = [follow, &["-e", &trace, "-e", &inject]].concat();
    let done = finish(under_strace(command, &log, &options).spawn().unwrap(), stdin.as_bytes());
    let log = std::fs::read(log).unwrap();
    let log = String::from_utf8_lossy(&log);
    (done, log.contains("(INJECTED)") || log.contains("+++ killed by SIGKILL"))
}
