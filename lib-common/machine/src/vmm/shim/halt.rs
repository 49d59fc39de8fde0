//! Whether the guest's kernel has halted, by its last words on the console. For Firecracker on x86_64: there a guest has no
//! way to switch its machine off, so its kernel halts the processors, and the VMM stays for ever.
//!
//! Source: the kernel's kernel/reboot.c, whose messages have the highest level, so that `quiet` does not keep them back. Who
//! can write to the console can end the VM by these words; that is the guest's root, who could anyway.

use std::time::{Duration, Instant};

/// The last words of a kernel that does not start again.
const LAST_WORDS: [&[u8]; 3] =
    [b"reboot: Power down", b"reboot: System halted", b"reboot: Power off not available: System halted instead"];

/// They are the last if for so long nothing follows. A processor is halted some microseconds after the line was written.
const SILENCE: Duration = Duration::from_millis(500);

/// So much of a line's end is kept, in bytes.
const LONGEST: usize = 256;

/// Reads along on the console.
#[derive(Debug, Default)]
pub(super) struct Halt {
    line: Vec<u8>,
    /// When the last words came, if they are the last so far.
    said: Option<Instant>,
}

impl Halt {
    /// What the guest printed.
    pub(super) fn read(&mut self, bytes: &[u8], now: Instant) {
        for byte in bytes {
            match byte {
                b'\n' => {
                    if is_last(self.line.trim_ascii()) {
                        self.said = Some(now);
                    }
                    self.line.clear();
                }
                _ => {
                    if !byte.is_ascii_whitespace() {
                        self.said = None;
                    }
                    if self.line.len() == LONGEST {
                        self.line.remove(0);
                    }
                    self.line.push(*byte);
                }
            }
        }
    }

    /// When the guest will be known to have halted, unless it prints something before.
    pub(super) fn at(&self) -> Option<Instant> {
        self.said.map(|said| said + SILENCE)
    }

    /// Whether it is known by now; said once.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.at().is_some_and(|at| now >= at) && self.said.take().is_some()
    }

    /// Whether the kernel has said its last words, and nothing since.
    pub(super) fn has_said(&self) -> bool {
        self.said.is_some()
    }
}

/// What stands before is the kernel's time stamp or a prompt that was waiting there.
fn is_last(line: &[u8]) -> bool {
    let fits = |words: &&[u8]| line.strip_suffix(*words).is_some_and(|before| before.last().is_none_or(|b| *b == b' '));
    LAST_WORDS.iter().any(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halted(printed: &str) -> bool {
        let mut halt = Halt::default();
        // However it comes.
        for chunk in printed.as_bytes().chunks(3) {
            halt.read(chunk, Instant::now());
        }
        halt.has_said()
    }

    #[test]
    fn only_the_kernels_last_words_are_a_halt() {
        for (printed, expected) in [
            ("reboot: Power down\r\n", true),
            ("[   12.345678] reboot: Power down\r\n", true),
            ("x\r\ndev login: [   12.345678] reboot: System halted\r\n", true),
            ("[  1.0] reboot: Power off not available: System halted instead\r\n\r\n", true),
            ("[   12.345678] reboot: Restarting system\r\n", false),
            ("[   12.345678] reboot: Power down", false),
            ("[   12.345678] reboot: Power down\r\nwelcome\r\n", false),
            ("[   12.345678] reboot: Power down\r\n#", false),
            ("kexec_reboot: Power down\r\n", false),
            ("reboot: Power down now\r\n", false),
            ("", false),
        ] {
            assert_eq!(halted(printed), expected, "{printed:?}");
        }
        assert!(halted(&format!("{} reboot: Power down\n", "x".repeat(1000))));
    }

    #[test]
    fn silence_has_to_follow() {
        let (mut halt, now) = (Halt::default(), Instant::now());
        assert_eq!(halt.at(), None);
        halt.read(b"reboot: Power down\n", now);
        assert_eq!(halt.at(), Some(now + SILENCE));
        assert!(!halt.take(now) && halt.take(now + SILENCE) && !halt.take(now + SILENCE));
        halt.read(b"reboot: Power down\n", now);
        halt.read(b"no", now + SILENCE / 2);
        assert_eq!(halt.at(), None);
    }
}
