//! What a package says of itself, in its `props.plist` and in a repository's index.

use super::pkgver::PkgVer;
use super::{bad, shown};
use lib_common::error::{Context, Result};
use plist::{Dictionary, Value};
use std::collections::BTreeMap;

/// What a package says of itself, as far as an installation needs it. Lists are in the package's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Props {
    /// Name, version and revision.
    pub pkgver: PkgVer,
    /// `x86_64`, `noarch`, …
    pub architecture: String,
    /// In bytes; 0 where it is not said.
    pub installed_size: u64,
    /// Patterns.
    pub run_depends: Vec<String>,
    /// What it can stand for.
    pub provides: Vec<PkgVer>,
    /// Patterns of packages that cannot be installed beside it.
    pub conflicts: Vec<String>,
    /// Patterns of packages that it takes the place of.
    pub replaces: Vec<String>,
    /// Sonames that it has: `libc.so.6`.
    pub shlib_provides: Vec<String>,
    /// Sonames that it needs.
    pub shlib_requires: Vec<String>,
    /// Absolute paths of configuration files.
    pub conf_files: Vec<String>,
    /// Group to `LINK:TARGET`s.
    pub alternatives: BTreeMap<String, Vec<String>>,
}

impl Props {
    /// Takes them out of a dictionary; keys that are not known are passed by. `package`: for errors.
    ///
    /// Errors: `bad_input` that names package and key, for what is missing or of another type.
    pub fn of(dictionary: &Dictionary, package: &str) -> Result<Self> {
        let from = Source { dictionary, package };
        let pkgver = PkgVer::parse(from.text("pkgver")?).context(format!("{} has a wrong pkgver", shown(package)))?;
        let provides = from.list("provides")?;
        let provides: Result<_> = provides.iter().map(|text| provided(text)).collect();
        Ok(Props {
            architecture: from.text("architecture")?.to_owned(),
            installed_size: from.size("installed_size")?.unwrap_or(0),
            run_depends: from.list("run_depends")?,
            provides: provides.context(format!("{} has a wrong item in provides", shown(package)))?,
            conflicts: from.list("conflicts")?,
            replaces: from.list("replaces")?,
            shlib_provides: from.list("shlib-provides")?,
            shlib_requires: from.list("shlib-requires")?,
            conf_files: from.list("conf_files")?,
            alternatives: from.alternatives()?,
            pkgver,
        })
    }
}

/// A virtual package; one without a revision has the first (`vi-0` is `vi-0_1`), as xbps reads it.
fn provided(text: &str) -> Result<PkgVer> {
    if text.contains('_') { PkgVer::parse(text) } else { PkgVer::parse(&format!("{text}_1")) }
}

/// A dictionary and whose it is.
pub(super) struct Source<'a> {
    pub dictionary: &'a Dictionary,
    pub package: &'a str,
}

impl<'a> Source<'a> {
    /// A string that has to be there.
    pub fn text(&self, key: &str) -> Result<&'a str> {
        let value = self.dictionary.get(key);
        let value = value.ok_or_else(|| bad(format!("{} has no `{key}`", shown(self.package))))?;
        value.as_string().ok_or_else(|| self.wrong(key, "a string"))
    }

    /// A count of bytes.
    pub fn size(&self, key: &str) -> Result<Option<u64>> {
        let value = self.dictionary.get(key);
        value.map(|v| v.as_unsigned_integer().ok_or_else(|| self.wrong(key, "a number"))).transpose()
    }

    /// Strings; none where the key is not there.
    fn list(&self, key: &str) -> Result<Vec<String>> {
        self.dictionary.get(key).map_or(Ok(vec![]), |value| self.strings(key, value))
    }

    fn strings(&self, key: &str, value: &Value) -> Result<Vec<String>> {
        let list = value.as_array().map(|a| a.iter().map(|v| v.as_string().map(str::to_owned)).collect());
        list.flatten().ok_or_else(|| self.wrong(key, "a list of strings"))
    }

    fn alternatives(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let key = "alternatives";
        let Some(value) = self.dictionary.get(key) else { return Ok(BTreeMap::new()) };
        let groups = value.as_dictionary().ok_or_else(|| self.wrong(key, "a dictionary"))?;
        groups.iter().map(|(group, links)| Ok((group.clone(), self.strings(key, links)?))).collect()
    }

    fn wrong(&self, key: &str, expected: &str) -> lib_common::error::Error {
        bad(format!("{} has a `{key}` that is not {expected}", shown(self.package)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lib_common::error::Code;

    fn dictionary() -> Dictionary {
        let strings = |list: &[&str]| Value::Array(list.iter().map(|s| Value::from(*s)).collect());
        let mut groups = Dictionary::new();
        groups.insert("vi".into(), strings(&["vi:/usr/bin/nvi", "/usr/bin/ex:nex"]));
        let mut it = Dictionary::new();
        it.insert("pkgver".into(), "nvi-1.8_1".into());
        it.insert("architecture".into(), "x86_64".into());
        it.insert("installed_size".into(), 1234_u64.into());
        it.insert("run_depends".into(), strings(&["glibc>=2_1", "ncurses-libs>=6"]));
        it.insert("provides".into(), strings(&["vi-0_1"]));
        it.insert("shlib-requires".into(), strings(&["libc.so.6"]));
        it.insert("conf_files".into(), strings(&["/etc/virc"]));
        it.insert("alternatives".into(), groups.into());
        it.insert("tags".into(), 7_u64.into());
        it
    }

    #[test]
    fn what_is_there_is_taken() {
        let props = Props::of(&dictionary(), "nvi").unwrap();
        assert_eq!((props.pkgver.as_str(), props.architecture.as_str()), ("nvi-1.8_1", "x86_64"));
        assert_eq!(props.installed_size, 1234);
        assert_eq!(props.run_depends, ["glibc>=2_1", "ncurses-libs>=6"]);
        assert_eq!(props.provides, [PkgVer::parse("vi-0_1").unwrap()]);
        assert_eq!(props.shlib_requires, ["libc.so.6"]);
        assert_eq!(props.alternatives["vi"], ["vi:/usr/bin/nvi", "/usr/bin/ex:nex"]);
        assert!(props.conflicts.is_empty() && props.replaces.is_empty() && props.shlib_provides.is_empty());
    }

    #[test]
    fn a_wrong_type_is_said_with_package_and_key() {
        let keys = ["pkgver", "architecture", "installed_size", "run_depends", "provides", "conflicts", "alternatives"];
        for key in keys {
            let mut broken = dictionary();
            broken.insert(key.into(), Value::Boolean(true));
            let e = Props::of(&broken, "nvi").unwrap_err();
            assert_eq!(e.code(), Code::BadInput);
            assert!(e.message().contains("nvi") && e.message().contains(key), "{e}");
        }
        let mut broken = dictionary();
        broken.insert("provides".into(), Value::Array(vec!["vi".into()]));
        assert!(Props::of(&broken, "nvi").unwrap_err().message().contains("provides"));
        for key in ["pkgver", "architecture"] {
            let mut broken = dictionary();
            broken.remove(key);
            assert!(Props::of(&broken, "nvi").unwrap_err().message().contains(key));
        }
    }
}
