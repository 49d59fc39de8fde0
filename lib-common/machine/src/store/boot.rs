//! The stages of the boot that a running VM is in, from its guest's first instruction to the first login: small files
//! beside its sockets, gone with them, and new at each reboot of the guest.
//!
//! Until the guest is up `bg-shim` knows them. What comes then only shows to whoever connects, so it is noted by the tools
//! that do, and only by one that was there in time: a stage that nobody saw is not there.

use lib_common::doc::{Boot, Moment, Timing, to_json};
use lib_common::error::Result;
use lib_common::sys::fs::{remove_file, replace};
use lib_common::sys::owned;
use lib_common::timing::{monotonic_ms, rounded};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// What [`Timing::tool`] says of them.
pub const GUEST: &str = "guest";

const BOOT: &str = "boot.json";
const BANNER: &str = "ssh-banner.json";
const LOGIN: &str = "ssh-login.json";
const COMMAND: &str = "ssh-command.json";

/// None of the files is longer, in bytes.
const MAX_BYTES: u64 = 4096;

/// A guest that is up, in the boot that it is in.
#[derive(Debug)]
pub struct Booted {
    dir: PathBuf,
    boot: Boot,
}

/// Before a boot: what is known of another one is void.
pub fn forget(runtime_dir: &Path) -> Result<()> {
    [BOOT, BANNER, LOGIN, COMMAND].into_iter().try_for_each(|name| remove_file(&runtime_dir.join(name)))
}

/// The guest of this boot is up.
pub fn note_up(runtime_dir: &Path, boot: &Boot) -> Result<()> {
    write(&runtime_dir.join(BOOT), &to_json(boot))
}

/// Whether nobody has logged in to the guest since it booted, as far as is known. It need not be up yet.
pub fn lacks_login(runtime_dir: &Path) -> bool {
    Booted::at(runtime_dir).is_none_or(|booted| booted.moment(LOGIN).is_none())
}

/// The stages so far, in their order; none before the guest is up.
pub fn timings(runtime_dir: &Path) -> Vec<Timing> {
    Booted::at(runtime_dir).map(|booted| booted.timings()).unwrap_or_default()
}

impl Booted {
    /// Of the VM whose sockets are there; `None` before its guest is up.
    pub fn at(runtime_dir: &Path) -> Option<Self> {
        let boot = read(&runtime_dir.join(BOOT))?;
        Some(Booted { dir: runtime_dir.to_owned(), boot })
    }

    /// Whether a tool that waits since then (CLOCK_MONOTONIC, ms) has seen all that came after the guest was up.
    pub fn was_watched_since(&self, since_ms: f64) -> bool {
        since_ms <= self.boot.up_at_ms
    }

    /// The guest's sshd speaks, by a tool that waits since then: it counts where that one has seen it begin to.
    pub fn note_banner(&self, since_ms: f64) -> Result<()> {
        if self.was_watched_since(since_ms) { self.note(BANNER, since_ms) } else { Ok(()) }
    }

    /// A login works that was begun then.
    pub fn note_login(&self, since_ms: f64) -> Result<()> {
        self.note(LOGIN, since_ms)
    }

    /// The command that was run with this login, by the same time, has ended.
    pub fn note_command(&self, since_ms: f64) -> Result<()> {
        match self.moment(LOGIN) {
            Some(login) if login.since_ms == since_ms => self.note(COMMAND, since_ms),
            _ => Ok(()),
        }
    }

    /// The first one counts.
    fn note(&self, name: &str, since_ms: f64) -> Result<()> {
        if self.moment(name).is_some() {
            return Ok(());
        }
        let moment = Moment { reboots: self.boot.reboots, since_ms, at_ms: monotonic_ms() };
        write(&self.dir.join(name), &to_json(&moment))
    }

    /// One that was noted too late is of the boot before.
    fn moment(&self, name: &str) -> Option<Moment> {
        read(&self.dir.join(name)).filter(|moment: &Moment| moment.reboots == self.boot.reboots)
    }

    /// In their order. A login's stage begins where the one before ends, or with the tool that logged in, if that came later.
    pub fn timings(&self) -> Vec<Timing> {
        let mut all = self.boot.timings.clone();
        let stage = |stage: &str, ms: f64| Timing { tool: GUEST.into(), stage: stage.into(), ms: rounded(ms.max(0.0)) };
        let (up, banner) = (self.boot.up_at_ms, self.moment(BANNER));
        all.extend(banner.map(|banner| stage("ssh_banner", banner.at_ms - up)));
        if let Some(login) = self.moment(LOGIN) {
            let before = banner.map_or(up, |banner| banner.at_ms);
            all.push(stage("ssh_login", login.at_ms - before.max(login.since_ms)));
            all.extend(self.moment(COMMAND).map(|command| stage("ssh_command", command.at_ms - login.at_ms)));
        }
        all
    }
}

