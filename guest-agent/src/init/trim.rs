//! The shortest way to sshd for a guest with systemd: what nobody has to wait for comes after it, and what has nothing to do
//! does not run. All of it lies in `/run`, so it is of this boot alone and the image stays as its packages made it.
//! `docs/guest.md` has each change and why.

use super::service::link;
use lib_common::error::Result;
use std::path::Path;

/// Where this boot's own units are.
const UNITS: &str = "run/systemd/system";
/// Where a link to nothing keeps a generator from running.
const GENERATORS: &str = "run/systemd/system-generators";

/// What a login needs is done: files of `/run`, `/tmp` and `/var` and the kernel's settings. The rest of what precedes an
/// ordinary service it need not wait for. Its configuration is read once, not twice: a wrong one fails all the same.
const SSHD: &str = "\
[Unit]
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
After=systemd-tmpfiles-setup.service systemd-sysctl.service

[Service]
ExecStartPre=
";

/// Between sshd and what comes later: see [`crate::login_first`].
const LOGIN_FIRST: &str = "\
[Unit]
Description=banger guest agent, while somebody logs in
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
After=ssh.service

[Service]
Type=oneshot
ExecStart=/run/banger/guest-agent login-first
TimeoutStartSec=10s
StandardInput=null
StandardOutput=null
StandardError=file:/dev/kmsg
";

/// A unit that comes after sshd and the first login, or at once where there is no sshd.
const LATER: &str = "[Unit]\nAfter=banger-login-first.service\n";

/// The units for which [`LATER`] is: sockets queue what comes for them until then. Nothing that sshd comes after, and nothing
/// that local file systems wait for, may be here: systemd breaks a cycle by leaving out a unit of its choice.
const COME_LATER: &[&str] = &[
    "systemd-random-seed.service",
    "systemd-update-utmp.service",
    "systemd-logind.service",
    "dbus.service",
    "modprobe@.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount",
];

/// It does not keep root out, and no session is told that a login would be refused when the guest shuts down.
const NO_WORD_AT_THE_END: &str = "[Unit]\nAfter=banger-login-first.service\n\n[Service]\nExecStop=\n";

/// Tells every login during the boot that none is permitted yet, though root's are.
const BOOT_WORD: &str = "run/tmpfiles.d/systemd-nologin.conf";

/// A run that was missed while the VM was off is made up for when the boot is long over.
const TIMER: &str = "[Timer]\nPersistent=no\nOnBootSec=15min\n";

/// The same, but only where no file system or volume of the guest's own waits for a device.
const DEVICES_COME_LATER: &[&str] = &["systemd-udevd.service", "systemd-udev-trigger.service"];

/// For `systemd-modules-load.service` where no file names a module.
const NO_MODULES: &str = "[Unit]\nConditionKernelCommandLine=modules_load\n";

/// Where modules to load are named.
const MODULE_LISTS: &[&str] =
    &["etc/modules-load.d", "run/modules-load.d", "usr/local/lib/modules-load.d", "usr/lib/modules-load.d"];

/// Runs when all that is to start has started, and then is gone: see [`crate::booted`].
const BOOTED: &str = "\
[Unit]
Description=banger guest agent, after the boot
IgnoreOnIsolate=yes

[Service]
Type=idle
ExecStart=/run/banger/guest-agent booted
StandardInput=null
StandardOutput=null
StandardError=file:/dev/kmsg
";

/// Writes this boot's units below `root`, the guest's root file system with systemd. `command_line` is the kernel's.
pub fn shorten(root: &Path, command_line: &str) -> Result<()> {
    let units = root.join(UNITS);
    drop_in(&units, "ssh.service", SSHD)?;
    COME_LATER.iter().try_for_each(|unit| drop_in(&units, unit, LATER))?;
    drop_in(&units, "systemd-user-sessions.service", NO_WORD_AT_THE_END)?;
    let boot_word = root.join(BOOT_WORD);
    boot_word.parent().map_or(Ok(()), fs_err::create_dir_all)?;
    link("/dev/null", &boot_word)?;
    if ["etc/fstab", "etc/crypttab"].iter().all(|table| is_empty_table(root, table)) {
        DEVICES_COME_LATER.iter().try_for_each(|unit| drop_in(&units, unit, LATER))?;
    }
    if MODULE_LISTS.iter().all(|dir| names_no_module(root, dir)) {
        drop_in(&units, "systemd-modules-load.service", NO_MODULES)?;
    }
    for timer in persistent_timers(root) {
        drop_in(&units, &timer, TIMER)?;
    }
    own_unit(&units, "banger-login-first.service", LOGIN_FIRST, "sysinit.target")?;
    own_unit(&units, "banger-booted.service", BOOTED, "multi-user.target")?;
    mask_generators(root, command_line)
}

