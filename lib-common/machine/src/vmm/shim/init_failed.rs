//! Whether the guest's `/init` gave up, by its last words on the console: it powers the machine off then, which looks like a shutdown.
//!
//! The words are those of guest-agent's `init::main`. They count only before the guest is up; what a guest prints is not trusted.

/// How the line of an `/init` that gives up begins and ends.
const BEGINS: &[u8] = b"banger-init: ";
const ENDS: &[u8] = b"; the machine is ended";

/// No more of a line is kept, in bytes.
const LONGEST: usize = 1024;

/// Reads along on the console.
#[derive(Debug, Default)]
pub(super) struct InitFailed {
    line: Vec<u8>,
    why: Option<String>,
}

impl InitFailed {
    /// Reads what the guest printed.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => {
                    self.why = why(self.line.trim_ascii()).or(self.why.take());
                    self.line.clear();
                }
                _ if self.line.len() < LONGEST => self.line.push(*byte),
                _ => {}
            }
        }
    }

    /// Why `/init` gave up, if it did.
    pub(super) fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }
}

/// What stands before is the kernel's or a prompt.
fn why(line: &[u8]) -> Option<String> {
    let at = line.windows(BEGINS.len()).position(|window| window == BEGINS)?;
    let why = line[at + BEGINS.len()..].strip_suffix(ENDS)?;
    Some(String::from_utf8_lossy(why).replace(char::is_control, "\u{fffd}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_words_of_an_init_are_a_failure() {
        for (printed, expected) in [
            (
                "banger-init: cannot mount the root disk: no; the machine is ended\r\n",
                Some("cannot mount the root disk: no"),
            ),
            ("[ 1.0] x\nlate banger-init: a; the machine is ended\n[ 1.1] reboot: Power down\n", Some("a")),
            ("banger-init: e\u{1b}[2J; the machine is ended\n", Some("e\u{fffd}[2J")),
            ("banger-init: the work disk is gone; booting on\n", None),
            ("banger-init: a; the machine is ended", None),
            ("init: a; the machine is ended\n", None),
            ("", None),
        ] {
            let mut failed = InitFailed::default();
            printed.as_bytes().chunks(3).for_each(|chunk| failed.read(chunk));
            assert_eq!(failed.why(), expected, "{printed:?}");
        }
        let mut failed = InitFailed::default();
        (0..100).for_each(|_| failed.read(&[b'x'; 1000]));
        assert!(failed.line.len() <= LONGEST);
    }
}
