//! `Setting`: one key of the configuration, what it is, and where that stands.

use serde::{Deserialize, Serialize};

/// A line of `bg-doctor --print-config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// `banger/v1`.
    pub api_version: String,
    /// `Setting`.
    pub kind: String,
    /// The key in a configuration file.
    pub key: String,
    /// The variable that goes before it.
    pub variable: String,
    /// What it is, as it was written; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where it stands: a variable, a file's path, or `default`.
    pub origin: String,
}