/// A unit of ours that a target wants.
pub(super) fn own_unit(units: &Path, name: &str, text: &str, target: &str) -> Result<()> {
    let wants = units.join(format!("{target}.wants"));
    fs_err::create_dir_all(&wants)?;
    fs_err::write(units.join(name), text)?;
    link(&format!("../{name}"), &wants.join(name))
}

fn drop_in(units: &Path, unit: &str, text: &str) -> Result<()> {
    let dir = units.join(format!("{unit}.d"));
    fs_err::create_dir_all(&dir)?;
    Ok(fs_err::write(dir.join("50-banger.conf"), text)?)
}

/// The enabled timers that make up at once for what they missed.
fn persistent_timers(root: &Path) -> Vec<String> {
    let Ok(entries) = fs_err::read_dir(root.join("etc/systemd/system/timers.target.wants")) else { return vec![] };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let persistent = |name: &String| {
        let text = ["etc", "usr/lib", "lib"]
            .iter()
            .find_map(|dir| fs_err::read_to_string(root.join(dir).join("systemd/system").join(name)).ok());
        text.is_some_and(|text| text.lines().any(|line| ["Persistent=true", "Persistent=yes"].contains(&line.trim())))
    };
    names.filter(|name| name.ends_with(".timer")).filter(persistent).collect()
}

/// Keeps those generators of systemd from running that would find nothing to do: each costs a program's start. None is kept
/// back where the command line has something for one.
fn mask_generators(root: &Path, command_line: &str) -> Result<()> {
    let theirs = ["systemd.", "rd.", "resume", "luks", "usrhash", "roothash", "fsck", "mount."];
    if command_line.split_whitespace().any(|word| theirs.iter().any(|start| word.starts_with(start))) {
        return Ok(());
    }
    let dir = root.join(GENERATORS);
    fs_err::create_dir_all(&dir)?;
    for (name, _) in GENERATED.iter().filter(|(_, idle)| idle(root)) {
        link("/dev/null", &dir.join(name))?;
    }
    Ok(())
}

/// Whether a generator has nothing to do in the guest with that root.
type Idle = fn(&Path) -> bool;

/// Debian's generators, and when each has nothing to do.
const GENERATED: &[(&str, Idle)] = &[
    ("systemd-cryptsetup-generator", |root| is_empty_table(root, "etc/crypttab")),
    ("systemd-veritysetup-generator", |root| is_empty_table(root, "etc/veritytab")),
    ("systemd-integritysetup-generator", |root| is_empty_table(root, "etc/integritytab")),
    ("systemd-fstab-generator", |root| is_empty_table(root, "etc/fstab")),
    ("systemd-getty-generator", |root| root.join("etc/systemd/system/serial-getty@ttyS0.service").is_symlink()),
    ("systemd-rc-local-generator", |root| !root.join("etc/rc.local").exists()),
    ("systemd-system-update-generator", |root| {
        !["system-update", "etc/system-update"].iter().any(|path| root.join(path).is_symlink())
    }),
    ("systemd-sysv-generator", every_script_has_a_unit),
    // Only the command line has work for these; the root disk has no partitions.
    ("systemd-debug-generator", |_| true),
    ("systemd-gpt-auto-generator", |_| true),
    ("systemd-hibernate-resume-generator", |_| true),
    ("systemd-run-generator", |_| true),
];

/// Whether every file of the directory has nothing but comments.
fn names_no_module(root: &Path, dir: &str) -> bool {
    let Ok(mut entries) = fs_err::read_dir(root.join(dir)) else { return true };
    entries.all(|entry| {
        let Some(name) = entry.ok().and_then(|e| e.file_name().into_string().ok()) else { return false };
        // Debian's one file links to ../modules, which stays within the root.
        let file = format!("{dir}/{name}");
        is_empty_table(root, if name == "modules.conf" { "etc/modules" } else { &file })
    })
}

/// Whether the table has nothing but comments, or is not there.
fn is_empty_table(root: &Path, path: &str) -> bool {
    let text = fs_err::read_to_string(root.join(path)).unwrap_or_default();
    text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
}

/// Whether no script of `/etc/init.d` is its service's only form.
fn every_script_has_a_unit(root: &Path) -> bool {
    let Ok(mut entries) = fs_err::read_dir(root.join("etc/init.d")) else { return true };
    entries.all(|entry| {
        let Some(name) = entry.ok().and_then(|e| e.file_name().into_string().ok()) else { return false };
        let unit = format!("{}.service", name.trim_end_matches(".sh"));
        let dirs = ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];
        name == "README" || dirs.iter().any(|dir| root.join(dir).join(&unit).symlink_metadata().is_ok())
    })
}

#[cfg(test)]
mod tests;
