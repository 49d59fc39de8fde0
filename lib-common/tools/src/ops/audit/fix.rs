//! The commands of findings. Each can be pasted into a shell as it is: it mends the thing, or shows it where what is to be done
//! is not ours to say. What is said beside it stands behind a `#`.

use super::YOUNG;
use lib_common::doc::{Finding, Name};
use lib_common::sys::cmd::quote;
use std::path::Path;

/// What removes a leak.
pub const COLLECT: &str = "bg-verify | bg-gc";

/// The same for what is young: else it is spared.
const COLLECT_NOW: &str = "bg-verify --now | bg-gc --now";

/// Gives a young leak the command that removes young ones.
pub fn for_its_age(f: &mut Finding) {
    if f.is_leak && u128::from(f.age_ms) < YOUNG.as_millis() && f.fix == COLLECT {
        f.fix = COLLECT_NOW.into();
    }
}

/// A path as a shell reads it.
pub fn word(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

/// Shows a thing; in words, what is to be done then.
pub fn look_at(path: &Path, then: &str) -> String {
    format!("ls -ld {}  # {then}", word(path))
}

/// Shows what a directory has; in words, what is to be done then.
pub fn look_into(dir: &Path, then: &str) -> String {
    format!("ls -lA {}  # {then}", word(dir))
}

/// A thing that is not a plain one of the caller's.
pub fn refused(path: &Path) -> String {
    look_at(path, "see who put it there, and move it away")
}

/// What no record names.
pub fn nobodys(path: &Path) -> String {
    look_at(path, "see what it is, and move it away")
}

/// How a VM or image is removed, in words, since nothing brings it back: `removal` is the command without the name, which is
/// that of its directory.
pub fn or_remove(mended: &str, removal: &str, name: &str) -> String {
    match Name::parse(name) {
        Ok(name) => format!("{mended}; what removes it with all that it has: {removal} {name}"),
        Err(_) => "banger gives nothing such a name: see what it is, and move it away".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::audit::finding;

    #[test]
    fn a_path_is_one_word_and_what_is_young_is_removed_at_once() {
        let path = Path::new("/o'brien's (old)/a b");
        assert_eq!(nobodys(path), r"ls -ld '/o'\''brien'\''s (old)/a b'  # see what it is, and move it away");
        let said = or_remove("mend it", "bg-vm rm", "a;b");
        assert!(!said.contains("a;b") && or_remove("mend it", "bg-vm rm", "dev").ends_with("bg-vm rm dev"), "{said}");
        let with_age = |age_ms, is_leak| {
            let mut f = Finding { age_ms, is_leak, ..finding("file", "/x".into(), "x") };
            for_its_age(&mut f);
            f.fix
        };
        let fixes = [with_age(0, true), with_age(0, false), with_age(300_000, true)];
        assert_eq!(fixes, [COLLECT_NOW, COLLECT, COLLECT]);
    }
}
