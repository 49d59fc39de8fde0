//! Which of two versions is newer.

use std::cmp::Ordering;

/// What stands for a number in a version, without regard to case; before all other letters.
const WORDS: &[(&str, i128)] = &[("alpha", -3), ("beta", -2), ("pre", -1), ("rc", -1), ("pl", 0), (".", 0)];

/// Compares two versions by the "dewey" rules: number by number, a missing one is 0, the revision (`_2`) last. Versions
/// that are written differently can be equal: `1.0` and `1`.
///
/// Numbers are compared as numbers, up to 38 digits. xbps keeps them in a C `int`, so that from 2^31 on its order is whatever
/// is left of them: with `20240101123456_1` and later dates it takes an older package for a newer one.
pub fn compare(a: &str, b: &str) -> Ordering {
    let ((a, a_revision), (b, b_revision)) = (components(a), components(b));
    let at = |list: &[i128], i: usize| list.get(i).copied().unwrap_or(0);
    let numbers = (0..a.len().max(b.len())).map(|i| at(&a, i).cmp(&at(&b, i)));
    numbers.fold(Ordering::Equal, Ordering::then).then(a_revision.cmp(&b_revision))
}

/// The numbers of a version, and its revision. A number of more than 38 digits is the largest.
fn components(version: &str) -> (Vec<i128>, i128) {
    let (mut rest, mut numbers, mut revision) = (version.as_bytes(), vec![], 0);
    while let Some(&first) = rest.first() {
        if first.is_ascii_digit() {
            numbers.push(number(&mut rest));
        } else if let Some((word, value)) = WORDS.iter().find(|(w, _)| starts_with(rest, w)) {
            numbers.push(*value);
            rest = &rest[word.len()..];
        } else {
            rest = &rest[1..];
            if first == b'_' {
                revision = number(&mut rest);
            } else if first.is_ascii_alphabetic() {
                numbers.extend([0, i128::from(first.to_ascii_lowercase() - b'a') + 1]);
            }
        }
    }
    (numbers, revision)
}

fn starts_with(text: &[u8], word: &str) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
}

/// Takes the digits that `text` begins with; none are 0.
fn number(text: &mut &[u8]) -> i128 {
    let mut value = 0_i128;
    while let Some((digit, rest)) = text.split_first().filter(|(b, _)| b.is_ascii_digit()) {
        value = value.saturating_mul(10).saturating_add(i128::from(digit - b'0'));
        *text = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_pairs() {
        for chain in [
            &["1.0alpha_1", "1.0beta_1", "1.0rc1_1", "1.0_1", "1.0_2", "1.0.1_1", "1.1_1", "1.9_1", "1.10_1", "2_1"][..],
            &["2.0_1", "2.0a_1", "2.0b_1", "2.0.3_1"],
            &["0.9.8k_1", "0.9.8z_3", "1.0.0_1", "1.0.0a_1"],
            &["5.1pre2_1", "5.1_1", "5.1.016_1", "5.1.16_2"],
            &[
                "20230101_1",
                "20240101_1",
                "2147483648_1",
                "20240101123456_1",
                "99999999999999999998_1",
                "99999999999999999999_1",
            ],
            &["1", "1_1", "1_2", "1_10"],
            &["1.0ALPHA2_1", "1.0Beta1_1"],
        ] {
            for (i, a) in chain.iter().enumerate() {
                for (j, b) in chain.iter().enumerate() {
                    assert_eq!(compare(a, b), i.cmp(&j), "{a} {b}");
                }
            }
        }
        for (a, b) in [("1.0", "1"), ("1.0rc1", "1.0pre1"), ("1.0pl1", "1.0.1"), ("1.0+", "1.0"), ("01_1", "1_1")] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn it_is_an_order(a in VERSION, b in VERSION, c in VERSION) {
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            let mut sorted = [&a, &b, &c];
            sorted.sort_by(|x, y| compare(x, y));
            prop_assert_ne!(compare(sorted[0], sorted[2]), Ordering::Greater);
            if compare(&a, &b) == Ordering::Equal {
                prop_assert_eq!(compare(&a, &c), compare(&b, &c));
            }
        }

        #[test]
        fn nothing_panics(a in ".*", b in ".*") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        }
    }

    /// Few different pieces, so that equal and nearly equal ones come up.
    const VERSION: &str = "[0-2](\\.|[0-2]|alpha|beta|rc|pre|pl|a|Z|\\+){0,4}(_[0-2])?";
}
