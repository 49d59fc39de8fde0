//! `Report`: the answer to a question with several parts.

use super::Timing;
use serde::{Deserialize, Serialize};

/// A list of checks and whether all of them passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// `banger/v1`.
    pub api_version: String,
    /// `Report`.
    pub kind: String,
    /// What was checked: `host`, `image debian`, `work disk of dev`.
    pub subject: String,
    /// Whether every check passed.
    pub ok: bool,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
    /// How long it took.
    #[serde(default)]
    pub timings: Vec<Timing>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Its name, snake_case.
    pub name: String,
    /// Whether it passed.
    pub ok: bool,
    /// What was seen.
    pub message: String,
    /// What mends it, where it did not pass; where it did, what would make it better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    /// A check; `fix` is told where it did not pass.
    pub fn new(name: &str, ok: bool, message: impl Into<String>, fix: &str) -> Self {
        Check { name: name.into(), ok, message: message.into(), fix: (!ok).then(|| fix.to_owned()) }
    }

    /// A check that passed, and what would make it better.
    pub fn could_be_better(name: &str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Check { name: name.into(), ok: true, message: message.into(), fix: Some(fix.into()) }
    }
}

impl Report {
    /// A report of `checks` on `subject`.
    pub fn new(subject: impl Into<String>, checks: Vec<Check>) -> Self {
        Report {
            api_version: super::API_VERSION.into(),
            kind: "Report".into(),
            subject: subject.into(),
            ok: checks.iter().all(|c| c.ok),
            checks,
            timings: vec![],
        }
    }
}
