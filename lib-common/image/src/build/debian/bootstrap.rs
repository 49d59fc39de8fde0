//! From packages to an ext4 in one pipeline: mmdebstrap's tar, through the filter, into mke2fs. Nothing of it lies on the
//! disk in between but mmdebstrap's own directory in `TMPDIR`.

use super::filter::{Passed, Stopped, filter};
use crate::disk::ext4::{self, Format};
use lib_common::added::Added;
use lib_common::error::{ChildFailure, Code, Error, Result};
use lib_common::sys::cmd::{Cmd, Stream, Streams};
use lib_common::sys::program;
use lib_common::sys::signal;
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::time::Duration;

/// How long mmdebstrap may take to remove its directory when it is stopped: a tree of 300 MB.
const CLEANUP: Duration = Duration::from_secs(30);

/// Of its stderr so much is kept to find its errors in, and of each of these so many characters.
const STDERR_TAIL: usize = 64 << 10;
const LINE_MAX: usize = 300;

/// What to install, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// `bookworm`.
    pub suite: String,
    /// Beside `minbase`.
    pub packages: Vec<String>,
    /// One-line apt sources.
    pub sources: Vec<String>,
    /// Lines of apt.conf(5).
    pub apt_options: Vec<String>,
    /// The latest time of any file, in seconds since 1970.
    pub epoch: u64,
}

/// Installs into the new file `image`, a file system of `size` bytes, with `added` in it.
///
/// Errors: [`Code::CommandFailed`] with the words of mmdebstrap or mke2fs, whichever failed first.
pub fn run(what: &Bootstrap, added: &[Added], image: (&Path, u64), format: Format<'_>) -> Result<Passed> {
    let mut disk = ext4::make_from_tar(image.0, image.1, format)?;
    let streams = Streams { stdout: Stream::Pipe, ..Streams::default() };
    let mut mmdebstrap = command(what).grace(CLEANUP).stderr_tail(STDERR_TAIL).spawn(streams)?;
    let Some(stdout) = mmdebstrap.stdout()? else {
        return Err(Error::new(Code::Internal, "the pipe from mmdebstrap is gone"));
    };
    // The filter owns both ends, so whatever stops it lets the other program see the end of its pipe.
    let input = BufReader::with_capacity(256 << 10, stdout);
    let output = BufWriter::with_capacity(128 << 10, &mut disk);
    match filter(input, output, added, what.epoch) {
        Ok(passed) => {
            mmdebstrap.finish().map_err(explained)?;
            if passed.dpkg_status.is_empty() {
                return Err(Error::new(Code::BadInput, "mmdebstrap made a root without packages"));
            }
            disk.finish()?;
            Ok(passed)
        }
        Err(Stopped::Output(e)) => Err(disk.failure().unwrap_or_else(|| e.into())),
        Err(Stopped::Input(e)) => {
            signal::check()?;
            mmdebstrap.finish().map_err(|failure| explained(failure).also(e.to_string()))?;
            Err(e)
        }
    }
}

/// The command; the tar goes to its standard output.
fn command(what: &Bootstrap) -> Cmd {
    Cmd::new("mmdebstrap")
        .args(["--mode=auto", "--variant=minbase", "--format=tar"])
        .arg(format!("--include={}", what.packages.join(",")))
        .args(what.apt_options.iter().map(|option| format!("--aptopt={option}")))
        .arg(&what.suite)
        .arg("-")
        .args(&what.sources)
        .env("SOURCE_DATE_EPOCH", what.epoch.to_string())
        .env("LC_ALL", "C.UTF-8")
}

/// The failure with mmdebstrap's lines of error: the last line that it prints is about its cleaning up, and the one before
/// repeats a command of kilobytes.
fn explained(error: Error) -> Error {
    let Some(child) = error.get_child().cloned() else { return error };
    let lines = child.stderr.lines().filter(|l| l.starts_with("E: ") && !error.causes().iter().any(|c| c == l));
    let told: Vec<String> = lines.map(|l| l.chars().take(LINE_MAX).collect()).collect();
    let unknown = |l: &String| l.contains("Unable to locate package") || l.contains("has no installation candidate");
    let hint = told.iter().any(unknown);
    let mut start = child.stderr.len().saturating_sub(1024);
    while !child.stderr.is_char_boundary(start) {
        start += 1;
    }
    let child = ChildFailure { stderr: child.stderr[start..].to_owned(), ..child };
    let error = told.into_iter().fold(error.child(child), Error::also);
    if hint { error.hint("check the names in --packages; `apt-cache search WORD` finds some") } else { error }
}

/// Whether this user can run mmdebstrap: root can; others need a range of user ids of their own (user_namespaces(7)), or
/// fakechroot.
///
/// Errors: [`Code::Permission`], with what to install or set.
pub fn check_user() -> Result<()> {
    let uid = nix::unistd::geteuid();
    if uid.is_root() || (is_there("fakechroot") && is_there("fakeroot")) {
        return Ok(());
    }
    let user = nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let ids = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let ranges = [ids("/etc/subuid"), ids("/etc/subgid")];
    judge_user(&user, uid.as_raw(), is_there("newuidmap") && is_there("newgidmap"), &ranges)
}

