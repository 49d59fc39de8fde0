//! What a root file system gets beside its packages: plain data. Knows no distribution.

/// Something that is added, in place of what packages have under that path. Owner is root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// Relative to the root.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// What it is.
    pub what: What,
}

/// What is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A file with this content.
    File(String),
    /// A symbolic link to this.
    Link(String),
}

impl Added {
    /// A file that all may read.
    pub fn file(path: &str, content: &str) -> Self {
        Added { path: path.into(), mode: 0o644, what: What::File(content.into()) }
    }

    /// A symbolic link.
    pub fn link(path: &str, target: &str) -> Self {
        Added { path: path.into(), mode: 0o777, what: What::Link(target.into()) }
    }

    /// Everything that counts of it, in one line for the key of a cache.
    pub fn key_line(&self) -> String {
        let what = match &self.what {
            What::File(content) => format!("file {}", content.escape_debug()),
            What::Link(target) => format!("link {}", target.escape_debug()),
        };
        format!("added {} {:o} {what}\n", self.path, self.mode)
    }
}
