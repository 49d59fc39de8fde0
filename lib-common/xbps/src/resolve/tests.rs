//! What comes with what, in which order, and what is refused.

use super::*;
use crate::fixture::Spec;
use crate::props::Props;
use lib_common::digest;

fn repository(specs: &[Spec]) -> Repository {
    let entry = |spec: &Spec| {
        let props = Props::of(&spec.props(), &spec.pkgver).unwrap();
        let entry = IndexEntry { props, sha256: digest::of_bytes(spec.pkgver.as_bytes()), size: 1 };
        (entry.props.pkgver.name().to_owned(), entry)
    };
    let index = Index { packages: specs.iter().map(entry).collect(), ..Index::default() };
    Repository { location: Location::Dir("/a".into()), index }
}

fn steps(repositories: &[Repository], wanted: &[&str], is_closed: bool) -> Result<Vec<Step>> {
    let wanted: Vec<String> = wanted.iter().map(|text| (*text).to_owned()).collect();
    let providers = [("vi".to_owned(), "nvi".to_owned())];
    resolve(repositories, &Request { wanted: &wanted, arch: "x86_64", providers: &providers, is_closed })
}

/// What is installed.
fn try_names(repositories: &[Repository], wanted: &[&str]) -> Result<Vec<String>> {
    let steps = steps(repositories, wanted, false)?;
    let installs = steps.iter().filter(|step| step.action == Action::Install);
    Ok(installs.map(|step| step.chosen.entry.props.pkgver.to_string()).collect())
}

fn names(specs: &[Spec], wanted: &[&str]) -> Vec<String> {
    try_names(&[repository(specs)], wanted).unwrap()
}

#[track_caller]
fn refused(specs: &[Spec], wanted: &[&str], words: &[&str]) -> Error {
    let e = try_names(&[repository(specs)], wanted).unwrap_err();
    let said = format!("{} {}", e.with_causes(), e.get_hint().unwrap_or_default());
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    e
}

#[test]
fn dependencies_come_first_and_cycles_end() {
    let specs = [
        Spec::new("a-1_1").needs(&["b>=1", "c>=0"]),
        Spec::new("b-1_1").needs(&["c<2"]),
        Spec::new("c-1_1").needs(&["a>=0"]),
        Spec::new("base-files-1_1").needs(&["triggers>=0"]),
        Spec::new("triggers-1_1"),
    ];
    assert_eq!(names(&specs, &["a"]), ["c-1_1", "b-1_1", "a-1_1"]);
    // What is wanted is in the transaction from the beginning, so nothing is put before it that needs it.
    assert_eq!(names(&specs, &["b", "base-files"]), ["a-1_1", "c-1_1", "b-1_1", "triggers-1_1", "base-files-1_1"]);
    assert_eq!(names(&specs, &["c", "b", "c"]), ["a-1_1", "c-1_1", "b-1_1"]);
}

#[test]
fn what_was_asked_for_is_not_automatic() {
    let all = [repository(&[Spec::new("a-1_1").needs(&["b>=0"]), Spec::new("b-1_1")])];
    let automatic = |wanted: &[&str]| {
        steps(&all, wanted, false).unwrap().iter().map(|step| step.chosen.automatic).collect::<Vec<_>>()
    };
    assert_eq!(automatic(&["a"]), [true, false]);
    assert_eq!(automatic(&["a", "b-1_1"]), [false, false]);
}

#[test]
fn a_virtual_package_is_its_configured_provider_or_the_first_by_name() {
    let specs = [
        Spec::new("busybox-1_1").list("provides", &["vi-1_1", "ed-1_1"]),
        Spec::new("nvi-5_1").list("provides", &["vi-1_1"]),
        Spec::new("needs-vi-1_1").needs(&["vi>=0"]),
        Spec::new("needs-ed-1_1").needs(&["ed>=1<2"]),
        Spec::new("old-1_1").needs(&["vi>=1<2"]),
    ];
    assert_eq!(names(&specs, &["needs-vi"]), ["nvi-5_1", "needs-vi-1_1"]);
    assert_eq!(names(&specs, &["needs-ed", "needs-vi"]), ["busybox-1_1", "needs-ed-1_1", "needs-vi-1_1"]);
    assert_eq!(names(&specs, &["needs-ed"]), ["busybox-1_1", "needs-ed-1_1"]);
    let new = [specs[0].clone(), Spec::new("nvi-5_1").list("provides", &["vi-2"]), specs[4].clone()];
    assert_eq!(names(&new, &["old"]), ["busybox-1_1", "old-1_1"], "a provider of another version is none");
    let both = [repository(&specs[..1]), repository(&specs[1..])];
    assert_eq!(
        try_names(&both, &["needs-vi"]).unwrap(),
        ["busybox-1_1", "needs-vi-1_1"],
        "the first repository counts"
    );
}

