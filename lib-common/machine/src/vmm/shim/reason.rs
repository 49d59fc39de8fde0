//! Which of a VMM's last lines says why it ended. Pure.
//!
//! Source: Firecracker's src/firecracker/src/main.rs, which logs the error, prints it to stderr once more, and logs its exit status
//! last; a panic is logged as `Firecracker panicked at FILE:LINE:COLUMN:`, and its message is the next line.

/// Lines that say that Firecracker ends, and not why.
const SAYS_NOTHING: [&str; 3] = ["Firecracker exiting with error", "Firecracker panicked at ", "VMM disconnected: "];

/// The last line that says why; without one, the last line.
pub(super) fn reason(said: &str) -> Option<String> {
    let lines = || said.lines().rev().map(|line| message(line.trim())).filter(|line| !line.is_empty());
    let says_why = |line: &&str| !SAYS_NOTHING.iter().any(|nothing| line.contains(nothing));
    lines().find(says_why).or_else(|| lines().next()).map(str::to_owned)
}

/// A line without what stands before it in Firecracker's log: `2026-01-01T00:00:00.000000000 [ID:THREAD:LEVEL] `.
fn message(line: &str) -> &str {
    let is_time = |word: &str| word.len() > 19 && word.as_bytes()[10] == b'T' && word.as_bytes()[0].is_ascii_digit();
    let after_time = line.split_once(' ').filter(|(time, _)| is_time(time)).map(|(_, rest)| rest);
    after_time.and_then(|rest| rest.strip_prefix('[')?.split_once("] ")).map_or(line, |(_, message)| message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "2026-01-01T00:00:00.000000000 [0123456789abcdef0123456789abcdef:main:ERROR]";

    #[test]
    fn the_line_that_says_why_is_found() {
        let why = "RunWithApiError error: Failed to build MicroVM from Json: no memory";
        let failed =
            format!("Error: RunWithApi(Build)\n{ID} {why}\n{ID} Firecracker exiting with error. exit_code=1\n");
        let panicked = format!("{ID} Firecracker panicked at src/main.rs:9:9:\nInvalid instance ID\n\n");
        let asked = format!("{ID} {why}\n{ID} Firecracker panicked at a.rs:1:1:\nVMM disconnected: RecvError\n");
        for (said, expected) in [
            (failed.as_str(), Some(why)),
            (&panicked, Some("Invalid instance ID")),
            (&asked, Some(why)),
            ("VMM disconnected: RecvError\n", Some("VMM disconnected: RecvError")),
            ("qemu: a warning\ncould not load kernel\n\n", Some("could not load kernel")),
            ("a [b] c\n", Some("a [b] c")),
            ("", None),
            ("\n \n", None),
        ] {
            assert_eq!(reason(said).as_deref(), expected, "{said:?}");
        }
    }
}
