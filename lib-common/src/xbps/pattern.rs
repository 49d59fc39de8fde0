//! What a dependency asks for: `foo>=1.2_1`, `foo<2`, `foo>=1<2`, `foo-1.0_1`, `foo-[0-9]*`.

use super::pkgver::{PkgVer, is_name};
use super::{bad, glob, shown, version};
use crate::error::Result;
use std::cmp::Ordering;
use std::fmt;

/// The longest pattern, in bytes.
const MAX_PATTERN: usize = 512;

/// Which packages of a name will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    name: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Exact,
    /// All of these hold: one, or a lower and an upper limit.
    Limits(Vec<(Operator, String)>),
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
    /// Checks a pattern. A bare name is none, and neither is a glob with a special character in the name.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || bad(format!("`{}` is not a pattern of packages (foo>=1.2_1)", shown(text)));
        if text.len() > MAX_PATTERN {
            return Err(wrong());
        }
        let (name, kind) = if let Some(at) = text.find(['<', '>']) {
            (&text[..at], Kind::Limits(limits(&text[at..]).ok_or_else(wrong)?))
        } else if let Some(at) = text.find(['*', '?', '[', ']']) {
            (glob_name(&text[..at]).ok_or_else(wrong)?, Kind::Glob)
        } else {
            let dash = text.rfind('-').unwrap_or(0);
            PkgVer::parse(text).map_err(|_| wrong())?;
            (&text[..dash], Kind::Exact)
        };
        if !is_name(name) {
            return Err(wrong());
        }
        Ok(Pattern { text: text.to_owned(), name: name.to_owned(), kind })
    }

    /// The name of the packages that can match.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this package will do.
    pub fn matches(&self, pkgver: &PkgVer) -> bool {
        match &self.kind {
            Kind::Exact => self.text == pkgver.as_str(),
            Kind::Limits(limits) => {
                let holds = |(operator, limit): &(Operator, String)| operator.holds(pkgver.version(), limit);
                pkgver.name() == self.name && limits.iter().all(holds)
            }
            Kind::Glob => glob::matches(self.text.as_bytes(), pkgver.as_str().as_bytes()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `>=1`, `<2`, `>=1<2`: a second one only behind a lower limit, and only an upper one.
fn limits(text: &str) -> Option<Vec<(Operator, String)>> {
    let (operator, rest) = Operator::take(text)?;
    let is_lower = matches!(operator, Operator::Greater | Operator::GreaterOrEqual);
    let mut all = vec![];
    match rest.find('<').filter(|_| is_lower) {
        Some(at) => {
            let (upper, limit) = Operator::take(&rest[at..])?;
            all.extend([(operator, rest[..at].to_owned()), (upper, limit.to_owned())]);
        }
        None => all.push((operator, rest.to_owned())),
    }
    let fine = |limit: &str| !limit.is_empty() && limit.bytes().all(|b| b.is_ascii_graphic() && !b"<>=".contains(&b));
    all.iter().all(|(_, limit)| fine(limit)).then_some(all)
}

/// The name in what comes before a glob's first special character: `foo-`, `foo-1.`.
fn glob_name(start: &str) -> Option<&str> {
    let (name, version) = start.rsplit_once('-')?;
    (version.is_empty() || version.starts_with(|c: char| c.is_ascii_digit())).then_some(name)
}

impl Operator {
    /// The operator that `text` begins with, and what is behind it.
    fn take(text: &str) -> Option<(Operator, &str)> {
        use Operator::{Greater, GreaterOrEqual, Less, LessOrEqual};
        // The longer ones first.
        let all = [("<=", LessOrEqual), (">=", GreaterOrEqual), ("<", Less), (">", Greater)];
        all.into_iter().find_map(|(sign, operator)| Some((operator, text.strip_prefix(sign)?)))
    }

    fn holds(self, version: &str, limit: &str) -> bool {
        let order = version::compare(version, limit);
        match self {
            Operator::Less => order == Ordering::Less,
            Operator::LessOrEqual => order != Ordering::Greater,
            Operator::Greater => order == Ordering::Greater,
            Operator::GreaterOrEqual => order != Ordering::Less,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_pkgmatch_does() {
        for (pattern, yes, no) in [
            ("foo>=1.2_1", &["foo-1.2_1", "foo-1.10_1", "foo-2_1"][..], &["foo-1.1_9", "foo-bar-2_1", "fo-2_1"][..]),
            ("foo>1.2_1", &["foo-1.2_2"], &["foo-1.2_1"]),
            ("foo<2", &["foo-1.9_5", "foo-2.0rc1_1"], &["foo-2_1", "foo-3_1"]),
            ("foo<=2_1", &["foo-2_1", "foo-1_1"], &["foo-2_2"]),
            ("foo>=1<2", &["foo-1_1", "foo-1.9_1"], &["foo-0.9_1", "foo-2_1", "foo-10_1"]),
            ("foo>1_1<=2_1", &["foo-1_2", "foo-2_1"], &["foo-1_1", "foo-2_2"]),
            ("foo>=0", &["foo-0_1", "foo-20240101_1"], &["bar-1_1"]),
            ("foo-1.0_1", &["foo-1.0_1"], &["foo-1.0_2", "foo-1_1", "foo-1.0_10"]),
            ("foo-[0-9]*", &["foo-1.0_1"], &["foo-bar-1.0_1", "foo-a1_1"]),
            ("foo-1.*_1", &["foo-1.2_1"], &["foo-2.2_1", "foo-1.2_2"]),
            ("a-b-c>=1", &["a-b-c-1_1"], &["a-b-1_1"]),
            ("libstdc++>=4", &["libstdc++-13_1"], &[]),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(parsed.to_string(), pattern);
            for (list, result) in [(yes, true), (no, false)] {
                for text in list {
                    assert_eq!(parsed.matches(&PkgVer::parse(text).unwrap()), result, "{pattern} {text}");
                }
            }
        }
    }

    #[test]
    fn the_name_is_before_the_condition() {
        for (pattern, name) in
            [("a-b>=1", "a-b"), ("a-b-1_1", "a-b"), ("a-b-[0-9]*", "a-b"), ("a-1.?_1", "a"), ("a<2", "a")]
        {
            assert_eq!(Pattern::parse(pattern).unwrap().name(), name);
        }
        for bad in [
            "",
            "foo",
            "foo>=",
            ">=1",
            "foo-bar",
            "foo>=1>2",
            "foo<1<2",
            "foo>=1<",
            "*",
            "f*-1_1",
            "foo*",
            "../x>=1",
            "foo>= 1",
            "virtual?awk",
            "foo==1",
        ] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        assert!(Pattern::parse(&format!("foo>={}", "1".repeat(600))).is_err());
    }
}
