//! fnmatch(3) without flags, in the C locale: `*`, `?`, `[a-z]`, `[!a-z]`, `[[:digit:]]`, `\\`.

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
        b'\\' => (*pattern.get(1)? == byte).then_some(2),
        literal => (*literal == byte).then_some(1),
    }
}

/// The length of the bracket expression that `pattern` begins with, and whether `byte` is in it.
fn set(pattern: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let start = if negated { 2 } else { 1 };
    let (mut i, mut found) = (start, false);
    loop {
        // A `]` that comes first is itself.
        if *pattern.get(i)? == b']' && i > start {
            return Some((i + 1, found != negated));
        }
        if let Some((length, is_in)) = class(&pattern[i..], byte) {
            found |= is_in?;
            i += length;
            continue;
        }
        let (low, length) = member(&pattern[i..])?;
        i += length;
        match (pattern.get(i), pattern.get(i + 1)) {
            (Some(b'-'), Some(end)) if *end != b']' => {
                let (high, length) = member(&pattern[i + 1..])?;
                found |= (low..=high).contains(&byte);
                i += 1 + length;
            }
            _ => found |= low == byte,
        }
    }
}

/// A byte of a bracket expression and its length there: `\]` is `]`, and so are `[.].]` and `[=]=]`.
fn member(pattern: &[u8]) -> Option<(u8, usize)> {
    match pattern {
        [b'[', b'.', byte, b'.', b']', ..] | [b'[', b'=', byte, b'=', b']', ..] => Some((*byte, 5)),
        [b'\\', byte, ..] => Some((*byte, 2)),
        [b'\\'] | [] => None,
        [byte, ..] => Some((*byte, 1)),
    }
}

/// The length of the class that `pattern` begins with (`[:digit:]`), and whether `byte` is in it: `None` for a name that is
/// no class, with which nothing matches.
fn class(pattern: &[u8], byte: u8) -> Option<(usize, Option<bool>)> {
    let rest = pattern.strip_prefix(b"[:")?;
    let length = rest.windows(2).position(|two| two == b":]")?;
    let is_in = match &rest[..length] {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => byte == b' ' || byte == b'\t',
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => return Some((length + 4, None)),
    };
    Some((length + 4, Some(is_in)))
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
            ("[[:digit:]a]", "7", true),
            ("[[:digit:]a]", "a", true),
            ("[![:digit:]]", "7", false),
            ("[[:none:]]", "n", false),
            ("[[.1.]]", "1", true),
            ("[[=a=]-c]", "b", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[a\\]]", "]", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), result, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn stars_end_soon(pattern in "[a*?\\[\\]!:\\\\-]{0,40}", text in "a{0,200}") {
            matches(pattern.as_bytes(), text.as_bytes());
        }
    }
}
