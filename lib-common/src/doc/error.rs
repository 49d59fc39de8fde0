//! `Error`: the last line of stderr of a tool that failed.

use super::API_VERSION;
use crate::error::Error;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why a tool failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ErrorDoc {
    /// `banger/v1`.
    pub api_version: String,
    /// `Error`.
    pub kind: String,
    /// The tool that failed.
    pub tool: String,
    /// A stable word; `banger(7)` lists them.
    pub code: String,
    /// The tool's exit status.
    pub exit: u8,
    /// One sentence.
    pub message: String,
    /// What lies beneath, outermost first.
    pub causes: Vec<String>,
    /// What to type or do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// For programs: strings by name, and `child` (argv, status, stderr) where a program failed.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub details: serde_json::Map<String, Value>,
}

/// A program that failed, as `details.child`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ChildDoc {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// `exit 1`, `signal 9`.
    pub status: String,
    /// The last 1 KiB of its stderr.
    pub stderr: String,
}

impl ErrorDoc {
    /// The document for `error` in `tool`.
    pub fn new(tool: &str, error: &Error) -> Self {
        let mut details = serde_json::Map::new();
        for (key, value) in error.details() {
            details.insert(key.clone(), Value::from(value.as_str()));
        }
        if let Some(child) = error.get_child() {
            let doc = ChildDoc { argv: child.argv.clone(), status: child.status.clone(), stderr: child.stderr.clone() };
            details.insert("child".into(), serde_json::to_value(doc).expect("strings alone"));
        }
        ErrorDoc {
            api_version: API_VERSION.into(),
            kind: "Error".into(),
            tool: tool.into(),
            code: error.code().as_str().into(),
            exit: error.code().exit(),
            message: error.message().into(),
            causes: error.causes().to_vec(),
            hint: error.get_hint().map(str::to_owned),
            details,
        }
    }
}
