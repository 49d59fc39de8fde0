//! Where a repository is: a directory of this host, or an address.

use crate::error::{Code, Error, Result};
use std::fmt;
use std::path::PathBuf;

/// A directory or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A directory: its user is believed.
    Directory(PathBuf),
    /// `http://…` or `https://…` without a slash at its end: every package of it needs a signature.
    Remote(String),
}

impl Location {
    /// What `--repository` says.
    ///
    /// # Errors
    /// [`Code::BadValue`], [`Code::MissingFile`].
    pub fn parse(text: &str) -> Result<Self> {
        if text.starts_with("http://") || text.starts_with("https://") {
            return Ok(Location::Remote(text.trim_end_matches('/').to_owned()));
        }
        if text.contains("://") {
            let message = format!("`{}` is not the address of a repository", text.escape_debug());
            return Err(Error::new(Code::BadValue, message).hint("http://…, https://… or a directory"));
        }
        let dir = std::path::absolute(text)?;
        if !dir.is_dir() {
            return Err(Error::new(Code::MissingFile, format!("there is no repository {}", dir.display())));
        }
        Ok(Location::Directory(dir))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Directory(dir) => dir.display().fmt(f),
            Location::Remote(url) => f.write_str(url),
        }
    }
}
