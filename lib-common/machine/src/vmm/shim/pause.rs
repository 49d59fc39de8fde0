//! A guest that stands still because the host could not write to one of its disks. QEMU keeps the write and does it again
//! when the guest goes on, so nothing is lost. For want of room the shim lets the guest go on by itself, at first a second
//! later, then less and less often; any other failure waits for the user.

use super::Shim;
use super::process::Monitor;
use crate::vmm::qemu_qmp::{DiskFailure, UsedUp};
use lib_common::doc::{AbsPath, Paused};
use lib_common::sys::fs::usable_bytes;
use lib_common::timing::now;
use std::time::{Duration, Instant};

/// The time between two looks for room, at first and at most.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A guest that pauses again so soon after it went on waits twice as long as before.
const SOON: Duration = Duration::from_secs(10);

/// A paused guest with room on the host's disk has gone on after so long.
pub const GOES_ON_WITHIN: Duration = Duration::from_secs(35);

/// The disk has room again when so many bytes are free: with a few blocks the guest would only stop again.
const ROOM: u64 = 16 << 20;

/// While nothing is to be looked for.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// When a paused guest is let go on.
pub(super) struct Pause {
    wait: Duration,
    look_at: Instant,
    resumed_at: Option<Instant>,
    /// True if `shim.json` does not say yet what is so.
    unsaved: bool,
}

impl Default for Pause {
    fn default() -> Self {
        Pause { wait: FIRST_WAIT, look_at: Instant::now(), resumed_at: None, unsaved: false }
    }
}

impl Pause {
    /// Begins a pause; the wait grows with those that come one soon after the other.
    fn begin(&mut self, at: Instant) {
        let soon = self.resumed_at.is_some_and(|resumed| at.saturating_duration_since(resumed) < SOON);
        self.wait = if soon { (self.wait * 2).min(LONGEST_WAIT) } else { FIRST_WAIT };
        self.look_at = at + self.wait;
    }
}

impl Shim {
    /// Until when the shim may wait for events alone.
    pub(super) fn looks_again_at(&self) -> Instant {
        let looks = self.pause.unsaved || self.state.paused.as_ref().is_some_and(|paused| paused.resumes);
        if looks { self.pause.look_at } else { Instant::now() + FAR }
    }

    /// Notes that QEMU has stopped the guest. Of several failures the one that the guest cannot go on from counts.
    pub(super) fn note_pause(&mut self, failure: &DiskFailure) {
        let resumes = failure.used_up.is_some();
        if self.state.paused.as_ref().is_some_and(|paused| resumes || !paused.resumes) {
            return;
        }
        let reason = match failure.used_up {
            Some(UsedUp::Disk) => "the host's disk is full".to_owned(),
            Some(UsedUp::Quota) => "the disk quota on the host is used up".to_owned(),
            None => failure.what.clone(),
        };
        let paused = Paused { reason, path: self.file_of(&failure.device), since: now(), resumes };
        self.say(&format!("paused: {paused}"));
        self.state.paused = Some(paused);
        self.pause.begin(Instant::now());
        self.save_pause();
    }

    /// Lets a paused guest go on where the host has room again.
    pub(super) fn resume_where_room(&mut self) {
        if Instant::now() < self.pause.look_at {
            return;
        }
        self.pause.look_at = Instant::now() + self.pause.wait;
        if self.pause.unsaved {
            self.save_pause();
        }
        let Some(paused) = self.state.paused.as_ref().filter(|paused| paused.resumes) else { return };
        if !can_go_on(paused) {
            return;
        }
        self.state.paused = None;
        self.pause.resumed_at = Some(Instant::now());
        self.save_pause();
        self.say("the guest goes on");
        if let Some(Monitor::Qemu { qmp, .. }) = self.vmm.as_mut().map(|vmm| &mut vmm.monitor)
            && let Err(e) = qmp.execute("cont")
        {
            self.say(&e.with_causes());
        }
    }

    /// The runtime directory may be on the disk that is full: then it is tried again.
    fn save_pause(&mut self) {
        let saved = self.save_state();
        self.pause.unsaved = saved.is_err();
        if let Err(e) = saved {
            self.say(&e.with_causes());
        }
    }

    /// The file of the disk with QEMU's id `diskN`.
    fn file_of(&self, device: &str) -> AbsPath {
        let index = device.strip_prefix("disk").and_then(|n| n.parse::<usize>().ok());
        let disk = index.and_then(|i| self.launch.disks.get(i)).or(self.launch.disks.first());
        disk.map_or_else(|| self.launch.console.clone(), |disk| disk.path.clone())
    }
}

/// True if the shim will let that guest go on: the file system of its disk has room. How much a quota leaves is not known, so
/// a guest that has too little pauses again.
pub fn can_go_on(paused: &Paused) -> bool {
    paused.resumes && !usable_bytes(&paused.path).is_ok_and(|free| free < ROOM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_pauses_again_and_again_is_tried_less_and_less_often() {
        let mut pause = Pause::default();
        let mut at = Instant::now();
        let mut waits = vec![];
        for _ in 0..7 {
            pause.begin(at);
            waits.push(pause.wait.as_secs());
            at = pause.look_at;
            pause.resumed_at = Some(at);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        pause.begin(at + SOON);
        assert_eq!(pause.wait, FIRST_WAIT, "it ran well meanwhile");
    }
}
