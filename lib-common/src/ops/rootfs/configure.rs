//! The configure boot from the host's side: a root file system is booted once, in a temporary VM without a card and without
//! another disk, and its guest runs the scripts that its packages have brought (`doc::configure`). None of them ever runs on
//! the host.

mod heard;

use crate::cli::Context;
use crate::disk::ext4;
use crate::doc::{
    AbsPath, CONFIGURE_PORT, ConfigureDone, ConfigureLine, Configured, Document, Kernel, Kind, LaunchDisk, Name,
    SecondDisk,
};
use crate::error::{Code, Error, Result};
use crate::guest::vsock::{listen_at, served_at};
use crate::ops::machine::{Claimed, identity, link_kernel};
use crate::ops::temporary::{self, Temporary};
use crate::store::random_id;
use heard::Heard;
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
    let mut scripts: Vec<Configured> = vec![];
    let mut heard = Heard::new(&listener, vm.live());
    loop {
        let line = heard.next(deadline).map_err(|e| after(&scripts, e, timeout))?;
        match line {
            Some(ConfigureLine::Script(script)) => {
                cx.stages.note(&format!("configure: {} {}", scripts.len() + 1, script.package));
                if !script.is_success() {
                    return Err(failed(&script));
                }
                scripts.push(script);
            }
            Some(ConfigureLine::Done(ConfigureDone { done: true })) => break,
            Some(ConfigureLine::Done(_)) | None => return Err(vm.with_console(ended_early(&scripts))),
        }
    }
    cx.stages.begin("shutdown");
    vm.wait_power_off()?;
    vm.ended().remove()?;
    cx.stages.begin("check");
    ext4::ensure_clean(root)?;
    Ok(scripts)
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
    let Configured { package, version, ended, output, .. } = script;
    let error = Error::new(Code::CommandFailed, format!("the package `{package}` cannot be configured ({ended})"));
    let last = output.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned());
    let error = last.into_iter().fold(error, Error::also);
    error
        .detail("package", package.as_str())
        .detail("version", version.as_str())
        .detail("status", ended.as_str())
        .detail("output", output.as_str())
}

fn ended_early(scripts: &[Configured]) -> Error {
    let how_far = format!("the guest ended before its packages were configured, {} of them were", scripts.len());
    Error::new(Code::NotRunning, how_far)
}

/// The error of a guest that says nothing more, or what it should not.
fn after(scripts: &[Configured], e: Error, timeout: Duration) -> Error {
    let error = match e.code() {
        Code::TimedOut => {
            let message = format!("the packages were not configured within {} s", timeout.as_secs());
            Error::new(Code::TimedOut, message).hint("--timeout gives it more time")
        }
        _ => e,
    };
    match scripts.last() {
        Some(Configured { package, .. }) => error.also(format!("the last one that was is `{package}`")),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(package: &str, status: i32, output: &str) -> Configured {
        Configured {
            package: package.into(),
            version: "1.0_1".into(),
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
        assert!(e.message().contains("`bash`") && e.message().contains("exit 3"), "{e}");
        let details: Vec<(&str, &str)> = e.details().iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let expected =
            [("package", "bash"), ("version", "1.0_1"), ("status", "exit 3"), ("output", "one\nthe last\n\n")];
        assert_eq!(details, expected);
        assert_eq!(failed(&script("bash", 1, "")).causes(), &[] as &[String]);
    }

    #[test]
    fn what_was_configured_last_is_said() {
        let late = Error::new(Code::TimedOut, "it is late");
        let e = after(&[script("a", 0, ""), script("b", 0, "")], late, Duration::from_secs(7));
        assert!(e.message().contains("7 s") && e.causes()[0].contains("`b`") && e.get_hint().is_some(), "{e:?}");
        let odd = after(&[], Error::new(Code::BadInput, "what is that"), Duration::from_secs(7));
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
