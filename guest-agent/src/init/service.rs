//! Leaves the agent behind: its binary, and a service of the guest's init that keeps it running.
//!
//! Everything lies in `/run`, so any base root works unchanged and the agent's version is always the host's; only
//! runit needs one symbolic link on the root disk, which dangles harmlessly when the disk is used elsewhere.

use super::{AGENT_DIR, NEW_ROOT, mounts, trim};
use lib_common::error::{Code, Context, Error, Result};
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// No ordering and no dependency: it starts with the first jobs, before the journal and long before sshd. `IgnoreOnIsolate`
/// and no conflict with shutdown.target: it answers until systemd's last SIGTERM to all processes. Its stderr goes to
/// the kernel's log, because the journal would add an ordering after journald.
const SYSTEMD_UNIT: &str = "\
[Unit]
Description=banger guest agent
DefaultDependencies=no
IgnoreOnIsolate=yes
StartLimitIntervalSec=0

[Service]
ExecStart=/run/banger/guest-agent serve
Restart=always
RestartSec=200ms
OOMScoreAdjust=-900
StandardInput=null
StandardOutput=null
StandardError=file:/dev/kmsg
";

/// What writes to the root disk of a guest that is being built and would stay in its image: a random seed, and the journal,
/// which so stays in memory. Units of systemd, masked for this boot alone, which is quicker than to stop them and to remove
/// what they left.
const NOT_IN_A_BUILD: [&str; 2] = ["systemd-random-seed.service", "systemd-journal-flush.service"];

/// Void's runit saves a random seed when the guest shuts down, after all that a build can remove. In a build this is in memory.
const SEED_PROGRAM: &str = "usr/bin/seedrng";
const SEED_DIR: &str = "var/lib/seedrng";

/// What process 1 will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Init {
    Systemd,
    Runit,
}

/// runsv starts it again a second after it ends. The score must be set before exec: the agent has no business with it.
const RUNIT_RUN: &str = "\
#!/bin/sh
echo -900 > /proc/self/oom_score_adj
exec /run/banger/guest-agent serve 2> /dev/kmsg
";

/// Copies this binary to the guest's `/run/banger` and installs its service. `in_a_build`: the guest is to be an image.
pub fn install(in_a_build: bool) -> Result<()> {
    let root = Path::new(NEW_ROOT);
    let agent = format!("{AGENT_DIR}/guest-agent");
    fs_err::create_dir_all(AGENT_DIR)
        .and_then(|()| fs_err::copy("/proc/self/exe", &agent))
        .and_then(|_| fs_err::set_permissions(&agent, Permissions::from_mode(0o755)))
        .context("cannot copy the agent")?;
    let init = Init::of(root)?;
    init.install(root).context("cannot install the agent's service")?;
    match init {
        Init::Systemd if in_a_build => mask(root),
        Init::Runit if in_a_build && root.join(SEED_PROGRAM).exists() => {
            mounts::in_memory(&format!("{NEW_ROOT}/{SEED_DIR}"))
        }
        Init::Systemd | Init::Runit => Ok(()),
    }
}

impl Init {
    fn of(root: &Path) -> Result<Self> {
        // Debian's runit-helper leaves an /etc/runit under systemd too, so systemd is looked for first.
        if ["usr/lib/systemd/systemd", "lib/systemd/systemd"].iter().any(|path| root.join(path).exists()) {
            Ok(Init::Systemd)
        } else if root.join("etc/runit").exists() {
            Ok(Init::Runit)
        } else {
            Err(Error::new(Code::BadInput, "the root disk has neither systemd nor runit"))
        }
    }

    fn install(self, root: &Path) -> Result<()> {
        match self {
            Init::Systemd => install_systemd(root),
            Init::Runit => install_runit(root),
        }
    }
}

fn mask(root: &Path) -> Result<()> {
    let units = root.join("run/systemd/system");
    fs_err::create_dir_all(&units)?;
    NOT_IN_A_BUILD.iter().try_for_each(|unit| link("/dev/null", &units.join(unit)))
}

fn install_systemd(root: &Path) -> Result<()> {
    let units = root.join("run/systemd/system");
    trim::own_unit(&units, "banger-agent.service", SYSTEMD_UNIT, "sysinit.target")?;
    let command_line = fs_err::read_to_string("/proc/cmdline").context("cannot read the command line")?;
    trim::shorten(root, &command_line)
}

fn install_runit(root: &Path) -> Result<()> {
    let service = root.join("run/banger/sv/banger-agent");
    fs_err::create_dir_all(&service)?;
    let run = service.join("run");
    fs_err::write(&run, RUNIT_RUN)?;
    fs_err::set_permissions(&run, Permissions::from_mode(0o755))?;
    let enabled = root.join("etc/runit/runsvdir/default");
    fs_err::create_dir_all(&enabled)?;
    link("/run/banger/sv/banger-agent", &enabled.join("banger-agent"))
}

/// A symbolic link, where nothing of that name is yet.
pub(super) fn link(target: &str, at: &Path) -> Result<()> {
    if at.symlink_metadata().is_ok() {
        return Ok(());
    }
    symlink(target, at).map_err(|e| Error::io("link", at, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root_with(file: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(root.path().join(file)).unwrap();
        root
    }

    #[test]
    fn systemd_gets_a_unit_in_run_even_beside_runits_directory() {
        let root = root_with("usr/lib/systemd/systemd");
        fs_err::create_dir_all(root.path().join("etc/runit/runsvdir/default")).unwrap();
        assert_eq!(Init::of(root.path()).unwrap(), Init::Systemd);
        Init::Systemd.install(root.path()).unwrap();
        Init::Systemd.install(root.path()).unwrap();
        let wanted = root.path().join("run/systemd/system/sysinit.target.wants/banger-agent.service");
        assert!(fs_err::read_to_string(wanted).unwrap().contains("Restart=always"));
        assert_eq!(fs_err::read_dir(root.path().join("etc/runit/runsvdir/default")).unwrap().count(), 0);
    }

    #[test]
    fn what_would_stay_in_an_image_is_masked() {
        let root = root_with("usr/lib/systemd/systemd");
        mask(root.path()).unwrap();
        let seed = root.path().join("run/systemd/system/systemd-random-seed.service");
        assert_eq!(fs_err::read_link(seed).unwrap(), Path::new("/dev/null"));
    }

    #[test]
    fn runit_gets_a_service_directory_and_a_link_to_it() {
        let root = root_with("etc/runit");
        Init::of(root.path()).unwrap().install(root.path()).unwrap();
        let run = root.path().join("run/banger/sv/banger-agent/run");
        assert_eq!(run.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        let link = fs_err::read_link(root.path().join("etc/runit/runsvdir/default/banger-agent")).unwrap();
        assert_eq!(link, Path::new("/run/banger/sv/banger-agent"));
        // By this directory the guest is asked to shut down in systemd's way.
        assert!(!root.path().join("run/systemd").exists());
    }

    #[test]
    fn a_root_without_a_known_init_is_refused() {
        Init::of(root_with("etc").path()).unwrap_err();
    }
}
