//! A user and mount namespace for tests, in which one directory is a small file system that can be filled, made read-only,
//! and taken away. Nothing of it is seen outside.

#![allow(clippy::disallowed_types)]

use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The namespaces, held by a process that does nothing.
pub struct Mounts {
    holder: Child,
    dir: PathBuf,
}

impl Mounts {
    /// With a tmpfs of `mib` MiB on the new directory `dir`; `None`, and a line that says so, where this host gives none.
    pub fn new(test: &str, dir: &Path, mib: u32) -> Option<Self> {
        std::fs::create_dir(dir).unwrap();
        let script = format!("mount -t tmpfs -o size={mib}m,mode=700 none '{}' && echo up && exec cat", dir.display());
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "--", "sh", "-c", &script]);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        if line != "up\n" {
            holder.wait().unwrap();
            crate::support::not_run(test, "unshare --user --mount is refused");
            return None;
        }
        Some(Mounts { holder, dir: dir.to_owned() })
    }

    /// A command that runs in them.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        let holder = self.holder.id().to_string();
        command.args(["--preserve-credentials", "--user", "--mount", "--target", &holder, "--", program]).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The directory as a path that is good outside.
    pub fn seen(&self, below: &str) -> PathBuf {
        let dir = self.dir.strip_prefix("/").unwrap();
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(dir).join(below)
    }

    /// Whoever opens something in it from now on cannot write; what is open for writing stays so.
    pub fn make_read_only(&self) {
        let dir = self.dir.to_str().unwrap();
        self.ok("mount", &["--bind", dir, dir]);
        self.ok("mount", &["-o", "remount,bind,ro", dir]);
    }

    /// Ends that.
    pub fn make_writable(&self) {
        self.ok("umount", &["--lazy", self.dir.to_str().unwrap()]);
    }

    fn ok(&self, program: &str, args: &[&str]) {
        let done = self.command(program, args).output().unwrap();
        assert!(done.status.success(), "{program} {args:?}: {done:?}");
    }

    /// Takes up all that is free but for so many bytes, by the file `filler`.
    pub fn leave(&self, bytes: u64) {
        let filler = self.seen("filler");
        let _ = std::fs::remove_file(&filler);
        let free = lib_common::sys::fs::free_bytes(&self.seen("")).unwrap();
        let file = File::create(&filler).unwrap();
        let length = i64::try_from(free.saturating_sub(bytes)).unwrap();
        if length > 0 {
            fallocate(&file, FallocateFlags::empty(), 0, length).unwrap();
        }
        assert!(lib_common::sys::fs::free_bytes(&self.seen("")).unwrap() <= bytes);
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
