//! What a dependency asks for: `foo>=1.2_1`, `foo<2`, `foo>=1<2`, `foo-1.0_1`, `foo-[0-9]*`.

use super::pkgver::PkgVer;
use super::{bad, glob, shown, version};
use lib_common::error::Result;
use std::cmp::Ordering;
use std::fmt;

/// The longest pattern, in bytes.
const MAX_PATTERN: usize = 512;
/// What a name does not have.
const SPECIAL: [char; 6] = ['<', '>', '*', '?', '[', ']'];

/// Which packages will do, by name and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// How long the name at its beginning is, by which a repository is asked.
    name: usize,
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
    /// Checks a pattern. A bare name is none; one that begins with a special character has no name to ask for.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || bad(format!("`{}` is not a pattern of packages (foo>=1.2_1)", shown(text)));
        if text.len() > MAX_PATTERN || !text.bytes().all(|b| b.is_ascii_graphic() && b != b'/') {
            return Err(wrong());
        }
        let kind = match text.find(['<', '>']) {
            Some(at) => Kind::Limits(limits(&text[at..])),
            None if text.contains(SPECIAL) => Kind::Glob,
            None => Kind::Exact,
        };
        let name = match text.find(SPECIAL) {
            Some(at) => text[..at].strip_suffix('-').unwrap_or(&text[..at]).len(),
            None => PkgVer::parse(text).map_err(|_| wrong())?.name().len(),
        };
        if name == 0 {
            return Err(wrong());
        }
        Ok(Pattern { text: text.to_owned(), name, kind })
    }

    /// The name by which a repository is asked: what comes before the first special character and a `-` in front of it.
    pub fn name(&self) -> &str {
        &self.text[..self.name]
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True if packages of other names than [`Pattern::name`] can match.
    pub fn spans_names(&self) -> bool {
        self.kind == Kind::Glob
    }

    /// True if this package will do.
    pub fn matches(&self, pkgver: &PkgVer) -> bool {
        self.matches_text(pkgver.as_str())
    }

    /// True if `pkgver` will do: a name, a dash and a version, with or without a revision.
    pub fn matches_text(&self, pkgver: &str) -> bool {
        if self.text == pkgver {
            return true;
        }
        match &self.kind {
            Kind::Exact => false,
            Kind::Limits(limits) => {
                let Some((name, version)) = pkgver.rsplit_once('-') else { return false };
                let rest = self.text.strip_prefix(name);
                rest.is_some_and(|rest| rest.starts_with(['<', '>']))
                    && limits.iter().all(|(operator, limit)| operator.holds(version, limit))
            }
            Kind::Glob => glob::matches(self.text.as_bytes(), pkgver.as_bytes()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `>=1`, `<2`, `>=1<2`: a second one only behind a lower limit, and only an upper one. Everything else belongs to the
/// versions, which may be empty: `foo>=` is any foo.
fn limits(text: &str) -> Vec<(Operator, String)> {
    let Some((operator, rest)) = Operator::take(text) else { return vec![] };
    let is_lower = matches!(operator, Operator::Greater | Operator::GreaterOrEqual);
    if let Some(at) = rest.find('<').filter(|_| is_lower)
        && let Some((upper, limit)) = Operator::take(&rest[at..])
    {
        return vec![(operator, rest[..at].to_owned()), (upper, limit.to_owned())];
    }
    vec![(operator, rest.to_owned())]
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
    fn the_name_is_before_the_first_special_character() {
        for (pattern, name) in [
            ("a-b>=1", "a-b"),
            ("a-b-1_1", "a-b"),
            ("a-b-[0-9]*", "a-b"),
            ("a-1.?_1", "a-1."),
            ("a<2", "a"),
            ("foo*", "foo"),
            ("foo>=", "foo"),
            ("virtual?awk", "virtual"),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().name(), name);
        }
        for bad in ["", "foo", ">=1", "foo-bar", "*", "[d]ep>=1", "foo>= 1", "foo==1", "foo>=1\n"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        assert!(Pattern::parse(&format!("foo>={}", "1".repeat(600))).is_err());
    }
}
