//! What a package depends on, as a pattern: `foo>=1.2_1`, `foo<2`, `foo>=1<2`, exactly `foo-1.0_1`, or with wildcards.

use super::pkgver::{PkgVer, is_name, short};
use super::{bad, version};
use crate::error::Result;
use std::cmp::Ordering;

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    name: String,
    matches: Matches,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Matches {
    /// Every one of these.
    Versions(Vec<(Operator, String)>),
    /// This text, `*`, `?` and `[…]` being wildcards.
    Glob,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Pattern {
    /// Reads one.
    ///
    /// # Errors
    /// [`crate::error::Code::BadInput`] for what is none.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || bad(format!("`{}` is not what a package can depend on", short(text)));
        let (name, matches) = match text.find(['<', '>']) {
            Some(at) => (&text[..at], Matches::Versions(relations(&text[at..]).ok_or_else(wrong)?)),
            None => {
                // In a bracket a dash is a range's.
                let plain = &text[..text.find(['*', '?', '[']).unwrap_or(text.len())];
                (plain.rsplit_once('-').ok_or_else(wrong)?.0, Matches::Glob)
            }
        };
        if !is_name(name) {
            return Err(wrong());
        }
        Ok(Pattern { text: text.to_owned(), name: name.to_owned(), matches })
    }

    /// The package's, or that of something virtual.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a package fulfils it.
    pub fn matches(&self, pkgver: &PkgVer) -> bool {
        match &self.matches {
            Matches::Versions(all) => {
                self.name == pkgver.name() && all.iter().all(|(operator, than)| operator.holds(pkgver.version(), than))
            }
            Matches::Glob => glob(self.text.as_bytes(), pkgver.to_string().as_bytes()),
        }
    }
}

impl Operator {
    fn holds(self, version: &str, than: &str) -> bool {
        let order = version::compare(version, than);
        match self {
            Operator::Less => order == Ordering::Less,
            Operator::LessOrEqual => order != Ordering::Greater,
            Operator::Greater => order == Ordering::Greater,
            Operator::GreaterOrEqual => order != Ordering::Less,
        }
    }
}

/// `>=1<2`.
fn relations(mut text: &str) -> Option<Vec<(Operator, String)>> {
    let operators = [
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    let mut all = vec![];
    while !text.is_empty() {
        let (sign, operator) = operators.iter().find(|(sign, _)| text.starts_with(sign))?;
        let rest = &text[sign.len()..];
        let end = rest.find(['<', '>']).unwrap_or(rest.len());
        if end == 0 {
            return None;
        }
        all.push((*operator, rest[..end].to_owned()));
        text = &rest[end..];
    }
    Some(all)
}

/// fnmatch(3) without its classes; a bracket is one of its characters, or a range of them. Goes back to the last star only,
/// so its time is bounded by the product of the lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if let Some(next) = one(&pattern[p..], text[t]) {
            p += next;
            t += 1;
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            (p, t) = (after, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// How much of the pattern stands for that byte.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => {
            let end = pattern.iter().position(|b| *b == b']')?;
            let set = &pattern[1..end];
            let in_range = set.windows(3).any(|w| w[1] == b'-' && (w[0]..=w[2]).contains(&byte));
            (in_range || set.contains(&byte)).then_some(end + 1)
        }
        b => (b == byte).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_xbps_matches() {
        for (pattern, package, expected) in [
            ("foo>=0", "foo-1.0_1", true),
            ("foo>=1.0_1", "foo-1.0_1", true),
            ("foo>1.0_1", "foo-1.0_1", false),
            ("foo<2", "foo-1.9_9", true),
            ("foo<2", "foo-2.0_1", false),
            ("foo>=1<2", "foo-1.5_1", true),
            ("foo>=1<2", "foo-2_1", false),
            ("foo-1.0_1", "foo-1.0_1", true),
            ("foo-1.0_1", "foo-1.0_2", false),
            ("foo>=1", "foobar-1_1", false),
            ("foo-[0-9]*", "foo-1.0_1", true),
            ("foo-?.0_1", "foo-1.0_1", true),
            ("foo-*", "bar-1.0_1", false),
        ] {
            assert_eq!(
                Pattern::parse(pattern).unwrap().matches(&PkgVer::parse(package).unwrap()),
                expected,
                "{pattern}"
            );
        }
        for bad in ["", "foo", ">=1", "foo>=", "foo><1", "../x>=1", "virtual?foo>=1"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
