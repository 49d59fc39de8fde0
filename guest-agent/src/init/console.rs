//! What `/init` has to say, on the console.

use nix::sys::termios::tcdrain;
use std::io::Write;

const CONSOLE: &str = "/dev/console";

/// Prints a line on the console, or on stderr while there is no `/dev` yet.
pub fn say(line: &str) {
    let text = format!("{line}\n");
    let console = fs_err::OpenOptions::new().write(true).open(CONSOLE);
    if !console.is_ok_and(|mut c| c.write_all(text.as_bytes()).is_ok()) {
        eprint!("{text}");
    }
}

/// Waits until the console has sent what was printed: a power-off does not.
pub fn flush() {
    if let Ok(console) = fs_err::OpenOptions::new().write(true).open(CONSOLE) {
        // A console that cannot be drained is no reason to stay on.
        let _ = tcdrain(console);
    }
}
