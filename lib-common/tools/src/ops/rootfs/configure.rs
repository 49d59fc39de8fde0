//! The configure boot from the host's side: a root file system is booted once, in a temporary VM without a card and without
//! another disk, and its guest runs the scripts that its packages have brought (`doc::configure`). None of them ever runs on
//! the host.

mod heard;

use crate::cli::Context;
use crate::ops::machine::{Claimed, identity, link_kernel};
use crate::ops::temporary::{self, Temporary};
use heard::Heard;
use lib_common::doc::{
    AbsPath, CONFIGURE_PORT, ConfigureBegins, ConfigureDone, ConfigureLine, Configured, Document, Kernel, Kind,
    LaunchDisk, Name, SecondDisk,
};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::random::random_id;
use lib_image::disk::ext4;
use lib_machine::guest::vsock::{listen_at, served_at};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Runs the scripts of the root file system `root`, an ext4 file of ours that is written in place, on that kernel. The
/// initrd of the kernel has the agent that does it. Gives how each script ended: well.
///
/// Where this fails, the file is of no use any more. Nothing else is left.
///
/// # Errors
/// [`Code::CommandFailed`] for a script that failed, with package, version and status, and what it printed last;
/// [`Code::TimedOut`] where that takes longer than `timeout`; [`Code::NotRunning`] for a guest that ends too early;
/// [`Code::BadInput`] for what it says or leaves; what keeps a VM from running.
pub fn configure(cx: &mut Context<'_>, kernel: &Kernel, root: &Path, timeout: Duration) -> Result<Vec<Configured>> {
    let deadline = Instant::now() + timeout;
    check_root(root)?;
    let vm = start(cx, kernel, root)?;
    let listener = listen_at(&served_at(&vm.vmm().vsock, CONFIGURE_PORT))?;
    cx.stages.begin("configure");
    let mut progress = Progress::default();
    let mut heard = Heard::new(&listener, vm.live());
    loop {
        let line = heard.next((Instant::now() + TICK).min(deadline));
        match line {
            Err(e) if e.code() == Code::TimedOut && Instant::now() < deadline => {}
            Err(e) => return Err(progress.after(e, timeout)),
            Ok(Some(ConfigureLine::Begins(begins))) => progress.running = Some((begins, Instant::now())),
            Ok(Some(ConfigureLine::Script(script))) => {
                if !script.is_success() {
                    return Err(failed(&script));
                }
                progress.ended(script);
            }
            Ok(Some(ConfigureLine::Done(ConfigureDone { done: true }))) => break,
            Ok(Some(ConfigureLine::Done(_)) | None) => return Err(vm.with_console(progress.ended_early())),
        }
        cx.stages.note(&progress.line());
    }
    cx.stages.begin("shutdown");
    vm.wait_power_off()?;
    vm.ended().remove()?;
    cx.stages.begin("check");
    ext4::ensure_clean(root)?;
    Ok(progress.scripts)
}

/// It is going to be written to by programs from elsewhere: a link could lead anywhere.
fn check_root(root: &Path) -> Result<()> {
    let found =
        std::fs::symlink_metadata(root).map_err(|e| Error::io("open", root, &e).with_code(Code::MissingFile))?;
    if found.is_file() && found.uid() == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    Err(Error::new(Code::BadInput, format!("{} is not a regular file of yours", root.display())))
}

fn start(cx: &mut Context<'_>, kernel: &Kernel, root: &Path) -> Result<Temporary> {
    cx.stages.begin("claim");
    let store = cx.store();
    let (id, name) = (random_id()?, temporary::new_name("configure")?);
    let machine = store.machine_dir(&name);
    let (lock, operation) = store.stage("rootfs_configure")?.publish(machine.path())?;
    link_kernel(&machine, kernel)?;
    let mut doc = Document::new(Kind::Machine, &name);
    doc.set_string("id", &id);
    doc.set(&temporary::spec(cx, Name::parse("unregistered")?));
    doc.set(kernel);
    cx.stages.begin("identity");
    let mut identity = identity(cx, &mut doc, &machine)?;
    (identity.second_disk, identity.configure) = (SecondDisk::None, true);
    let disks = vec![LaunchDisk { path: AbsPath::new(std::path::absolute(root)?)?, read_only: false }];
    Temporary::boot(cx, doc, Claimed { machine, operation, lock }, (&identity, disks))
}

/// The error of a script that did not end well.
fn failed(script: &Configured) -> Error {
    let Configured { package, version, action, ended, output, .. } = script;
    let error = Error::new(
        Code::CommandFailed,
        format!("the package `{package}` cannot be configured: its script ended with {ended} ({})", action.as_str()),
    );
    let last = output.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned());
    let error = last.into_iter().fold(error, Error::also);
    error
        .detail("package", package.as_str())
        .detail("version", version.as_str())
        .detail("action", action.as_str())
        .detail("status", ended.as_str())
        .detail("output", output.as_str())
}

/// How often a terminal is told how long a script has run.
const TICK: Duration = Duration::from_secs(1);

