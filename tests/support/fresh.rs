//! A user's first day: what `make install` installs, in a directory of the test's own, and a user who has never used it, with
//! Debian's default `PATH` and an empty home directory.

#![allow(clippy::disallowed_types)]

use super::netns::Namespace;
use super::source::root;
use super::{Done, TOOLS};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Debian's default `PATH` of an ordinary user: it lacks the directories of administrators' programs.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games";

/// An id that no user of a usual host has.
const UID: u32 = 61_234;

/// The files that say who users are. The test's own are mounted over them, in its own mount namespace.
const DATABASES: [&str; 4] = ["passwd", "group", "subuid", "subgid"];

/// An installed suite, and a user.
pub struct Fresh {
    dir: tempfile::TempDir,
    /// Holds the mount namespace in which the user exists; without it, the user is the caller.
    holder: Option<Child>,
}

impl Fresh {
    /// Installs what cargo has built. Run by root, the user is a new one; else it is the caller, with another home directory. `None`,
    /// and a line that says so, where the host gives no mount namespace.
    pub fn new(test: &str) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("bg").tempdir().unwrap();
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), everybody).unwrap();
        std::fs::create_dir(dir.path().join("home")).unwrap();
        install(dir.path());
        let mut fresh = Fresh { dir, holder: None };
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(fresh.home(), Some(UID), Some(UID)).unwrap();
            fresh.holder = Some(fresh.new_user(test)?);
        }
        Some(fresh)
    }

    fn new_user(&self, test: &str) -> Option<Child> {
        let etc = self.dir.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        let home = self.home();
        let lines = [
            format!("fresh:x:{UID}:{UID}::{}:/bin/bash\n", home.display()),
            format!("fresh:x:{UID}:\n"),
            "fresh:6000000:65536\n".to_owned(),
            "fresh:6000000:65536\n".to_owned(),
        ];
        let mut script = String::new();
        for (name, line) in DATABASES.iter().zip(lines) {
            let text = std::fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
            std::fs::write(etc.join(name), text + &line).unwrap();
            script += &format!("mount --bind '{}' /etc/{name} && ", etc.join(name).display());
        }
        script += "echo up && exec cat";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--", "sh", "-c", &script]);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        if line != "up\n" {
            holder.wait().unwrap();
            crate::support::not_run(test, "a mount namespace with users of its own is refused");
            return None;
        }
        Some(holder)
    }

    /// The user's home directory.
    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// What the suite is installed below, `/usr/local` elsewhere.
    pub fn prefix(&self) -> PathBuf {
        prefix(self.dir.path())
    }

    /// A line of bash, as the user types it.
    pub fn command(&self, line: &str) -> Command {
        let mut command = match &self.holder {
            Some(holder) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--mount=/proc/{}/ns/mnt", holder.id()));
                let uid = UID.to_string();
                command.args(["--", "setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups", "env", "-i"]);
                command
            }
            None => {
                let mut command = Command::new("env");
                command.arg("-i");
                command
            }
        };
        let home = self.home();
        command.arg(format!("--chdir={}", home.display())).arg(format!("HOME={}", home.display()));
        command.args(self.variables()).args(["bash", "-c", line]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn variables(&self) -> [String; 3] {
        let prefix = self.prefix().display().to_string();
        [format!("PATH={prefix}/bin:{PATH}"), format!("LIBEXEC={prefix}/libexec/banger"), "LC_ALL=C.UTF-8".to_owned()]
    }

    /// A line of bash as root types it in a network namespace, on the same suite and with the same `PATH`, in root's own home.
    pub fn as_root(&self, netns: &Namespace, line: &str) -> Command {
        let mut command = netns.command("env", &[]);
        command.args(self.variables()).args(["bash", "-c", line]).stdin(Stdio::null());
        command
    }

    /// Gives the user all that lies in the home directory.
    pub fn own_home(&self) {
        if self.holder.is_some() {
            let owner = format!("{UID}:{UID}");
            assert!(Command::new("chown").args(["-R", &owner]).arg(self.home()).status().unwrap().success());
        }
    }

    /// Runs a line of bash to its end.
    pub fn run(&self, line: &str) -> Done {
        self.command(line).output().unwrap().into()
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some(holder) = &mut self.holder {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

fn prefix(dir: &Path) -> PathBuf {
    dir.join("dest/opt/banger")
}

/// `make install` without its build, from where cargo has put this test's tools.
fn install(dir: &Path) {
    let bins = Path::new(TOOLS[0].1).parent().unwrap();
    let mut command = Command::new("make");
    command.args(["--no-print-directory", "install-built", "PREFIX=/opt/banger"]).current_dir(root(""));
    command.arg(format!("DESTDIR={}", dir.join("dest").display())).env("CARGO_TARGET_DIR", bins.parent().unwrap());
    command.arg(format!("BINS={}", bins.display()));
    let done: Done = command.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").output().unwrap().into();
    assert_eq!(done.exit, 0, "{done:?}");
    assert!(prefix(dir).join("bin/bg-vm").is_file());
}
