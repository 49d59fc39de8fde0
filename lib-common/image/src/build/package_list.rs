//! What a user lists: packages, by the names of their distribution. Names are checked, so that none becomes an option; comments do
//! not count.

use lib_common::error::{Code, Error, Result};
use lib_common::sys::plain;
use std::path::Path;

/// The longest list that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// What values of `--packages` name, each a FILE (it has a `/`) or names with commas between, in their order. `checked` gives
/// a name as the package manager gets it.
///
/// Errors: those of `checked`, [`Code::MissingFile`] for a file that is not there.
pub fn read(values: &[String], checked: fn(&str) -> Result<String>) -> Result<Vec<String>> {
    let mut all = vec![];
    for value in values {
        if value.contains('/') {
            all.extend(from_file(Path::new(value), checked)?);
        } else {
            all.extend(from_lines(&value.replace(',', "\n"), checked)?);
        }
    }
    Ok(all)
}

/// The error for what is no name.
pub fn no_name(text: &str) -> Error {
    Error::new(Code::BadValue, format!("`{}` is not the name of a package", text.escape_debug()))
        .hint("a list has one name a line; a file is given by a path with a `/`, such as ./packages")
}

fn from_file(path: &Path, checked: fn(&str) -> Result<String>) -> Result<Vec<String>> {
    let bad = |e: Error| e.within(format!("{} is not a package list", path.display()));
    let text = String::from_utf8(plain::read_named(path, MAX_BYTES)?)
        .map_err(|e| bad(Error::new(Code::BadInput, "it is not UTF-8").because(&e)))?;
    from_lines(&text, checked).map_err(bad)
}

/// One name a line; `#` begins a comment.
fn from_lines(text: &str, checked: fn(&str) -> Result<String>) -> Result<Vec<String>> {
    let names = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    names.filter(|name| !name.is_empty()).map(checked).collect()
}