/// How far the guest is.
#[derive(Default)]
struct Progress {
    scripts: Vec<Configured>,
    /// The script that runs, and since when. Agents of the first version do not say it.
    running: Option<(ConfigureBegins, Instant)>,
}

impl Progress {
    fn ended(&mut self, script: Configured) {
        self.running = None;
        self.scripts.push(script);
    }

    /// For a terminal.
    fn line(&self) -> String {
        let count = self.scripts.len();
        match (&self.running, self.scripts.last()) {
            (Some((ConfigureBegins { begins, action }, since)), _) => {
                format!("configure: {} {begins} ({}), {} s", count + 1, action.as_str(), since.elapsed().as_secs())
            }
            (None, Some(script)) => format!("configure: {count} {}", script.package),
            (None, None) => "configure: booting".into(),
        }
    }

    fn ended_early(&self) -> Error {
        let message =
            format!("the guest ended before its packages were configured; {} scripts had run", self.scripts.len());
        self.with_last(Error::new(Code::NotRunning, message))
    }

    /// The error of a guest that says nothing more, or what it should not.
    fn after(&self, e: Error, timeout: Duration) -> Error {
        let error = match e.code() {
            Code::TimedOut => {
                let message = format!("the packages were not configured within {} s", timeout.as_secs());
                Error::new(Code::TimedOut, message).hint("--timeout SECONDS gives them more time")
            }
            _ => e,
        };
        self.with_last(error)
    }

    /// With the package whose script was running, and the one that took longest.
    fn with_last(&self, error: Error) -> Error {
        let error = match (&self.running, self.scripts.last()) {
            (Some((ConfigureBegins { begins, action }, since)), _) => {
                let ran = since.elapsed().as_secs();
                error.also(format!("the script of `{begins}` ({}) had run for {ran} s", action.as_str()))
            }
            (None, Some(Configured { package, .. })) => error.also(format!("the last package was `{package}`")),
            (None, None) => error,
        };
        match self.scripts.iter().max_by_key(|script| script.ms) {
            Some(slow) if slow.ms >= 1000 => {
                error.also(format!("of the others `{}` took longest: {} s", slow.package, slow.ms / 1000))
            }
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lib_common::doc::ConfigureAction;

    fn script(package: &str, status: i32, output: &str) -> Configured {
        Configured {
            package: package.into(),
            version: "1.0_1".into(),
            action: ConfigureAction::Pre,
            status,
            ended: format!("exit {status}"),
            ms: 1,
            output: output.into(),
        }
    }

    #[test]
    fn a_failure_names_the_package_and_has_its_output() {
        let e = failed(&script("bash", 3, "one\nthe last\n\n"));
        assert_eq!((e.code(), e.causes()), (Code::CommandFailed, &["the last".to_owned()][..]));
        assert!(e.message().contains("`bash`") && e.message().contains("exit 3 (pre)"), "{e}");
        let details: Vec<(&str, &str)> = e.details().iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let expected = [
            ("package", "bash"),
            ("version", "1.0_1"),
            ("action", "pre"),
            ("status", "exit 3"),
            ("output", "one\nthe last\n\n"),
        ];
        assert_eq!(details, expected);
        assert_eq!(failed(&script("bash", 1, "")).causes(), &[] as &[String]);
    }

    #[test]
    fn a_timeout_names_the_package_that_runs_and_the_slowest() {
        let late = || Error::new(Code::TimedOut, "it is late");
        let mut progress = Progress::default();
        assert_eq!(progress.after(late(), Duration::from_secs(7)).causes(), &[] as &[String]);
        progress.ended(Configured { ms: 5200, ..script("slow", 0, "") });
        progress.ended(script("b", 0, ""));
        let e = progress.after(late(), Duration::from_secs(7));
        assert!(e.message().contains("7 s") && e.causes()[0].contains("`b`") && e.get_hint().is_some(), "{e:?}");
        assert!(e.causes()[1].contains("`slow` took longest: 5 s"), "{e:?}");
        let begins = ConfigureBegins { begins: "glibc-locales".into(), action: ConfigureAction::Post };
        progress.running = Some((begins, Instant::now()));
        let e = progress.after(late(), Duration::from_secs(7));
        assert!(e.causes()[0].contains("the script of `glibc-locales` (post) had run for 0 s"), "{e:?}");
        assert_eq!(progress.line(), "configure: 3 glibc-locales (post), 0 s");
        let odd = Progress::default().after(Error::new(Code::BadInput, "what is that"), Duration::from_secs(7));
        assert_eq!((odd.code(), odd.message()), (Code::BadInput, "what is that"));
    }

    #[test]
    fn only_a_file_of_ours_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("root"), dir.path().join("link"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        check_root(&file).unwrap();
        assert_eq!(check_root(&link).unwrap_err().code(), Code::BadInput);
        assert_eq!(check_root(dir.path()).unwrap_err().code(), Code::BadInput);
        assert_eq!(check_root(&dir.path().join("none")).unwrap_err().code(), Code::MissingFile);
    }
}
