//! What a package says of itself: the dictionary `props.plist` in its archive, and its entry in an index.

use super::bad;
use super::pkgver::{PkgVer, short};
use crate::error::{Error, Result};
use plist::{Dictionary, Value};
use std::collections::BTreeMap;

/// The most items of one list: no package of Void's has 200 dependencies.
const MAX_ITEMS: usize = 16_384;
/// The longest item, in bytes.
const MAX_ITEM: usize = 4096;

/// The part that counts for installing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Props {
    /// Name and version.
    pub pkgver: PkgVer,
    /// `x86_64`, `noarch`.
    pub architecture: String,
    /// In bytes.
    pub installed_size: u64,
    /// Patterns.
    pub run_depends: Vec<String>,
    /// What it stands for beside itself.
    pub provides: Vec<PkgVer>,
    /// Patterns of what cannot be beside it.
    pub conflicts: Vec<String>,
    /// Patterns of what it takes the place of.
    pub replaces: Vec<String>,
    /// The shared libraries that it has: `libc.so.6`.
    pub shlib_provides: Vec<String>,
    /// The shared libraries that it needs.
    pub shlib_requires: Vec<String>,
    /// Absolute paths.
    pub conf_files: Vec<String>,
    /// Of each group, `LINK:TARGET`.
    pub alternatives: BTreeMap<String, Vec<String>>,
}

impl Props {
    /// Of a dictionary; `package` names it in errors.
    ///
    /// # Errors
    /// [`crate::error::Code::BadInput`] for a value of another type, or one that is missing and must be there.
    pub fn of(dictionary: &Dictionary, package: &str) -> Result<Self> {
        let from = From { dictionary, package };
        let pkgver = |text: &String| PkgVer::parse(text).map_err(|e| e.within(format!("of the package `{package}`")));
        let alternatives = match dictionary.get("alternatives") {
            None => BTreeMap::new(),
            Some(Value::Dictionary(groups)) => {
                let within = From { dictionary: groups, package };
                let group = |name: &String| Ok((name.clone(), within.list(name)?));
                groups.keys().map(group).collect::<Result<_>>()?
            }
            Some(_) => return Err(from.wrong("alternatives")),
        };
        Ok(Props {
            pkgver: pkgver(&from.text("pkgver")?)?,
            architecture: from.text("architecture")?,
            installed_size: from.number("installed_size")?.unwrap_or(0),
            run_depends: from.list("run_depends")?,
            provides: from.list("provides")?.iter().map(pkgver).collect::<Result<_>>()?,
            conflicts: from.list("conflicts")?,
            replaces: from.list("replaces")?,
            shlib_provides: from.list("shlib-provides")?,
            shlib_requires: from.list("shlib-requires")?,
            conf_files: from.list("conf_files")?,
            alternatives,
        })
    }
}

/// A dictionary whose values have their types.
pub(super) struct From<'a> {
    pub(super) dictionary: &'a Dictionary,
    pub(super) package: &'a str,
}

impl From<'_> {
    pub(super) fn text(&self, key: &str) -> Result<String> {
        match self.dictionary.get(key).and_then(Value::as_string) {
            Some(text) if text.len() <= MAX_ITEM => Ok(text.to_owned()),
            _ => Err(self.wrong(key)),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>> {
        let value = self.dictionary.get(key);
        value.map(|value| value.as_unsigned_integer().ok_or_else(|| self.wrong(key))).transpose()
    }

    fn list(&self, key: &str) -> Result<Vec<String>> {
        let Some(value) = self.dictionary.get(key) else { return Ok(vec![]) };
        let items = value.as_array().filter(|items| items.len() <= MAX_ITEMS).ok_or_else(|| self.wrong(key))?;
        let texts = items.iter().map(|item| item.as_string().filter(|text| text.len() <= MAX_ITEM).map(str::to_owned));
        texts.collect::<Option<_>>().ok_or_else(|| self.wrong(key))
    }

    pub(super) fn wrong(&self, key: &str) -> Error {
        bad(format!("`{key}` of the package `{}` is missing, or not what it should be", short(self.package)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_passed_by_and_wrong_types_are_named() {
        let text = "<plist><dict><key>pkgver</key><string>a-1_1</string><key>architecture</key><string>noarch</string>\
            <key>tags</key><true/><key>run_depends</key><array><string>b&gt;=1</string></array>\
            <key>alternatives</key><dict><key>awk</key><array><string>awk:/usr/bin/gawk</string></array></dict></dict></plist>";
        let of = |text: &str| {
            let value = Value::from_reader_xml(text.as_bytes()).unwrap();
            Props::of(value.as_dictionary().unwrap(), "a")
        };
        let props = of(text).unwrap();
        assert_eq!((props.run_depends.as_slice(), props.installed_size), (&["b>=1".to_owned()][..], 0));
        assert_eq!(props.alternatives["awk"], ["awk:/usr/bin/gawk"]);
        for (from, to, key) in [
            ("<string>noarch</string>", "<true/>", "architecture"),
            ("<string>a-1_1</string>", "<string>a</string>", "`a`"),
            ("<string>b&gt;=1</string>", "<integer>1</integer>", "run_depends"),
        ] {
            let e = of(&text.replace(from, to)).unwrap_err();
            assert!(format!("{} {:?}", e.message(), e.causes()).contains(key), "{e}");
        }
    }
}
