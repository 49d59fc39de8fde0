//! The hostile archives, each given to `bg-rootfs` as the only package of a root file system.

use super::data::{differences, dir, table};
use crate::support::Sandbox;
use std::collections::BTreeSet;

#[test]
fn a_hostile_archive_is_refused_and_a_harmless_one_is_taken() {
    let repository = dir().join("hostile");
    let (differences, mut differ, mut wrong) = (differences(), BTreeSet::new(), vec![]);
    let rows: Vec<Vec<String>> =
        table("hostile/hostile.tsv").into_iter().filter(|row| row[0].starts_with("h-")).collect();
    assert_eq!(rows.len(), 34);
    for row in &rows {
        let (file, real) = (&row[0], row[1].as_str());
        let name = file.rsplit_once("-1_1.").unwrap().0;
        // What the real tools had installed before is in the same transaction here.
        let before = row[4].split([',', ' ']).filter(|word| !word.is_empty() && *word != "-");
        let before = before.map(|pkgver| pkgver.rsplit_once("-1_").map_or(pkgver, |(name, _)| name));
        let wanted = before.chain([name]).collect::<Vec<_>>().join(",");
        let sandbox = Sandbox::new();
        let done = super::scenarios::build(&sandbox, &[repository.to_str().unwrap().to_owned()], &wanted, &[]);
        let here = match done.exit {
            0 => "accepted",
            // The archive is sound, and only a guest with a kernel could run its script.
            _ if done.stderr.contains("needs a kernel") => "accepted",
            _ => {
                let error = done.failed();
                let said = format!("{} {:?}", error.message, error.causes);
                assert!(said.contains(name), "{file}: {said}");
                "refused"
            }
        };
        let expected = differences.get(name).map_or(real, String::as_str);
        if here != expected {
            wrong.push(format!("{name}: {here}, and not {expected}: {done:?}"));
        } else if differences.contains_key(name) {
            differ.insert(name.to_owned());
            assert_ne!(here, real, "{file} differs no more: take it out of docs/void.md");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let listed: BTreeSet<String> = differences.into_keys().filter(|id| id.starts_with("h-")).collect();
    assert_eq!(listed, differ);
}
