//! The names in the package sets are those of packages: asked of this host's own apt, where it has one for the release
//! that is built by default.

#![allow(clippy::disallowed_types)]

use lib_image::build::debian::DEFAULT_SUITE;
use lib_image::build::sets::{SETS, debian};
use std::process::Command;

/// Whether this host's package lists are those of the release.
fn has_lists() -> bool {
    let lists = Command::new("apt-cache").arg("policy").output();
    lists.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains(&format!("n={DEFAULT_SUITE},")))
}

#[test]
fn every_name_of_a_set_is_a_packages() {
    if !has_lists() {
        crate::support::not_run(
            "every_name_of_a_set_is_a_packages",
            &format!("this host's apt has no lists of {DEFAULT_SUITE}"),
        );
        return;
    }
    let mut missing = vec![];
    for (set, _) in SETS {
        let (names, _) = debian(set).unwrap();
        let out = Command::new("apt-cache").args(["show", "--no-all-versions", "-q"]).args(&names).output().unwrap();
        let known = String::from_utf8_lossy(&out.stdout).into_owned();
        let known: Vec<&str> = known.lines().filter_map(|line| line.strip_prefix("Package: ")).collect();
        missing.extend(names.into_iter().filter(|name| !known.contains(name)));
    }
    assert_eq!(missing, Vec::<&str>::new(), "{DEFAULT_SUITE} has no such packages");
}
