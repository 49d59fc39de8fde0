//! Where a repository is: a directory of this host, or an address.

use lib_common::error::{Code, Error, Result};
use std::fmt;
use std::path::PathBuf;

/// The place of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A directory; its index is believed.
    Dir(PathBuf),
    /// `http://…` or `https://…` without a slash at the end; its packages have to be signed.
    Url(String),
}

impl Location {
    /// What was given on the command line: an address, or else a directory.
    ///
    /// # Errors
    /// [`Code::BadValue`] for an address of another kind, or one that is none.
    pub fn parse(text: &str) -> Result<Self> {
        let refused = |why: &str| {
            let message = format!("`{}` is no repository: {why}", text.escape_debug());
            Err(Error::new(Code::BadValue, message)
                .hint("a directory, or an address such as https://repo-default.voidlinux.org/current"))
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            if text.is_empty() {
                return refused("it is empty");
            }
            return Ok(Location::Dir(std::path::absolute(text).map_err(|e| Error::io("find", text.as_ref(), &e))?));
        };
        let plain = |c: char| c.is_ascii_graphic() && !"\"'<>\\^`{|}?#@".contains(c);
        match scheme {
            "http" | "https" if rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') => {}
            "http" | "https" => return refused("it names no host"),
            _ => return refused("only http and https are known"),
        }
        if !rest.chars().all(plain) {
            return refused("it has characters, a query or a password that an address of packages does not have");
        }
        Ok(Location::Url(text.trim_end_matches('/').to_owned()))
    }

    /// Whether it is another host's.
    pub fn is_remote(&self) -> bool {
        matches!(self, Location::Url(_))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Dir(path) => path.display().fmt(f),
            Location::Url(url) => f.write_str(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_http_or_https_and_everything_else_a_directory() {
        let url = |text: &str| Location::parse(text).unwrap();
        assert_eq!(url("https://a.example/current/"), Location::Url("https://a.example/current".into()));
        assert_eq!(url("http://127.0.0.1:80").to_string(), "http://127.0.0.1:80");
        assert!(url("http://a").is_remote() && !url("./a").is_remote());
        assert_eq!(url("/srv/void"), Location::Dir("/srv/void".into()));
        for bad in ["", "ftp://a/b", "file:///a", "https://", "https:///a", "http://u:p@a", "http://a/ b", "http://a?b"]
        {
            let e = Location::parse(bad).unwrap_err();
            assert!(e.code() == Code::BadValue && e.get_hint().is_some(), "{bad}");
        }
    }
}
