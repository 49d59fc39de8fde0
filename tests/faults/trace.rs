//! What a tool asks the kernel to change, as strace(1) shows it, and the same run again with one of those calls gone
//! wrong.

use crate::support::{Done, Sandbox, finish};
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

/// The calls that are looked at. `?`: not every architecture has each.
pub const CALLS: &str = "trace=?open,?creat,openat,?openat2,write,writev,pwrite64,?pwritev,?rename,?renameat,renameat2,\
    ?link,linkat,?symlink,symlinkat,?unlink,unlinkat,?mkdir,mkdirat,?rmdir,?mknod,mknodat,fsync,fdatasync,syncfs,\
    ftruncate,fallocate,copy_file_range,?chmod,fchmod,fchmodat,?chown,fchown,fchownat,fsetxattr,setxattr,utimensat,\
    ioctl,flock,sendto,sendmsg,?fork,?vfork,clone,?clone3,exit_group";

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
            _ => true,
        }
    }
}

/// The call that goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub call: String,
    pub nth: usize,
    pub own: bool,
}

impl Point {
    /// Whether it is a call that a full or broken disk, or a missing right, makes fail.
    pub fn is_of_files(&self) -> bool {
        let others = [
            "ioctl",
            "flock",
            "sendto",
            "sendmsg",
            "fork",
            "vfork",
            "clone",
            "clone3",
            "write",
            "writev",
            "exit_group",
        ];
        !others.contains(&&*self.call)
    }

    /// Whether a signal may end it before it has done anything: signal(7).
    pub fn may_be_interrupted(&self) -> bool {
        ["open", "openat", "write", "pwrite64", "fsync", "ftruncate", "fallocate"].contains(&&*self.call)
    }
}

/// `command` under strace with those options; what it saw goes to the file `log`.
pub fn under_strace(command: &Command, log: &Path, options: &[&str]) -> Command {
    let mut strace = Command::new("strace");
    strace.arg("-o").arg(log).args(options).arg(command.get_program()).args(command.get_args());
    strace.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    strace.current_dir(command.get_current_dir().unwrap());
    strace.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    strace.stderr(std::process::Stdio::piped());
    strace
}

/// Runs it, and gives what it did in order: its first thread's calls alone, or, `with_children`, everybody's.
pub fn calls(sandbox: &Sandbox, command: &Command, stdin: &str, with_children: bool) -> (Done, Vec<Call>) {
    let log = sandbox.path("calls");
    let follow: &[&str] = if with_children { &["-f"] } else { &[] };
    let options = [follow, &["-e", CALLS]].concat();
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

/// Every mutating call of a trace, and the end after the last one, that can be told from the others by its name and number: strace counts them for each
/// thread, and the thread that gets there first is the one it happens to.
pub fn points(calls: &[Call]) -> Vec<Point> {
    let mut points = vec![];
    let mut firsts = std::collections::HashSet::new();
    for call in calls {
        // The end of a program that it has started is not its own.
        let counts = call.own || call.name != "exit_group";
        if counts && firsts.insert((&call.name, call.nth)) && call.mutates() {
            points.push(Point { call: call.name.clone(), nth: call.nth, own: call.own });
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
