//! What a root file system gets beside its packages: plain data. Knows no distribution.

/// sysctl.d(5) of every image: editors, test runners and language servers watch more files than the kernel's limits for a
/// small machine allow. Each watch takes about 1 KiB of memory, and only while it lasts.
pub const INOTIFY: (&str, &str) = (
    "etc/sysctl.d/60-banger.conf",
    "fs.inotify.max_user_instances = 1024\n\
     fs.inotify.max_user_watches = 524288\n",
);

/// For login shells of every image: a terminal that the guest has no description of is taken for xterm-256color.
pub const TERMINAL: (&str, &str) = (
    "etc/profile.d/banger-term.sh",
    "if [ -t 1 ] && [ -n \"$TERM\" ]; then\n    \
         _first=${TERM%\"${TERM#?}\"}\n    \
         for _dir in ~/.terminfo /etc/terminfo /lib/terminfo /usr/lib/terminfo /usr/share/terminfo; do\n        \
             [ ! -e \"$_dir/$_first/$TERM\" ] || _first=\n    \
         done\n    \
         [ -z \"$_first\" ] || export TERM=xterm-256color\n    \
         unset _first _dir\n\
     fi\n",
);

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
