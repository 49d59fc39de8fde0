//! The defects of `tests/defects`, which `make test-defects` puts into a copy of this tree one by one: each can still be put
//! there, says what it is, and names tests that exist.

#![allow(clippy::disallowed_types)]

use crate::support::children;
use std::path::Path;
use std::process::Command;

/// So many have to be there.
const LEAST: usize = 25;

#[test]
fn every_defect_can_be_put_in_and_names_its_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let patches = children(&root.join("tests/defects"));
    assert!(patches.len() >= LEAST, "{} defects", patches.len());
    if Command::new("git").arg("--version").output().is_err() {
        crate::support::not_run("every_defect_can_be_put_in_and_names_its_tests", "git is not installed");
        return;
    }
    for patch in patches {
        let text = std::fs::read_to_string(&patch).unwrap();
        let what = patch.display();
        let mut lines = text.lines();
        assert!(lines.next().is_some_and(|line| line.ends_with('.')), "{what} says in a sentence what it is");
        let filters = lines.next().and_then(|line| line.strip_prefix("Test: ")).unwrap_or_else(|| panic!("{what}"));
        for filter in filters.split(' ') {
            let listed = Command::new(std::env::current_exe().unwrap()).args([filter, "--list"]).output().unwrap();
            let listed = String::from_utf8(listed.stdout).unwrap();
            assert!(listed.lines().any(|line| line.ends_with(": test")), "{what}: there is no test `{filter}`");
        }
        // Outside of a repository, as the sources of a release are, it takes paths as they are.
        let applied = Command::new("git").args(["apply", "--check"]).arg(&patch).current_dir(root).output().unwrap();
        assert!(applied.status.success(), "{what}: {}", String::from_utf8_lossy(&applied.stderr));
    }
}