fn write(path: &Path, json: &str) -> Result<()> {
    replace(path, format!("{json}\n").as_bytes(), 0o600)
}

/// What is not as it should be tells nothing: a VM is of full use without it.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    lib_common::doc::strict(&owned::read_text(path, MAX_BYTES).ok()??).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(dir: &Path, reboots: u32, up_at_ms: f64) -> Booted {
        let timings = vec![Timing { tool: GUEST.into(), stage: "agent".into(), ms: 7.0 }];
        note_up(dir, &Boot { reboots, up_at_ms, timings }).unwrap();
        Booted::at(dir).unwrap()
    }

    fn put(dir: &Path, name: &str, reboots: u32, since_ms: f64, at_ms: f64) {
        write(&dir.join(name), &to_json(&Moment { reboots, since_ms, at_ms })).unwrap();
    }

    fn stages(dir: &Path) -> Vec<(String, f64)> {
        timings(dir).into_iter().map(|t| (t.stage, t.ms)).collect()
    }

    #[test]
    fn a_login_follows_what_was_waited_for_and_lasts_no_longer_than_it() {
        for (banner, login, expected) in [
            (None, None, &[("agent", 7.0)][..]),
            (Some((90.0, 130.0)), None, &[("agent", 7.0), ("ssh_banner", 30.0)]),
            // Waited for from the first: no gap.
            (Some((90.0, 130.0)), Some((90.0, 150.5)), &[("agent", 7.0), ("ssh_banner", 30.0), ("ssh_login", 20.5)]),
            // Somebody comes an hour later.
            (
                Some((90.0, 130.0)),
                Some((3.6e6, 3.6e6 + 9.0)),
                &[("agent", 7.0), ("ssh_banner", 30.0), ("ssh_login", 9.0)],
            ),
            (None, Some((110.0, 150.0)), &[("agent", 7.0), ("ssh_login", 40.0)]),
            (None, Some((90.0, 150.0)), &[("agent", 7.0), ("ssh_login", 50.0)]),
        ] {
            let dir = tempfile::tempdir().unwrap();
            up(dir.path(), 0, 100.0);
            for (name, moment) in [(BANNER, banner), (LOGIN, login)] {
                moment.into_iter().for_each(|(since, at)| put(dir.path(), name, 0, since, at));
            }
            let expected: Vec<_> = expected.iter().map(|(stage, ms)| ((*stage).to_owned(), *ms)).collect();
            assert_eq!(stages(dir.path()), expected);
        }
    }

    #[test]
    fn the_first_of_this_boot_counts_and_a_reboot_voids_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert!(lacks_login(dir) && timings(dir).is_empty());
        let booted = up(dir, 0, monotonic_ms() - 10.0);
        // Came when the guest was up: who knows since when its sshd speaks.
        booted.note_banner(monotonic_ms()).unwrap();
        assert_eq!(stages(dir).len(), 1);
        booted.note_banner(0.0).unwrap();
        booted.note_login(0.0).unwrap();
        let first = stages(dir);
        assert_eq!(
            first.iter().map(|(stage, _)| stage.as_str()).collect::<Vec<_>>(),
            ["agent", "ssh_banner", "ssh_login"]
        );
        assert!(!lacks_login(dir) && first[1].1 >= 10.0);
        std::thread::sleep(std::time::Duration::from_millis(2));
        booted.note_banner(0.0).unwrap();
        booted.note_login(0.0).unwrap();
        assert_eq!(stages(dir), first);
        // What a tool of the boot before notes too late does not count, and does not stand in the way.
        let second = up(dir, 1, monotonic_ms());
        assert!(lacks_login(dir) && stages(dir).len() == 1);
        second.note_command(5.0).unwrap();
        second.note_login(5.0).unwrap();
        second.note_command(6.0).unwrap();
        assert_eq!(stages(dir).len(), 2, "a command of a login that is not the first");
        second.note_command(5.0).unwrap();
        assert_eq!(stages(dir)[2].0, "ssh_command");
        forget(dir).unwrap();
        assert!(timings(dir).is_empty() && std::fs::read_dir(dir).unwrap().count() == 0);
    }

    #[test]
    fn what_is_not_as_it_should_be_tells_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let boot = dir.path().join(BOOT);
        for text in ["", "{}", "null", r#"{"reboots":-1,"up_at_ms":1,"timings":[]}"#, &"[".repeat(1 << 20)] {
            std::fs::write(&boot, text).unwrap();
            assert!(Booted::at(dir.path()).is_none());
        }
        up(dir.path(), 0, 1.0);
        std::fs::write(dir.path().join(LOGIN), "x").unwrap();
        assert_eq!(stages(dir.path()).len(), 1);
    }
}