fn judge_user(user: &str, uid: u32, tools: bool, ranges: &[String; 2]) -> Result<()> {
    let denied =
        |why: &str| Error::new(Code::Permission, format!("the user `{user}` cannot build a Debian root: {why}"));
    if !tools {
        return Err(denied("newuidmap is not installed").hint("apt-get install uidmap  # or run this as root"));
    }
    let owner = |line: &str| line.split(':').next().is_some_and(|o| o == user || o == uid.to_string());
    if ranges.iter().all(|file| file.lines().any(owner)) {
        return Ok(());
    }
    Err(denied("it has no range of user and group ids of its own in /etc/subuid and /etc/subgid")
        .hint(format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}  # or run this as root")))
}

fn is_there(program: &str) -> bool {
    program::find(Path::new(program)).is_ok()
}

/// What of the host's apt.conf(5) is needed to reach and to believe its mirror: lines for mmdebstrap, and those of them
/// that the guest's apt needs too (a proxy is the host's own matter).
///
/// Errors: [`Code::MissingProgram`] without apt.
pub fn apt_options() -> Result<(Vec<String>, Vec<String>)> {
    let dump = Cmd::new("apt-config").args(["dump", "Acquire"]).env("LC_ALL", "C").output(1 << 20)?;
    Ok(chosen_options(&String::from_utf8_lossy(&dump)))
}

fn chosen_options(dump: &str) -> (Vec<String>, Vec<String>) {
    let starts = |line: &str, keys: &[&str]| keys.iter().any(|key| line.starts_with(key)) && !line.ends_with("\"\";");
    let validity = |line: &&str| starts(line, &["Acquire::Check-Valid-Until ", "Acquire::Check-Date "]);
    let proxy = |line: &&str| starts(line, &["Acquire::http::Proxy", "Acquire::https::Proxy"]);
    let pick = |wanted: &dyn Fn(&&str) -> bool| dump.lines().filter(|l| wanted(l)).map(str::to_owned).collect();
    (pick(&|line| validity(line) || proxy(line)), pick(&validity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_every_source_and_writes_to_its_output() {
        let what = Bootstrap {
            suite: "bookworm".into(),
            packages: vec!["bash".into(), "udev".into()],
            sources: vec!["deb http://a/debian bookworm main".into()],
            apt_options: vec!["Acquire::Check-Date \"false\";".into()],
            epoch: 7,
        };
        assert_eq!(
            command(&what).to_shell(),
            "SOURCE_DATE_EPOCH=7 LC_ALL=C.UTF-8 mmdebstrap --mode=auto --variant=minbase --format=tar --include=bash,udev \
             '--aptopt=Acquire::Check-Date \"false\";' bookworm - 'deb http://a/debian bookworm main'"
        );
    }

    #[test]
    fn the_first_error_of_mmdebstrap_is_told_though_it_is_not_the_last_line() {
        let long = format!("E: setup failed: E: apt-get {}", "package ".repeat(1000));
        let stderr = format!("I: running\nE: Unable to locate package x\n{long}\nI: removing tempdir\n");
        let child = ChildFailure { argv: vec!["mmdebstrap".into()], status: "exit 25".into(), stderr };
        let e = explained(Error::new(Code::CommandFailed, "mmdebstrap failed").child(child));
        assert_eq!(e.causes()[0], "E: Unable to locate package x");
        assert_eq!(e.causes()[1].len(), LINE_MAX);
        assert!(e.get_hint().unwrap().contains("--packages"));
        assert_eq!(e.get_child().unwrap().stderr.len(), 1024);
    }

    #[test]
    fn proxies_stay_on_the_host() {
        let dump = "Acquire \"\";\nAcquire::Check-Date \"false\";\nAcquire::http::Proxy \"http://p:1\";\n\
            Acquire::https::Proxy \"\";\nAcquire::Languages \"none\";\n";
        let (all, guest) = chosen_options(dump);
        assert_eq!(all, ["Acquire::Check-Date \"false\";", "Acquire::http::Proxy \"http://p:1\";"]);
        assert_eq!(guest, ["Acquire::Check-Date \"false\";"]);
    }

    #[test]
    fn a_user_who_cannot_is_told_what_is_missing() {
        let none = [String::new(), String::new()];
        let both = ["me:100000:65536\n".to_owned(), "# x\n1000:100000:65536\n".to_owned()];
        let hint = |tools, ranges| judge_user("me", 1000, tools, ranges).map_err(|e| e.get_hint().unwrap().to_owned());
        assert!(hint(false, &both).unwrap_err().starts_with("apt-get install uidmap"));
        assert!(hint(true, &none).unwrap_err().starts_with("usermod --add-subuids"));
        let no_groups = [both[0].clone(), String::new()];
        assert!(hint(true, &no_groups).is_err());
        assert_eq!(hint(true, &both), Ok(()));
    }
}
