//! The configure boot: what a root file system brings to be run in it once, and what its guest says of that.

use serde::{Deserialize, Serialize};

/// Where the root file system has its packages' scripts. `list` has a line for each, `FILE NAME VERSION ARCHITECTURE`, in the
/// order in which they are run, all with the action `pre` and then all with `post`; ARCHITECTURE is the root's own, also for a
/// package for all. FILE is decimal digits and lies beside it, as does `epoch`, the scripts' `SOURCE_DATE_EPOCH`.
pub const CONFIGURE_DIR: &str = "/var/lib/banger/configure";

/// The vsock port of CID 2, the host, to which the guest of a configure boot says how its scripts end: a [`ConfigureLine`]
/// each, and a last one when the root file system is whole and will not change any more. The host answers each with a line
/// feed, which the guest waits for: a machine that ends does not send what it still has.
pub const CONFIGURE_PORT: u32 = 53;

/// So much of a script's output is in its line at most, in bytes: its end.
pub const CONFIGURE_OUTPUT: usize = 4096;

/// One line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ConfigureLine {
    /// A script begins. Agents of the first version do not say so.
    Begins(ConfigureBegins),
    /// A script has ended.
    Script(Configured),
    /// All have ended well.
    Done(ConfigureDone),
}

/// What a package's script `INSTALL` is told to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfigureAction {
    /// Before any package is unpacked, in xbps' own transactions; here all of them are there already.
    Pre,
    /// When all are unpacked.
    #[default]
    Post,
}

impl ConfigureAction {
    /// Both, in their order.
    pub const ALL: [ConfigureAction; 2] = [ConfigureAction::Pre, ConfigureAction::Post];

    /// The script's first argument.
    pub fn as_str(self) -> &'static str {
        match self {
            ConfigureAction::Pre => "pre",
            ConfigureAction::Post => "post",
        }
    }
}

/// The script of one package begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigureBegins {
    /// The package's name.
    pub begins: String,
    /// What the script is told to do.
    pub action: ConfigureAction,
}

/// How the script of one package ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configured {
    /// The package's name.
    pub package: String,
    /// Its version, with its revision.
    pub version: String,
    /// What the script was told to do.
    #[serde(default)]
    pub action: ConfigureAction,
    /// As a shell has it: the exit status, 128 and the signal's number, or 127 where it could not be started.
    pub status: i32,
    /// The same in words: `exit 1`, `signal 9`.
    pub ended: String,
    /// How long it ran.
    pub ms: u64,
    /// What it printed last, on both streams.
    pub output: String,
}

impl Configured {
    /// Whether it ended well.
    pub fn is_success(&self) -> bool {
        self.status == 0
    }
}

/// The last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigureDone {
    /// Always true.
    pub done: bool,
}
