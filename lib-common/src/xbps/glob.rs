//! fnmatch(3) without flags, as far as patterns of packages use it: `*`, `?`, `[a-z]`, `[!a-z]`.

/// Whether all of `text` matches. Time: at most the product of both lengths.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows the last `*` does not fit: it takes one byte more.
    let mut retry = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p + 1, t));
            p += 1;
        } else if let Some(length) = one(&pattern[p..], text[t]) {
            p += length;
            t += 1;
        } else if let Some((after, taken)) = retry {
            retry = Some((after, taken + 1));
            (p, t) = (after, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// How long the first element of `pattern` is, if `byte` matches it.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => Some(1),
        b'[' => match set(pattern, byte) {
            Some((length, is_in)) => is_in.then_some(length),
            // Without its end it is itself.
            None => (byte == b'[').then_some(1),
        },
        literal => (*literal == byte).then_some(1),
    }
}

/// The length of the bracket expression that `pattern` begins with, and whether `byte` is in it.
fn set(pattern: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let start = if negated { 2 } else { 1 };
    let (mut i, mut found) = (start, false);
    loop {
        let low = *pattern.get(i)?;
        // A `]` that comes first is itself.
        if low == b']' && i > start {
            return Some((i + 1, found != negated));
        }
        match (pattern.get(i + 1), pattern.get(i + 2)) {
            (Some(b'-'), Some(&high)) if high != b']' => {
                found |= (low..=high).contains(&byte);
                i += 3;
            }
            _ => {
                found |= low == byte;
                i += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_fnmatch_does() {
        for (pattern, text, result) in [
            ("foo-[0-9]*", "foo-1.0_1", true),
            ("foo-[0-9]*", "foo-bar-1.0_1", false),
            ("foo-1.?_1", "foo-1.2_1", true),
            ("foo-1.?_1", "foo-1._1", false),
            ("*", "", true),
            ("?", "", false),
            ("a*b*c", "aXbXbYc", true),
            ("a*b*c", "aXbXbYd", false),
            ("[!a-c]", "d", true),
            ("[^a-c]", "b", false),
            ("[]x]", "]", true),
            ("[a-]", "-", true),
            ("[ab", "[ab", true),
            ("[ab", "a", false),
            ("a", "ab", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), result, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn stars_end_soon(pattern in "[a*?\\[\\]!-]{0,40}", text in "a{0,200}") {
            matches(pattern.as_bytes(), text.as_bytes());
        }
    }
}