#[test]
fn the_first_repository_with_something_fitting_counts() {
    let [one, two] = [repository(&[Spec::new("a-1_1")]), repository(&[Spec::new("a-2_1")])];
    let both = [one, two];
    for (wanted, found) in [("a", "a-1_1"), ("a>=2", "a-2_1"), ("a-2_1", "a-2_1"), ("a-*", "a-1_1")] {
        assert_eq!(try_names(&both, &[wanted]).unwrap(), [found], "{wanted}");
    }
}

#[test]
fn what_is_missing_is_told_with_who_needs_it() {
    let specs = [Spec::new("a-1_1").needs(&["b>=2"]), Spec::new("b-1_1"), Spec::new("far-1_1").for_arch("aarch64")];
    refused(&specs, &["a"], &["`a-1_1` needs `b>=2`", "only `b-1_1`", "--repository"]);
    assert_eq!(refused(&specs, &["c"], &["`c`", "no repository", "--packages"]).code(), Code::NotFound);
    refused(&specs, &["far"], &["`far-1_1` is for aarch64"]);
    let gone = [Spec::new("a-1_1").needs(&["virtual>=0"])];
    refused(&gone, &["a"], &["`a-1_1` needs `virtual>=0`", "no repository"]);
    assert_eq!(refused(&specs, &["../a"], &["is not the name"]).code(), Code::BadValue);
    refused(&[Spec::new("a-1_1").needs(&["virtual?b>=1"])], &["a"], &["`a-1_1`", "virtual?b"]);
    refused(&[Spec::new("a-1_1").needs(&["bare"])], &["a"], &["`a-1_1`", "`bare` is not a pattern"]);
}

#[test]
fn what_cannot_be_together_is_refused() {
    let conflict = [Spec::new("a-1_1").list("conflicts", &["b<2"]), Spec::new("b-1_1")];
    refused(&conflict, &["a", "b"], &["`a-1_1` conflicts with `b-1_1`"]);
    assert_eq!(names(&conflict, &["a"]), ["a-1_1"]);
    let lacks = [
        Spec::new("a-1_1").list("shlib-requires", &["libb.so.1"]),
        Spec::new("b-1_1").list("shlib-provides", &["libb.so.1"]),
    ];
    refused(&lacks, &["a"], &["`a-1_1` needs the library `libb.so.1`", "--packages b"]);
    assert_eq!(names(&lacks, &["a", "b"]), ["a-1_1", "b-1_1"]);
    let both =
        [repository(&[Spec::new("a-1_1"), Spec::new("x-1_1").needs(&["a>=2"])]), repository(&[Spec::new("a-2_1")])];
    let e = try_names(&both, &["a", "x"]).unwrap_err();
    assert!(e.message().contains("`x-1_1` needs `a>=2`, and `a-1_1`"), "{e}");
}

#[test]
fn a_package_that_another_one_replaces_is_left_out() {
    let specs = [
        Spec::new("a-1_1").list("replaces", &["b<2", "a>=0"]),
        Spec::new("b-1_1").list("conflicts", &["a>=0"]).list("replaces", &["a>=0"]),
        Spec::new("c-1_1").needs(&["b>=0"]),
    ];
    let actions = |wanted: &[&str], specs: &[Spec], is_closed: bool| {
        let steps = steps(&[repository(specs)], wanted, is_closed).unwrap();
        let shown = |step: &Step| format!("{} {}", step.action.as_str(), step.chosen.entry.props.pkgver);
        steps.iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(actions(&["a", "b"], &specs, false), ["install a-1_1", "remove b-1_1"]);
    assert_eq!(actions(&["c", "a"], &specs[..], false), ["install b-1_1", "install c-1_1", "remove a-1_1"]);
    let new = [specs[0].clone(), Spec::new("b-2_1")];
    assert_eq!(actions(&["a", "b"], &new, false), ["install a-1_1", "install b-2_1"]);
    // A lock file does not have what was replaced.
    let closed = [specs[0].clone(), specs[2].clone()];
    assert_eq!(actions(&["a", "b", "c"], &closed, true), ["install a-1_1", "install c-1_1"]);
    assert!(steps(&[repository(&closed)], &["a", "b"], false).is_err());
}

#[test]
fn a_chain_that_is_too_long_is_refused() {
    let chain = |length: usize| {
        let one = |n: usize| Spec::new(&format!("n{n}-1_1")).needs(&[&format!("n{}>=0", n + 1)]);
        let mut all: Vec<Spec> = (0..length).map(one).collect();
        all.push(Spec::new(&format!("n{length}-1_1")));
        all
    };
    assert_eq!(names(&chain(512), &["n0"]).len(), 513);
    refused(&chain(513), &["n0"], &["deep"]);
}
