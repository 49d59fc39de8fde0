//! Versions, patterns and names, as libxbps itself answered for each.

use super::data::table;
use lib_xbps::pattern::Pattern;
use lib_xbps::pkgver::PkgVer;
use lib_xbps::version::compare;
use std::cmp::Ordering;

/// A number that does not fit in a C `int`.
fn has_large_number(version: &str) -> bool {
    let numbers = version.split(|c: char| !c.is_ascii_digit());
    numbers.filter(|number| !number.is_empty()).any(|number| number.parse::<i32>().is_err())
}

#[test]
fn versions_are_ordered_as_xbps_orders_them() {
    let rows = table("versions.tsv");
    assert_eq!(rows.len(), 4000);
    let mut large = 0;
    for row in &rows {
        let [a, b, real] = &row[..] else { panic!("{row:?}") };
        let here = compare(a, b);
        if has_large_number(a) || has_large_number(b) {
            // There xbps compares what is left of a number that overflowed; here it is a number all the same.
            large += 1;
            if let (Some(a), Some(b)) = (plain(a), plain(b)) {
                assert_eq!(here, a.cmp(&b), "{row:?}");
            }
            continue;
        }
        let real = match real.as_str() {
            "-1" => Ordering::Less,
            "0" => Ordering::Equal,
            "1" => Ordering::Greater,
            _ => panic!("{row:?}"),
        };
        assert_eq!(here, real, "{row:?}");
    }
    assert!((1..rows.len() / 3).contains(&large), "{large}");
}

/// A version of one number and a revision, as numbers.
fn plain(version: &str) -> Option<(i128, i128)> {
    let (number, revision) = version.split_once('_')?;
    Some((number.parse().ok()?, revision.parse().ok()?))
}

#[test]
fn patterns_match_what_xbps_matches() {
    let rows = table("patterns.tsv");
    assert_eq!(rows.len(), 3000);
    let (mut large, mut refused) = (0, 0);
    for row in &rows {
        let [pattern, pkgver, real] = &row[..] else { panic!("{row:?}") };
        if has_large_number(pattern) || has_large_number(pkgver) {
            large += 1;
            continue;
        }
        match Pattern::parse(pattern) {
            Ok(parsed) => assert_eq!(parsed.matches_text(pkgver), real == "1", "{row:?}"),
            // What is no pattern matches itself alone in xbps; one without a name cannot be asked for, and none has blanks.
            Err(_) => {
                refused += 1;
                let is_odd = pattern.starts_with(['[', '*', '?']) || pattern.contains(' ');
                assert!(real == "0" || pattern == pkgver || is_odd, "{row:?}");
            }
        }
    }
    assert!(large < 100 && refused < 700, "{large} {refused}");
}

#[test]
fn names_and_versions_are_split_where_xbps_splits_them() {
    let rows = table("names.tsv");
    assert_eq!(rows.len(), 2000);
    let mut stricter = vec![];
    for row in &rows {
        let [text, name, version] = &row[..] else { panic!("{row:?}") };
        let is_none = name == "-" && version == "-";
        match PkgVer::parse(text) {
            Ok(parsed) => assert_eq!((parsed.name(), parsed.version()), (&**name, &**version), "{row:?}"),
            Err(_) if is_none => {}
            Err(_) => stricter.push((text.as_str(), name.as_str(), version.as_str())),
        }
    }
    // On purpose: a name becomes a part of paths and a word of lines.
    for (text, name, version) in &stricter {
        let strange = |c: char| !c.is_ascii_graphic() || c == '/' || c == ':';
        let odd = name.is_empty() || name.starts_with(['.', '-']) || text.contains(strange);
        assert!(odd, "{text} is {name} and {version} for xbps");
    }
    assert!(stricter.len() < 30, "{stricter:?}");
}
