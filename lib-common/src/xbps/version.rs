//! Comparing versions as xbps does it (lib/external/dewey.c): a version is a row of numbers, and the revision decides last.

use std::cmp::Ordering;

/// Words that sort before or beside a dot.
const WORDS: [(&str, i64); 6] = [("alpha", -3), ("beta", -2), ("pre", -1), ("rc", -1), ("pl", 0), (".", 0)];

/// Compares `1.2rc1_3` with another.
pub fn compare(a: &str, b: &str) -> Ordering {
    let ((a, a_revision), (b, b_revision)) = (parts(a), parts(b));
    let length = a.len().max(b.len());
    let at = |parts: &[i64], n: usize| parts.get(n).copied().unwrap_or(0);
    let first = (0..length).map(|n| at(&a, n).cmp(&at(&b, n))).find(|order| order.is_ne());
    first.unwrap_or_else(|| a_revision.cmp(&b_revision))
}

/// The numbers of a version, and its revision.
fn parts(version: &str) -> (Vec<i64>, i64) {
    let (mut rest, mut parts, mut revision) = (version, vec![], 0);
    while let Some(c) = rest.chars().next() {
        if c.is_ascii_digit() {
            let (value, after) = number(rest);
            parts.push(value);
            rest = after;
            continue;
        }
        let lower = |word: &str| rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        if let Some((word, value)) = WORDS.iter().find(|(word, _)| lower(word)) {
            parts.push(*value);
            rest = &rest[word.len()..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        if c == '_' {
            (revision, rest) = number(rest);
        } else if c.is_ascii_alphabetic() {
            parts.push(0);
            parts.push(i64::from(c.to_ascii_lowercase() as u8 - b'a') + 1);
        }
    }
    (parts, revision)
}

/// The digits in front, and what follows. More than a number holds is the largest number.
fn number(text: &str) -> (i64, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let value =
        text[..end].bytes().fold(0_i64, |value, b| value.saturating_mul(10).saturating_add(i64::from(b - b'0')));
    (value, &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_pairs() {
        for (a, order, b) in [
            ("1.0_1", Ordering::Equal, "1.0_1"),
            ("1.0_1", Ordering::Less, "1.0_2"),
            ("1.0_9", Ordering::Less, "1.0_10"),
            ("1.0_9", Ordering::Less, "1.0.1_1"),
            ("1_1", Ordering::Equal, "1.0_1"),
            ("1.10_1", Ordering::Greater, "1.9_1"),
            ("2.0rc1_1", Ordering::Less, "2.0_1"),
            ("2.0alpha1_1", Ordering::Less, "2.0beta1_1"),
            ("2.0beta3_1", Ordering::Less, "2.0pre1_1"),
            ("2.0pre1_1", Ordering::Equal, "2.0rc1_1"),
            ("1.0pl1_1", Ordering::Greater, "1.0_1"),
            ("1.0a_1", Ordering::Less, "1.0b_1"),
            ("1.0a_1", Ordering::Greater, "1.0_1"),
            ("1.0A_1", Ordering::Equal, "1.0a_1"),
            ("20230101_1", Ordering::Greater, "1.0_1"),
            ("1.0+git_1", Ordering::Greater, "1.0_1"),
            ("99999999999999999999999_1", Ordering::Greater, "1_1"),
            ("0_1", Ordering::Less, "0.1_1"),
        ] {
            assert_eq!(compare(a, b), order, "{a} {b}");
            assert_eq!(compare(b, a), order.reverse(), "{b} {a}");
        }
    }

    const VERSION: &str = "[0-9]{1,3}((\\.|rc|alpha|beta|pl|[a-c])[0-9]{0,2}){0,3}_[0-9]{1,2}";

    proptest! {
        #[test]
        fn it_is_an_order(a in VERSION, b in VERSION, c in VERSION) {
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }

        #[test]
        fn anything_can_be_compared(a in ".*", b in ".*") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        }
    }
}
